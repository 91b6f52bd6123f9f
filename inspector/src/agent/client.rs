//! Requests to an agent, with limits on its answer.

use std::io::{self, Read as _, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Error;
use super::connect::Connection;
use super::signal::{Request, Signal};

const BUFFER: usize = 64 << 10;
/// Interval at which the reader checks its limits while no data arrives.
const TICK: Duration = Duration::from_millis(100);
/// Maximum time without data. A busy agent answers only after another client's CPU profile.
const SILENCE: Duration = Duration::from_secs(60);
/// Maximum time for a whole answer, against one that trickles.
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// Limits on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum time without data.
    pub silence: Duration,
    /// Maximum time for the whole answer.
    pub whole: Duration,
    /// Maximum number of bytes.
    pub bytes: u64,
}

impl Limits {
    /// Limits suited to the answer to `signal`; `silence` replaces the default if the user gave it.
    pub fn of(signal: Signal, silence: Option<Duration>) -> Self {
        let bytes = match signal {
            Signal::Version => 4 << 10,
            Signal::Gc | Signal::SetGcPercent | Signal::Stats | Signal::MemStats => 64 << 10,
            // The agent itself stops at 64 MiB.
            Signal::StackTrace => 256 << 20,
            Signal::HeapProfile | Signal::CpuProfile => 1 << 30,
            Signal::Trace | Signal::BinaryDump => 8 << 30,
        };
        Limits {
            silence: silence.unwrap_or(SILENCE) + signal.measures_for(),
            whole: silence.unwrap_or_default().max(WHOLE) + signal.measures_for(),
            bytes,
        }
    }
}

/// Reason for the end of an answer.
#[derive(Debug)]
pub enum End {
    /// The agent closed the connection, as it does after each answer.
    Closed,
    /// No data arrived for this time.
    Silent(Duration),
    /// The answer took longer than this.
    TooLong(Duration),
    /// The answer has more bytes than this.
    TooLarge(u64),
    /// The connection broke.
    Broken(io::Error),
    /// The caller's `watch` function ended it.
    Stopped,
}

impl End {
    /// Reason why an answer is incomplete; `None` if it may be complete.
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            End::Closed => return None,
            End::Silent(after) => format!("nothing came for {} s", after.as_secs_f64()),
            End::TooLong(after) => format!("it took more than {} s", after.as_secs_f64()),
            End::TooLarge(bytes) => format!("it has more than {bytes} bytes"),
            End::Broken(error) => format!("the connection broke: {error}"),
            End::Stopped => "interrupted".to_owned(),
        })
    }
}

/// Received answer.
#[derive(Debug)]
pub struct Answer {
    /// Number of bytes.
    pub bytes: u64,
    /// Reason for the end of the answer.
    pub end: End,
}

impl Connection {
    /// Sends `request` and passes the answer on to `sink`, until the agent closes the connection or
    /// a limit is reached. `watch` gets the number of bytes several times a second, and may end the
    /// answer.
    ///
    /// # Errors
    /// Returns the reason if no data arrived, and [`Error::Sink`] if `sink` fails.
    pub fn ask(
        mut self,
        request: &Request,
        limits: &Limits,
        sink: &mut dyn Write,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let begun = Instant::now();
        let sent = (|| {
            self.stream.set_read_timeout(Some(TICK))?;
            self.stream.set_write_timeout(Some(limits.silence))?;
            self.stream.write_all(&request.encode())
        })();
        if let Err(source) = sent {
            return Err(Error::Broken { peer: self.peer, source });
        }
        let mut buffer = vec![0; BUFFER];
        let (mut bytes, mut last) = (0, Instant::now());
        let end = loop {
            if watch(bytes).is_break() {
                break End::Stopped;
            }
            let left = limits.bytes.saturating_sub(bytes);
            match self.stream.read(&mut buffer) {
                Ok(0) => break End::Closed,
                Ok(n) => {
                    let kept = usize::try_from(left).map_or(n, |left| n.min(left));
                    sink.write_all(buffer.get(..kept).unwrap_or_default()).map_err(Error::Sink)?;
                    bytes += kept as u64;
                    if kept < n {
                        break End::TooLarge(limits.bytes);
                    }
                    last = Instant::now();
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if last.elapsed() >= limits.silence {
                        break End::Silent(limits.silence);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break End::Broken(e),
            }
            if begun.elapsed() >= limits.whole {
                break End::TooLong(limits.whole);
            }
        };
        sink.flush().map_err(Error::Sink)?;
        match end {
            End::Closed if bytes == 0 => Err(Error::Empty { peer: self.peer }),
            End::Silent(after) | End::TooLong(after) if bytes == 0 => {
                Err(Error::Silent { peer: self.peer, after })
            }
            End::Broken(source) if bytes == 0 => Err(Error::Broken { peer: self.peer, source }),
            end => Ok(Answer { bytes, end }),
        }
    }
}
