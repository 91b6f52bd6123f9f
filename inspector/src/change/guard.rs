//! A process of our own that puts things back where we are killed before we do.
//!
//! It is this very program, in a session of its own and without the terminal. It holds the lock of the journal together
//! with us, and one end of a pair of sockets: when the other end is closed without a word, we died, and it puts back
//! what the journal says. It ends with us, or with the process that is being changed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::journal::Journal;
use super::refused;
use crate::Error;
use crate::process::{Pid, Process};

/// The program that runs, even where its file is gone.
pub const OURSELVES: &str = "/proc/self/exe";
/// The hidden command that is the guard.
pub const COMMAND: &str = "guard-of-change";
/// What it says when it is in place.
const READY: u8 = b'r';
/// What we say when nothing is left to be put back.
const DONE: u8 = b'd';
/// It only has to start; far more than that takes on a machine that is full.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running guard, seen from the process that it is there for. Dropping it without [`Guard::dismiss`] has it put
/// everything back.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    socket: Option<UnixStream>,
}

impl Guard {
    /// Starts a guard, which is a `program` that has its command, and waits until it is in place. Only then may something be written that has to be put back.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is none.
    pub fn start(program: &Path, process: &Process, journal: &Journal) -> Result<Self, Error> {
        let failed =
            |e: io::Error| refused(process, format!("no guard could be started ({e}); nothing is written"));
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(process.pid().to_string()).current_dir("/");
        command.stdin(OwnedFd::from(theirs)).stdout(journal.share().map_err(failed)?).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // The command holds the other end too, without which its end would not be seen.
        drop(command);
        let mut word = [0];
        let answer = ours.set_read_timeout(Some(PATIENCE)).and_then(|()| ours.read_exact(&mut word));
        let guard = Guard { child, socket: Some(ours) };
        match answer {
            Ok(()) if word == [READY] => Ok(guard),
            Ok(()) => Err(failed(io::ErrorKind::InvalidData.into())),
            Err(e) => Err(failed(e)),
        }
    }

    /// Lets it go: nothing is left to be put back.
    pub fn dismiss(mut self) {
        if let Some(mut socket) = self.socket.take() {
            // One that died has nothing to do any more either.
            let _ = socket.write_all(&[DONE]);
        }
    }

    /// Whether it is still there.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

/// Is the guard: the pair's other end is standard input, the journal standard output.
///
/// # Errors
/// Where what it was handed is not for this process, or could not be put back.
pub fn run(pid: Pid) -> Result<(), Error> {
    close_inherited();
    // Without a session of its own, it would be killed together with whom it is there for. Fails only where it has one.
    let _ = rustix::process::setsid();
    ignore_signals();
    let process = Process::pin(pid)?;
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| refused(&process, format!("the guard: {e}")))
    };
    let mut socket = UnixStream::from(duplicate(io::stdin().as_fd())?);
    let journal = File::from(duplicate(io::stdout().as_fd())?);
    let mut journal = Journal::inherited(journal, &process)?;
    // Whom it is there for may be dead already, and has written nothing then; the journal is to be cleared.
    let _ = socket.write_all(&[READY]);
    if let End::Died = watch(&process, &mut socket)? {
        journal.reread();
        // Without a word to anybody: whoever would hear it is dead.
        journal.restore(&process)?;
    }
    Ok(())
}

enum End {
    /// Nothing is left to do.
    Done,
    /// Whom it is there for died.
    Died,
}

/// Waits for the end of one of both.
fn watch(process: &Process, socket: &mut UnixStream) -> Result<End, Error> {
    loop {
        let mut fds = vec![PollFd::new(&*socket, PollFlags::IN)];
        fds.extend(process.pidfd().map(|fd| PollFd::new(fd, PollFlags::IN)));
        // Without a pidfd, its end is looked for now and then.
        let wait = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(refused(process, format!("the guard: {e}"))),
        }
        let heard = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if heard {
            let mut word = [0];
            return match socket.read(&mut word) {
                Ok(1) if word == [DONE] => Ok(End::Done),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                _ => Ok(End::Died),
            };
        }
        if process.check().is_err() {
            return Ok(End::Done);
        }
    }
}

/// Closes what the shell or a service manager left open for us: its readers would wait for our end.
fn close_inherited() {
    // SAFETY: nothing in this process uses a file descriptor from 3 on at this time: it has just begun, and has opened
    // none.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// It ends by itself; whoever ends everything of a session or a service must not end it before.
fn ignore_signals() {
    let nobody = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        // Fails for no signal that can be caught.
        let _ = signal_hook::flag::register(signal, Arc::clone(&nobody));
    }
}
