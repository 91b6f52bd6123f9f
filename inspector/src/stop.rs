//! Brief stops of the threads of a process. No other module uses ptrace to stop threads.
//!
//! Threads are seized and interrupted, which sends no signal and injects nothing. If our process
//! dies in between, the kernel detaches the threads and they run on. If our process makes no
//! progress, it is [ended](longest_stop).
//!
//! States of a thread during a stop:
//!
//! ```text
//!             PTRACE_SEIZE          PTRACE_INTERRUPT       report is seen
//! untraced ----------------> seized ----------------> told ----------------> stopped
//!    ^                          |                      |                        |
//!    |                          |    it ends: it is    |                        |
//!    |                          |  forgotten (reaper)  |                        |
//!    |                          |                      |                        |
//!    +--------------------------+-- PTRACE_DETACH, with the signal that -------+
//!                                   was on its way to the thread
//! ```
//!
//! Invariants at each moment, wherever our process is ended:
//!
//! * One thread of our process does all the tracing. The kernel lets a thread go when its tracer
//!   ends.
//! * Reports are looked at and never consumed (`tracee`), so that a signal stays with its thread.
//! * A kernel timer (watchdog) is armed before the first thread is seized, and disarmed when the
//!   last thread is let go.
//! * No thread is held stopped for longer than `hold` while others are missing. A thread that was
//!   told to stop and does not is late. The others run on until it has stopped.
//! * A helper thread waits for threads that end while others are seized (`reaper`), because a
//!   process that executes another program blocks until that is done.

mod pending;
mod priority;
mod reaper;
mod registers;
mod steps;
mod tasks;
mod tracee;
mod watchdog;
pub mod witness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

pub use pending::{PendingStop, StopOutcome};
pub(crate) use priority::Raised;
use reaper::Reaper;
pub use registers::Registers;
use steps::{NAP, SPINS, give_way};
use tasks::{is_dead, lacks_cpu};
pub use tasks::{is_traced, namespaced_threads, state, threads, tracer, wait_channel};
use watchdog::Watchdog;
pub use watchdog::longest_stop;

/// Reason why threads could not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The process or thread is gone.
    #[error("it exited")]
    Exited,
    /// The kernel denies tracing: no permission, or another tracer holds it.
    #[error("the kernel denies stopping its threads")]
    Denied,
    /// A thread did not stop in time: it is in an uninterruptible wait, or frozen.
    #[error("thread {0} did not stop in time")]
    Timeout(i32),
    /// The kernel gives no timer that limits the stop, so nothing is stopped.
    #[error("the kernel has no timer for the end of a stop: {}", no_timer(.errno, .signals))]
    NoTimer {
        /// Error that the kernel returned.
        errno: Errno,
        /// Signals pending for all processes of our user, and their limit; `None` if this is not
        /// the cause.
        signals: Option<(u64, u64)>,
    },
    /// Other error of the kernel.
    #[error("ptrace: {0}")]
    Os(Errno),
}

fn no_timer(errno: &Errno, signals: &Option<(u64, u64)>) -> String {
    match signals {
        Some((used, limit)) => format!(
            "the signals that wait for processes of this user ({used}) reach RLIMIT_SIGPENDING (ulimit -i, {limit})"
        ),
        None => errno.to_string(),
    }
}

impl From<Errno> for StopError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ESRCH => StopError::Exited,
            Errno::EPERM | Errno::EACCES => StopError::Denied,
            other => StopError::Os(other),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThreadState {
    /// Told to stop, not yet seen stopped.
    Stopping,
    /// Stopped. A signal that was on its way is delivered when the thread goes on.
    Stopped { signal: Option<i32> },
}

/// Threads of a process held stopped; dropping it lets them all run on.
///
/// The kernel ties a traced thread to the tracing thread, hence not `Send`.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    threads: BTreeMap<i32, ThreadState>,
    begun: Instant,
    /// Time at which a thread was last seen not stopped yet.
    seen_running: Instant,
    /// Helper that waits for traced threads that end while others are seized.
    reaper: Option<Reaper>,
    /// Timer that ends our process if it makes no progress: armed before the first thread is
    /// seized, disarmed when the last is let go.
    watchdog: Watchdog,
    /// Raised priority of our thread while the threads are held.
    raised: Option<Raised>,
    not_send: std::marker::PhantomData<*const ()>,
}

/// Durations of a stop, on our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopTimes {
    /// Time from the first request to stop until the last thread was let go.
    pub total: Duration,
    /// Time from the first request to stop until all threads had stopped.
    pub until_stopped: Duration,
    /// Number of threads that were stopped.
    pub threads: usize,
}

