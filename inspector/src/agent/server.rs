//! Server side of the protocol: gops connects to it to ask about a process that has no agent.

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

/// Maximum time for the request. gops sends its command with the first packet.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time that a client may keep us waiting, for all parts of an answer together. A client
/// gets one more second for every [`SLOWEST`] bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 256 << 10;
/// Maximum time in which a client reads nothing. Data that the kernel buffers count as read.
const STALL: Duration = Duration::from_secs(5);
/// Maximum time that we wait for a client to close, so that surplus input does not cut off its
/// answer.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 64;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const BUFFER: usize = 64 << 10;

/// Result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request was answered.
    Answered,
    /// The request was not answered, and the written text says why. The connection is aborted after
    /// it: gops shows no text for some commands, and must not take this for success.
    Refused,
}

/// Source of the answers.
pub trait Answers: Sync {
    /// Answers one request, which the client has the right to ask. All errors except those of `out`
    /// are reported as text.
    ///
    /// # Errors
    /// Returns the errors of `out`.
    fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<Outcome>;
}

/// Listening socket with the policy for its clients.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    policy: Policy,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    pub fn bind(at: &Listen, policy: Policy) -> io::Result<Self> {
        let listener = Listener::bind(at, !policy.users.is_empty())?;
        Ok(Server { listener, policy })
    }

    /// Address at which the server listens.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    pub fn address(&self) -> io::Result<Listen> {
        self.listener.address()
    }

    /// Serves until `until` ends it, which is called several times a second. Each connection has a
    /// thread of its own if one can be started. At the end, open connections are aborted.
    ///
    /// # Errors
    /// Returns an error if the server cannot wait for connections.
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
                // A client's error, or a missing resource, does not end the server.
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
                // If no thread can be started, the other clients wait.
                if threads::start_in(scope, "connection", move || answer(&its)).is_err() {
                    answer(&stream);
                }
            }
        })
    }

    /// Takes a slot for a client and determines its rights. `None` if it has none, or no slot is
    /// free; the client was told so.
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
    // The client may be gone.
    let _ = stream.set_nonblocking(true).and_then(|()| writeln!(stream, "gops-probe: {why}"));
    let _ = stream.break_off();
}

fn serve(stream: &Stream, rights: Rights, answers: &impl Answers) -> io::Result<()> {
    // Accepted sockets do not inherit this mode on all systems.
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

/// Reads a command and its parameter; `None` if there is no such command.
///
/// # Errors
/// Returns the errors of `from`, and an error for a parameter that is no number.
pub fn read_request(from: &mut impl Read) -> io::Result<Option<Request>> {
    let mut command = [0];
    from.read_exact(&mut command)?;
    Ok(match Signal::from_byte(command[0]) {
        Some(Signal::SetGcPercent) => Some(Request::SetGc(GcPercent(read_varint(from)?))),
        other => other.map(Request::Plain),
    })
}

/// Reader of a connection that has to deliver its request before `end`.
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

/// Writer to a connection whose client has to keep reading: the time that we wait for it is
/// limited.
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
        /// Ends the server even if the test fails.
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
            // Silent clients that hold their connections.
            let silent: Vec<_> =
                (0..MAX_OF_OWNER / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!(ask(address, &[4]), "version\n");
            // Same bytes as gops sends: ten bytes, of which the number has two.
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
        // Nothing is read: bytes that the kernel does not take are given up after the rest of the
        // time.
        let part = [0; 4096];
        let error = std::iter::repeat_with(|| paced.write(&part)).find_map(Result::err).unwrap();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        // A client that reads enough has more time.
        paced.written = 1000 * SLOWEST;
        (&theirs).read_exact(&mut [0; 1 << 16]).unwrap();
        assert!(paced.write(&part).is_ok());
    }
}
