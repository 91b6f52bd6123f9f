//! Asking an agent, and taking no more of an answer than is wanted.

use std::io::{self, Read as _, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Error;
use super::connect::Connection;
use super::signal::{Request, Signal};

const BUFFER: usize = 64 << 10;
/// How often the reader looks up while nothing comes.
const TICK: Duration = Duration::from_millis(100);
/// An agent that is busy with the CPU profile of somebody else answers after that.
const SILENCE: Duration = Duration::from_secs(60);
/// An answer that trickles ends here.
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// How much of an answer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest time in which nothing comes.
    pub silence: Duration,
    /// The longest time for all of it.
    pub whole: Duration,
    /// The most bytes.
    pub bytes: u64,
}

impl Limits {
    /// What fits an answer; `silence` instead of the usual one where the user gave it.
    pub fn of(signal: Signal, silence: Option<Duration>) -> Self {
        let bytes = match signal {
            Signal::Version => 4 << 10,
            Signal::Gc | Signal::SetGcPercent | Signal::Stats | Signal::MemStats => 64 << 10,
            // The agent itself ends at 64 MiB.
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

/// How an answer ended.
#[derive(Debug)]
pub enum End {
    /// The agent closed the connection, as it does behind each answer.
    Closed,
    /// Nothing came for so long.
    Silent(Duration),
    /// It took longer than this.
    TooLong(Duration),
    /// It has more bytes than this.
    TooLarge(u64),
    /// The connection broke.
    Broken(io::Error),
    /// Whoever watched wanted no more.
    Stopped,
}

impl End {
    /// Why an answer is not whole; `None` where it may be.
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

/// What came.
#[derive(Debug)]
pub struct Answer {
    /// How many bytes.
    pub bytes: u64,
    /// How it ended.
    pub end: End,
}

impl Connection {
    /// Asks, and passes on to `sink` what comes, until the agent closes the connection or a limit is reached. `watch` is
    /// told the number of bytes several times a second, and may end it.
    ///
    /// # Errors
    /// Where nothing came, and why; [`Error::Sink`] where `sink` fails.
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