impl Stopped {
    /// Stops all threads of `pid`, including threads that are created meanwhile.
    ///
    /// Stopped threads are held for at most `hold`, or for the time that stopping so many threads
    /// takes, while others have not stopped. Then they run on while a late thread is waited for (a
    /// fork in progress, the disk), for three seconds at most. A late thread that stops is kept,
    /// and the others are stopped again. Threads that are runnable and only lack a CPU are waited
    /// for longer.
    ///
    /// # Errors
    /// Returns [`StopError`] if the threads could not be stopped; no thread stays stopped then.
    pub fn all_threads(pid: i32, hold: Duration) -> Result<Self, StopError> {
        let number = u32::try_from(threads(pid)?.len()).unwrap_or(u32::MAX);
        let hold = hold.max(EACH.saturating_mul(number));
        let mut stopped = Stopped::of(pid, Instant::now(), hold)?;
        stopped.raised = Some(Raised::raise());
        let begun = stopped.begun;
        stopped.reaper = Some(Reaper::start(pid));
        let (mut rounds, mut slow_rounds) = (1, 0);
        loop {
            match stopped.try_all(hold) {
                Ok(()) => break,
                Err(StopError::Timeout(tid)) => {
                    let slow = stopped.stopping().into_iter().all(lacks_cpu);
                    let give_up = begun + if slow { SLOW_PATIENCE } else { PATIENCE };
                    let left = if slow { slow_rounds < MAX_SLOW } else { rounds < MAX_HOLDS };
                    if !left || Instant::now() >= give_up {
                        return Err(StopError::Timeout(tid));
                    }
                    *(if slow { &mut slow_rounds } else { &mut rounds }) += 1;
                    stopped.await_late(give_up)?;
                }
                Err(error) => return Err(error),
            }
        }
        stopped.reaper = None;
        stopped.watchdog.alive()?;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops all threads of `pid` as [`Stopped::all_threads`] does, but within `hold` or not at
    /// all.
    ///
    /// # Errors
    /// Returns [`StopError`] if the threads did not all stop in time; no thread stays stopped then.
    pub fn all_threads_within(pid: i32, hold: Duration) -> Result<Self, StopError> {
        let mut stopped = Stopped::of(pid, Instant::now(), hold)?;
        stopped.raised = Some(Raised::raise());
        stopped.reaper = Some(Reaper::start(pid));
        stopped.try_all(hold)?;
        stopped.reaper = None;
        stopped.watchdog.alive()?;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops the threads `tids` of `pid`, and the threads that they create meanwhile.
    ///
    /// # Errors
    /// Returns [`StopError`] if a thread could not be stopped; no thread stays stopped then.
    pub fn some_threads(pid: i32, tids: &[i32], hold: Duration) -> Result<Self, StopError> {
        let mut stopped = Stopped::of(pid, Instant::now(), hold)?;
        stopped.raised = Some(Raised::raise());
        stopped.reaper = Some(Reaper::start(pid));
        // The time of the preparation does not count as time of the stop.
        stopped.begun = Instant::now();
        for &tid in tids {
            stopped.seize(tid)?;
        }
        stopped.interrupt_all();
        stopped.wait(stopped.begun + hold)?;
        stopped.reaper = None;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops all threads that have not stopped yet, within `hold`.
    fn try_all(&mut self, hold: Duration) -> Result<(), StopError> {
        let tids = threads(self.pid)?;
        self.begun = Instant::now();
        self.seen_running = self.begun;
        let deadline = self.begun + hold;
        for tid in tids {
            self.seize(tid)?;
        }
        // Interrupt only once all are seized: no thread waits stopped while others are being
        // seized.
        self.interrupt_all();
        self.wait(deadline)?;
        // Threads that a not yet seized thread created meanwhile are not traced automatically.
        for _ in 0..MAX_ROUNDS {
            let mut new = threads(self.pid)?;
            // A main thread that has ended is listed as long as other threads live.
            new.retain(|&tid| !(self.threads.contains_key(&tid) || tid == self.pid && is_dead(tid)));
            if new.is_empty() {
                return Ok(());
            }
            for tid in &new {
                self.seize(*tid)?;
            }
            for tid in new {
                self.interrupt(tid);
            }
            self.wait(deadline)?;
        }
        Err(StopError::Timeout(self.pid))
    }

    /// Lets the stopped threads run on, and waits until one of the late threads has stopped.
    fn await_late(&mut self, give_up: Instant) -> Result<(), StopError> {
        self.detach_stopped();
        let mut looks = 0;
        loop {
            self.watchdog.alive()?;
            for tid in self.stopping() {
                self.poll(tid)?;
            }
            let late = self.stopping();
            // No thread is late any more, or a late one has stopped.
            let Some(&first) = late.first() else { return Ok(()) };
            if late.len() < self.threads.len() {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(StopError::Timeout(first));
            }
            looks += 1;
            give_way(looks);
        }
    }

    /// Stops a single thread of `pid`. A thread that is runnable and only lacks a CPU is waited for
    /// longer, as no other thread is held meanwhile.
    ///
    /// # Errors
    /// Returns [`StopError`] if the thread could not be stopped; the thread runs on then.
    pub fn one_thread(pid: i32, tid: i32, timeout: Duration) -> Result<Self, StopError> {
        let begun = Instant::now();
        let mut stopped = Stopped::of(pid, begun, timeout)?;
        stopped.raised = Some(Raised::raise());
        stopped.seize(tid)?;
        if stopped.threads.is_empty() {
            return Err(StopError::Exited);
        }
        stopped.interrupt(tid);
        loop {
            match stopped.wait(Instant::now() + timeout) {
                Ok(()) => break,
                Err(StopError::Timeout(late)) if lacks_cpu(late) && begun.elapsed() < SLOW_PATIENCE => {}
                Err(error) => return Err(error),
            }
        }
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops a single thread of `pid` as one of many that are stopped one after the other.
    ///
    /// Keeps our core busy while the thread can stop on another core, so that the thread is not
    /// held for the time that we would wait for a core. Does not wait for a late thread: it is
    /// returned as pending.
    ///
    /// # Errors
    /// Returns [`StopError`] if the thread could not be stopped; the thread runs on then.
    pub fn one_in_passing(pid: i32, tid: i32, timeout: Duration) -> Result<StopOutcome, StopError> {
        let begun = Instant::now();
        let mut stopped = Stopped::of(pid, begun, timeout)?;
        stopped.seize(tid)?;
        stopped.interrupt(tid);
        let waited = stopped.wait_with(begun + timeout, |idle_rounds| {
            if idle_rounds < SPINS { std::hint::spin_loop() } else { std::thread::sleep(NAP) }
        });
        match waited {
            Ok(()) if stopped.threads.is_empty() => Err(StopError::Exited),
            Ok(()) => Ok(StopOutcome::Stopped(stopped)),
            Err(StopError::Timeout(_)) => Ok(StopOutcome::Pending(PendingStop::new(tid, stopped))),
            Err(error) => Err(error),
        }
    }

    fn of(pid: i32, begun: Instant, hold: Duration) -> Result<Self, StopError> {
        Ok(Stopped {
            pid,
            threads: BTreeMap::new(),
            begun,
            seen_running: begun,
            reaper: None,
            watchdog: Watchdog::new(longest_stop(hold))?,
            raised: None,
            not_send: std::marker::PhantomData,
        })
    }

    /// Ids of the held threads.
    pub fn tids(&self) -> impl Iterator<Item = i32> {
        self.threads.keys().copied()
    }

    /// Time of the first request to stop, in the round in which all threads stopped.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Time at which a thread was last seen not stopped yet.
    pub fn seen_running(&self) -> Instant {
        self.seen_running
    }

    /// Allows `time` for the work done while the threads are held, if that is longer than the time
    /// allowed for the stop. A process that takes far longer is [ended](longest_stop).
    pub fn allow(&self, time: Duration) -> Result<(), StopError> {
        Ok(self.watchdog.allow(longest_stop(time))?)
    }

    /// Registers of the held thread `tid`.
    pub fn registers(&self, tid: i32) -> Result<Registers, StopError> {
        self.watchdog.alive()?;
        Ok(registers::read(Pid::from_raw(tid))?)
    }

    /// Lets all threads run on. Returns how long they can have stood still: the time since one was
    /// last seen not stopped. Before that they may have waited for a core, which they would have
    /// done without us.
    pub fn resume(mut self) -> Duration {
        self.release();
        self.seen_running.elapsed()
    }

    /// Lets all threads run on. Returns how long they were held.
    pub fn thaw(mut self) -> Duration {
        self.release();
        self.begun.elapsed()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.release();
    }
}

/// Default maximum time that stopped threads are held while the rest stop.
pub const HOLD: Duration = Duration::from_millis(50);
/// Maximum time that late threads are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time allowed per thread for stopping many threads while the stopped ones wait: four times what
/// an idle machine needs.
const EACH: Duration = Duration::from_micros(40);
/// Maximum time that threads are waited for that only lack a CPU. [`MAX_SLOW`] limits the number of
/// rounds.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);
const MAX_SLOW: u32 = 32;
/// Maximum number of rounds in which stopped threads are held for a late one. In some processes
/// always another thread is late.
const MAX_HOLDS: u32 = 8;
/// Maximum number of rounds that seize new threads. New threads appear only while some thread is
/// not seized.
const MAX_ROUNDS: usize = 64;
