//! A process of our own that puts things back where we do not do it.
//!
//! It is this very program, in a session of its own and without the terminal. It holds the lock of the journal together
//! with us, and one end of a pair of sockets: when the other end is closed without a word, we died, and it puts back
//! what the journal says. It has a clock, too: what we have not put back when its time is over, as we were stopped
//! (`SIGSTOP`) or got no CPU, it puts back, and tells us when we ask. It ends with us, or with the process that is being
//! changed.
//!
//! Whoever puts back asks first ([`Guard::claim`]): the guard answers one after the other, so that only one of both does.

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

/// The program that runs, even where its file is gone.
pub const OURSELVES: &str = "/proc/self/exe";
/// The hidden command that is the guard.
pub const COMMAND: &str = "guard-of-change";
/// What is over when its time is: so much longer does the guard wait for us.
pub const GRACE: Duration = Duration::from_secs(1);
/// What it says when it is in place.
const READY: u8 = b'r';
/// What we say when all is written that has to be put back: the time begins.
const WRITTEN: u8 = b'w';
/// What we say before we put it back.
const CLAIM: u8 = b'c';
/// What it answers: nothing was put back, and it leaves that to us, as long as we live.
const GRANTED: u8 = b'g';
/// What it answers, with the time: the guard has put it back.
const ENDED: u8 = b'e';
/// What we say when nothing is left to be put back.
const DONE: u8 = b'd';
/// It only has to start; far more than that takes on a machine that is full.
const PATIENCE: Duration = Duration::from_secs(20);
/// It answers at once, unless it is stopped too.
const ANSWER: Duration = Duration::from_secs(2);
/// How often is looked for what was written too late, and tried again what failed.
const AGAIN: Duration = Duration::from_millis(100);
/// Without a pidfd, the end of the process is looked for so often.
const LOOK: Duration = Duration::from_secs(1);

/// When a guard puts back without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Where nothing has been written for so long since it was started.
    pub opening: Duration,
    /// So long after everything was written ([`Guard::written`]).
    pub open: Duration,
}

impl Times {
    /// The time after which all is over in any case, and anybody may put back.
    pub(super) fn total(self) -> Duration {
        self.opening.saturating_add(self.open)
    }
}

/// Who puts back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// We do.
    Ours,
    /// The guard has, at this time of CLOCK_MONOTONIC in nanoseconds. Nothing may be written any more.
    Ended {
        /// When.
        at: i64,
    },
}

/// A running guard, seen from the process that it is there for. Dropping it without [`Guard::dismiss`] has it put
/// everything back.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    socket: Option<UnixStream>,
    begun: Instant,
    times: Times,
}

impl Guard {
    /// Starts a guard, which is a `program` that has its command, and waits until it is in place. Only then may something be written that has to be put back.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is none.
    pub fn start(program: &Path, process: &Process, journal: &Journal, times: Times) -> Result<Self, Error> {
        // It refuses a process that has executed another program meanwhile: that is the cause then.
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
        // The command holds the other end too, without which its end would not be seen.
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

    /// Whether there is still time to write what has to be put back.
    pub fn is_in_time(&self) -> bool {
        self.begun.elapsed() < self.times.opening
    }

    /// Says that all is written: the time that it may be so begins now.
    pub fn written(&mut self) {
        if let Some(socket) = &mut self.socket {
            // Where that died, the next run puts back what we cannot.
            let _ = socket.write_all(&[WRITTEN]);
        }
    }

    /// Asks who puts back. Where nobody answers, we do: no word is written that does not hold what we wrote.
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

    /// Lets it go: nothing is left to be put back.
    pub fn dismiss(mut self) {
        if let Some(mut socket) = self.socket.take() {
            // One that died has nothing to do any more either.
            let _ = socket.write_all(&[DONE]);
        }
        self.await_end(ANSWER);
    }

    /// One that is stopped ends when it goes on.
    fn await_end(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether it is still there.
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

/// Is the guard: the pair's other end is standard input, the journal standard output.
///
/// # Errors
/// Where what it was handed is not for this process, or could not be put back.
pub fn run(pid: Pid, times: Times) -> Result<(), Error> {
    close_inherited();
    // Without a session of its own, it would be killed together with whom it is there for. Fails only where it has one.
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
    // Whom it is there for may be dead already, and has written nothing then; the journal is to be cleared.
    watch.say(&[READY]);
    watch.run()
}

/// What the guard knows.
struct Watch<'p> {
    process: &'p Process,
    socket: UnixStream,
    journal: Journal,
    times: Times,
    /// When it puts back by itself, unless that is left to whom it is there for.
    until: Option<Instant>,
    /// All is written.
    written: bool,
    /// When it has put back by itself.
    ended: Option<i64>,
}

impl Watch<'_> {
    /// Until there is nothing left to do.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            if self.hears()? {
                // What was said before the time was over counts, though it is heard after it.
                match self.word()? {
                    Some(DONE) => return Ok(()),
                    Some(WRITTEN) => {
                        self.written = true;
                        match self.ended {
                            None => self.until = Some(Instant::now() + self.times.open),
                            // It was stopped before it wrote, or got no CPU.
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
                    // Whom it is there for died.
                    None => {
                        self.journal.reread();
                        // Without a word to anybody: whoever would hear it is dead.
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

    /// Puts back as the time is over. Whether something may still be written too late is known only when all is said to be written.
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

    /// Waits for a word, for the end of one of both, or of the time. Whether the socket has something to say.
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

    /// What was said; `None` where the other end is closed.
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
        // Where nobody listens any more, its end is heard of next.
        let _ = self.socket.write_all(words);
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
