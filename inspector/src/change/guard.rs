//! Guard process: restores the changed words if gops-probe itself does not.
//!
//! The guard runs the same program, in a session of its own and without the terminal. It shares the lock of
//! the journal with gops-probe and holds one end of a socket pair. If the other end is closed without a word,
//! gops-probe has died, and the guard restores the words of the journal. The guard also has a deadline: if
//! gops-probe was stopped (`SIGSTOP`) or got no CPU, the guard restores the words at the deadline and reports
//! that when asked. The guard ends with gops-probe, or with the process that is being changed.
//!
//! Before gops-probe restores words, it asks the guard ([`Guard::claim`]). The guard answers requests one
//! after the other, so that only one of both restores.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::journal::Journal;
use super::refused;
use crate::Error;
use crate::clock;
use crate::process::{Pid, Process, tasks};

/// Path of the running program; works also after its file is removed.
pub const OURSELVES: &str = "/proc/self/exe";
/// Hidden command that runs the guard.
pub const COMMAND: &str = "guard-of-change";
/// Time that the guard waits for gops-probe after a deadline.
pub const GRACE: Duration = Duration::from_secs(1);
/// Message of the guard: it is ready.
const READY: u8 = b'r';
/// Message to the guard: all words that have to be restored are written, and the time begins.
const WRITTEN: u8 = b'w';
/// Message to the guard: asks for permission to restore.
const CLAIM: u8 = b'c';
/// Answer of the guard: nothing was restored; gops-probe restores, as long as it lives.
const GRANTED: u8 = b'g';
/// Answer of the guard, followed by the time: the guard has restored the words.
const ENDED: u8 = b'e';
/// Message to the guard: nothing is left to restore.
const DONE: u8 = b'd';
/// Maximum time for the start of the guard; far more than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum time for an answer: the guard answers at once, unless it is stopped too.
const ANSWER: Duration = Duration::from_secs(2);
/// Interval at which the guard looks for late writes and retries a failed restore.
const AGAIN: Duration = Duration::from_millis(100);
/// Interval at which the guard checks whether the process has ended, if there is no pidfd.
const LOOK: Duration = Duration::from_secs(1);

/// Deadlines after which a guard restores without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Time from the start of the guard, if nothing has been written by then.
    pub opening: Duration,
    /// Time from the moment when everything was written ([`Guard::written`]).
    pub open: Duration,
}

impl Times {
    /// Time after which the change is over in any case, and anybody may restore.
    pub(super) fn total(self) -> Duration {
        self.opening.saturating_add(self.open)
    }
}

/// Party that restores the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Gops-probe restores.
    Ours,
    /// Guard has restored. Nothing may be written any more.
    Ended {
        /// Time of the restore: CLOCK_MONOTONIC in nanoseconds.
        at: i64,
    },
}

/// Handle of a running guard, held by the process that it protects. If the handle is dropped without
/// [`Guard::dismiss`], the guard restores everything.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    socket: Option<UnixStream>,
    begun: Instant,
    times: Times,
}

impl Guard {
    /// Starts a guard from `program`, which must have the guard command, and waits until it is ready. Words
    /// that have to be restored may be written only after that.
    ///
    /// # Errors
    /// Returns [`Error::Refused`] if no guard could be started.
    pub fn start(program: &Path, process: &Process, journal: &Journal, times: Times) -> Result<Self, Error> {
        // The guard refuses a process that has executed another program meanwhile: that is the cause then.
        let failed = |e: io::Error| match process.check() {
            Err(gone) => gone.into(),
            Ok(()) => refused(process, format!("no guard could be started ({e}); nothing is written")),
        };
        let begun = Instant::now();
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(process.pid().to_string()).current_dir("/");
        command.args([times.opening, times.open].map(|time| time.as_millis().to_string()));
        command.stdin(OwnedFd::from(theirs)).stdout(journal.share().map_err(failed)?).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| failed(io::Error::other(tasks::why_no_more(&e))))?;
        // The command holds the other end of the pair too: while it is open, the end of the guard is not
        // seen.
        drop(command);
        let mut word = [0];
        let answer = ours.set_read_timeout(Some(PATIENCE)).and_then(|()| ours.read_exact(&mut word));
        let guard = Guard { child, socket: Some(ours), begun, times };
        match answer {
            Ok(()) if word == [READY] => Ok(guard),
            Ok(()) => Err(failed(io::ErrorKind::InvalidData.into())),
            Err(e) => Err(failed(e)),
        }
    }

    /// Returns true if there is still time to write words that have to be restored.
    pub fn is_in_time(&self) -> bool {
        self.begun.elapsed() < self.times.opening
    }

    /// Tells the guard that all words are written: the time for which they may stay changed begins now.
    pub fn written(&mut self) {
        if let Some(socket) = &mut self.socket {
            // If the guard died, the next run restores words that we cannot.
            let _ = socket.write_all(&[WRITTEN]);
        }
    }

    /// Asks the guard which party restores. Without an answer, gops-probe restores: no word is written that
    /// does not hold our value.
    pub fn claim(&mut self) -> Claim {
        let Some(socket) = &mut self.socket else { return Claim::Ours };
        let answer = (|| {
            socket.set_read_timeout(Some(ANSWER))?;
            socket.write_all(&[CLAIM])?;
            let mut word = [0];
            socket.read_exact(&mut word)?;
            let mut at = [0; 8];
            if word == [ENDED] {
                socket.read_exact(&mut at)?;
            }
            Ok::<_, io::Error>((word, i64::from_le_bytes(at)))
        })();
        match answer {
            Ok(([ENDED], at)) => Claim::Ended { at },
            _ => Claim::Ours,
        }
    }

    /// Ends the guard: nothing is left to restore.
    pub fn dismiss(mut self) {
        if let Some(mut socket) = self.socket.take() {
            // A guard that died has nothing to do any more either.
            let _ = socket.write_all(&[DONE]);
        }
        self.await_end(ANSWER);
    }

    /// Waits for the end of the guard. A guard that is stopped ends when it continues.
    fn await_end(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Returns true if the guard still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            self.await_end(PATIENCE);
        }
    }
}

