//! The other side of the protocol: what gops connects to, for a process that has no agent.

use std::io::{self, BufWriter, Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::peer::{Policy, Rights};
use super::places::Places;
use super::signal::{GcPercent, Request, Signal, read_varint};
use super::socket::{Listen, Listener, Stream};
use crate::threads;

/// gops sends its command with the first packet.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may keep us waiting, all its parts of an answer together, and how much it has to read in a second beyond that.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 256 << 10;
/// How long it may read nothing at all: what the kernel keeps for it counts as read.
const STALL: Duration = Duration::from_secs(5);
/// How long we wait for a client to close, so that what it sent too much does not cut off its answer.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 64;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const BUFFER: usize = 64 << 10;

/// Whether a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Answered,
    /// It was not, and what was written says why. The connection is broken off behind that: gops shows no text for
    /// some commands, and must not take this for success.
    Refused,
}

/// What answers.
pub trait Answers: Sync {
    /// Answers one request, which whoever asks has the right to. An error of anything but `out` is told as text.
    ///
    /// # Errors
    /// Those of `out`.
    fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<Outcome>;
}

/// A listening socket, and who may ask there.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    policy: Policy,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(at: &Listen, policy: Policy) -> io::Result<Self> {
        let listener = Listener::bind(at, !policy.users.is_empty())?;
        Ok(Server { listener, policy })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<Listen> {
        self.listener.address()
    }

    /// Serves, each connection on a thread of its own where there is one to be had, until `until` ends it, which is asked several times a second.
    /// Connections are broken off then.
    ///
    /// # Errors
    /// Where it cannot wait for connections.
    pub fn run<R>(&self, answers: &impl Answers, until: &mut dyn FnMut() -> ControlFlow<R>) -> io::Result<R> {
        let places = Places::default();
        std::thread::scope(|scope| {
            loop {
                if let ControlFlow::Break(end) = until() {
                    places.close_all();
                    return Ok(end);
                }
                let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                match poll(&mut fds, Some(&TICK)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => {
                        places.close_all();
                        return Err(e.into());
                    }
                }
                // What a client does wrong, or the lack of some resource, is no reason to end.
                let Ok(stream) = self.listener.accept() else { continue };
                let Some((id, rights)) = self.admit(&stream, &places) else { continue };
                let (places, stream) = (&places, Arc::new(stream));
                let answer = move |stream: &Stream| {
                    if let Err(e) = serve(stream, rights, answers) {
                        tracing::debug!("connection {id}: {e}");
                    }
                    places.give_back(id);
                };
                let its = Arc::clone(&stream);
                // Where there is no thread to be had, the others wait.
                if threads::start_in(scope, "connection", move || answer(&its)).is_err() {
                    answer(&stream);
                }
            }
        })
    }

    /// Gives a client a place, and says what it may ask. `None` where it may not, or there is none: it was told so.
    fn admit(&self, stream: &Stream, places: &Places) -> Option<(u64, Rights)> {
        let peer = match stream.peer() {
            Ok(peer) => peer,
            Err(e) => {
                turn_away(stream, &format!("it cannot be found out who asks: {e}"));
                return None;
            }
        };
        let rights = match self.policy.rights(peer) {
            Ok(rights) => rights,
            Err(stranger) => {
                turn_away(stream, &stranger.to_string());
                return None;
            }
        };
        match places.take(peer, &self.policy, stream) {
            Ok(Some(id)) => return Some((id, rights)),
            Ok(None) => turn_away(stream, &format!("{peer} has too many connections, or all have")),
            Err(e) => turn_away(stream, &e.to_string()),
        }
        None
    }
}

/// Tells a client why it gets no answer, without waiting for it.
fn turn_away(mut stream: &Stream, why: &str) {
    tracing::warn!("a client was turned away: {why}");
    // It may be gone.
    let _ = stream.set_nonblocking(true).and_then(|()| writeln!(stream, "gops-probe: {why}"));
    let _ = stream.break_off();
}

