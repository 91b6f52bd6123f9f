//! The other side of the protocol: what gops connects to, for a process that has no agent.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::signal::{GcPercent, Request, Signal, read_varint};
use crate::threads;

/// Connections beyond these are closed at once: memory stays bounded.
const MAX_CONNECTIONS: usize = 16;
/// gops sends its command with the first packet.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take for one part of an answer, and for all of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);
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
    /// Answers one request. An error of anything but `out` is told as text.
    ///
    /// # Errors
    /// Those of `out`.
    fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<Outcome>;
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves, each connection on a thread of its own where there is one to be had, until `until` ends it, which is asked several times a second.
    /// Connections are broken off then.
    ///
    /// # Errors
    /// Where it cannot wait for connections.
    pub fn run<R>(&self, answers: &impl Answers, until: &mut dyn FnMut() -> ControlFlow<R>) -> io::Result<R> {
        let open = Open::default();
        std::thread::scope(|scope| {
            loop {
                if let ControlFlow::Break(end) = until() {
                    open.close_all();
                    return Ok(end);
                }
                let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                match poll(&mut fds, Some(&TICK)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => {
                        open.close_all();
                        return Err(e.into());
                    }
                }
                // What a client does wrong, or the lack of some resource, is no reason to end.
                let Ok((stream, _)) = self.listener.accept() else { continue };
                let Some(id) = open.add(&stream) else { continue };
                let (open, stream) = (&open, Arc::new(stream));
                let answer = move |stream: &TcpStream| {
                    if let Err(e) = serve(stream, answers) {
                        tracing::debug!("connection {id}: {e}");
                    }
                    open.remove(id);
                };
                let its = Arc::clone(&stream);
                // Where there is no thread to be had, the others wait.
                if threads::start_in(scope, "connection", move || answer(&its)).is_err() {
                    answer(&stream);
                }
            }
        })
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Open {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, TcpStream>>,
}

impl Open {
    /// Remembers one; `None` where there are too many.
    fn add(&self, stream: &TcpStream) -> Option<u64> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() >= MAX_CONNECTIONS {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.insert(id, stream.try_clone().ok()?);
        Some(id)
    }

    fn remove(&self, id: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn close_all(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            // It is closed already where this fails.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: &TcpStream, answers: &impl Answers) -> io::Result<()> {
    // Accepted sockets do not inherit this everywhere.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut out = BufWriter::with_capacity(BUFFER, Until { stream, end: Instant::now() + WHOLE_TIMEOUT });
    let outcome = match read_request(&mut &*stream)? {
        Some(request) => answers.answer(&request, &mut out)?,
        None => {
            writeln!(out, "gops-probe: no such command")?;
            Outcome::Answered
        }
    };
    out.flush()?;
    if outcome == Outcome::Refused {
        // Closing then resets the connection.
        return Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?);
    }
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    let mut rest = [0; 64];
    for _ in 0..MAX_LINGER {
        if matches!(stream.take(64).read(&mut rest), Ok(0) | Err(_)) {
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

/// A connection that takes an answer for so long only.
struct Until<'s> {
    stream: &'s TcpStream,
    end: Instant,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut stream = self.stream;
        stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]

    use super::*;

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
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address().unwrap();
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
                (0..MAX_CONNECTIONS / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
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
    fn too_many_are_turned_away() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address().unwrap();
        let open = Open::default();
        let streams: Vec<_> = (0..=MAX_CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let ids: Vec<_> = streams.iter().map(|s| open.add(s)).collect();
        assert!(ids[..MAX_CONNECTIONS].iter().all(Option::is_some));
        assert_eq!(ids[MAX_CONNECTIONS], None);
    }
}