/// Runs the guard: standard input is its end of the socket pair, standard output is the journal.
///
/// # Errors
/// Returns an error if the journal is not for this process, or if a word could not be restored.
pub fn run(pid: Pid, times: Times) -> Result<(), Error> {
    close_inherited();
    // Without its own session, the guard would be killed together with gops-probe. Fails only if it already
    // has one.
    let _ = rustix::process::setsid();
    ignore_signals();
    let process = Process::pin(pid)?;
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| refused(&process, format!("the guard: {e}")))
    };
    let socket = UnixStream::from(duplicate(io::stdin().as_fd())?);
    let journal = File::from(duplicate(io::stdout().as_fd())?);
    let journal = Journal::inherited(journal, &process)?;
    let until = Some(Instant::now() + times.opening);
    let mut watch = Watch { process: &process, socket, journal, times, until, written: false, ended: None };
    // Gops-probe may be dead already, and has written nothing then; the journal must be cleared.
    watch.say(&[READY]);
    watch.run()
}

/// State of the guard.
struct Watch<'p> {
    process: &'p Process,
    socket: UnixStream,
    journal: Journal,
    times: Times,
    /// Deadline at which the guard restores without being asked; `None` if gops-probe restores.
    until: Option<Instant>,
    /// True if all words are written.
    written: bool,
    /// Time at which the guard restored without being asked.
    ended: Option<i64>,
}

impl Watch<'_> {
    /// Runs until nothing is left to do.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            if self.hears()? {
                // A message sent before the deadline counts, even if it is read after the deadline.
                match self.word()? {
                    Some(DONE) => return Ok(()),
                    Some(WRITTEN) => {
                        self.written = true;
                        match self.ended {
                            None => self.until = Some(Instant::now() + self.times.open),
                            // Gops-probe was stopped before it wrote, or got no CPU.
                            Some(_) => self.end(),
                        }
                    }
                    Some(CLAIM) => match self.ended {
                        None => {
                            self.until = None;
                            self.say(&[GRANTED]);
                        }
                        Some(at) => {
                            let mut answer = vec![ENDED];
                            answer.extend(at.to_le_bytes());
                            self.say(&answer);
                        }
                    },
                    Some(_) => {}
                    // Gops-probe has died.
                    None => {
                        self.journal.reread();
                        // No message is sent: nobody is left to receive it.
                        return self.journal.restore(self.process).map(drop);
                    }
                }
                continue;
            }
            if self.process.check().is_err() {
                return Ok(());
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                self.end();
            }
        }
    }

    /// Restores the words at the deadline. Later writes are impossible only after gops-probe has reported
    /// that all is written.
    fn end(&mut self) {
        self.journal.reread();
        match self.journal.put_back(self.process) {
            Ok(_) => {
                self.ended.get_or_insert_with(clock::monotonic);
                self.until = (!self.written).then(|| Instant::now() + AGAIN);
            }
            Err(_) => self.until = Some(Instant::now() + AGAIN),
        }
    }

    /// Waits for a message, for the end of gops-probe or the process, or for the deadline. Returns true if
    /// the socket is readable.
    fn hears(&self) -> Result<bool, Error> {
        let wait = self.until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()).min(LOOK));
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(self.process.pidfd().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(refused(self.process, format!("the guard: {e}"))),
        }
        Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
    }

    /// Reads one message; `None` if the other end is closed.
    fn word(&mut self) -> Result<Option<u8>, Error> {
        let mut word = [0];
        loop {
            return match self.socket.read(&mut word) {
                Ok(1) => Ok(word.first().copied()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                _ => Ok(None),
            };
        }
    }

    fn say(&mut self, words: &[u8]) {
        // If nobody listens any more, the next read reports it.
        let _ = self.socket.write_all(words);
    }
}

/// Closes files that a shell or service manager left open: readers of their pipes would wait for our end.
fn close_inherited() {
    // SAFETY: nothing in this process uses a file descriptor from 3 on at this time: it has just begun, and
    // has opened none.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Ignores signals to a whole session or service: the guard must end by itself, not before.
fn ignore_signals() {
    let nobody = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        // Registering fails for no signal that can be caught.
        let _ = signal_hook::flag::register(signal, Arc::clone(&nobody));
    }
}