fn serve(stream: &Stream, rights: Rights, answers: &impl Answers) -> io::Result<()> {
    // Accepted sockets do not inherit this everywhere.
    stream.set_nonblocking(false)?;
    let request = read_request(&mut InTime { stream, end: Instant::now() + COMMAND_TIMEOUT })?;
    let mut out = BufWriter::with_capacity(BUFFER, Paced { stream, waited: Duration::ZERO, written: 0 });
    let outcome = match request {
        Some(request) if rights.include(request.signal()) => answers.answer(&request, &mut out)?,
        Some(request) => {
            let command = request.signal().command();
            tracing::warn!("{command} was refused: only root and the user of this server may ask for it");
            writeln!(
                out,
                "gops-probe: {command} is for root and the user of this server, without --allow-changes"
            )?;
            Outcome::Refused
        }
        None => {
            writeln!(out, "gops-probe: no such command")?;
            Outcome::Answered
        }
    };
    out.flush()?;
    if outcome == Outcome::Refused {
        return stream.break_off();
    }
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(LINGER)?;
    let mut rest = [0; 64];
    for _ in 0..MAX_LINGER {
        if matches!({ stream }.read(&mut rest), Ok(0) | Err(_)) {
            break;
        }
    }
    Ok(())
}

/// Reads a command and its parameter; `None` where there is no such command.
///
/// # Errors
/// Those of `from`, and a parameter that is no number.
pub fn read_request(from: &mut impl Read) -> io::Result<Option<Request>> {
    let mut command = [0];
    from.read_exact(&mut command)?;
    Ok(match Signal::from_byte(command[0]) {
        Some(Signal::SetGcPercent) => Some(Request::SetGc(GcPercent(read_varint(from)?))),
        other => other.map(Request::Plain),
    })
}

/// A connection that has to bring its request by then.
struct InTime<'s> {
    stream: &'s Stream,
    end: Instant,
}

impl Read for InTime<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(left)?;
        self.stream.read(buf)
    }
}

/// A connection whose reader has to go on reading: what counts is the time for which we wait for it.
struct Paced<'s> {
    stream: &'s Stream,
    waited: Duration,
    written: u64,
}

impl Write for Paced<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let allowed = WRITE_TIMEOUT + Duration::from_secs(self.written / SLOWEST);
        let left = allowed.saturating_sub(self.waited).min(STALL);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_write_timeout(left)?;
        let begun = Instant::now();
        let written = self.stream.write(buf);
        self.waited += begun.elapsed();
        self.written += *written.as_ref().unwrap_or(&0) as u64;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]

    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::Ordering;

    use super::super::places::MAX_OF_OWNER;
    use super::*;

    fn policy() -> Policy {
        let own = rustix::process::geteuid().as_raw();
        Policy { own, users: [].into(), remote: false, changes: false }
    }

    struct Echo;

    impl Answers for Echo {
        fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<Outcome> {
            match request {
                Request::SetGc(percent) => writeln!(out, "percent {}", percent.0)?,
                Request::Plain(signal) => writeln!(out, "{}", signal.command())?,
            }
            let refused = request.signal() == Signal::Gc;
            Ok(if refused { Outcome::Refused } else { Outcome::Answered })
        }
    }

    fn ask(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn clients_do_not_disturb_each_other() {
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), policy()).unwrap();
        let Listen::Tcp(address) = server.address().unwrap() else { panic!("TCP") };
        let done = std::sync::atomic::AtomicBool::new(false);
        /// Also ends the server where the test fails.
        struct End<'d>(&'d std::sync::atomic::AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let _end = End(&done);
            scope.spawn(|| {
                let mut until = || match done.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
                server.run(&Echo, &mut until).unwrap();
            });
            // They say nothing, and hold their connections.
            let silent: Vec<_> =
                (0..MAX_OF_OWNER / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!(ask(address, &[4]), "version\n");
            // As gops sends it: ten bytes, of which the number is two.
            assert_eq!(ask(address, &[0x10, 0xc8, 1, 0, 0, 0, 0, 0, 0, 0, 0]), "percent 100\n");
            assert_eq!(ask(address, &[0xff]), "gops-probe: no such command\n");
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[2]).unwrap();
            let mut said = Vec::new();
            let end = stream.read_to_end(&mut said).unwrap_err();
            assert_eq!((end.kind(), &*said), (io::ErrorKind::ConnectionReset, &b"gc\n"[..]));
            drop(silent);
        });
    }

    #[test]
    fn a_slow_reader_is_not_waited_for() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = Stream::Unix(ours);
        let mut paced =
            Paced { stream: &ours, waited: WRITE_TIMEOUT - Duration::from_millis(50), written: 0 };
        // It reads nothing: what the kernel does not take is given up after what is left of the time.
        let part = [0; 4096];
        let error = std::iter::repeat_with(|| paced.write(&part)).find_map(Result::err).unwrap();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        // Whoever reads enough has more time.
        paced.written = 1000 * SLOWEST;
        (&theirs).read_exact(&mut [0; 1 << 16]).unwrap();
        assert!(paced.write(&part).is_ok());
    }
}
