//! Stopping the threads of a process for a moment: the only ptrace code.
//!
//! Threads are seized and interrupted, which sends no signal and injects nothing. If we die in between, the
//! kernel detaches them and they run on. If we do not go on, we are [ended](longest_stop).
//!
//! What a thread passes:
//!
//! ```text
//!             PTRACE_SEIZE          PTRACE_INTERRUPT       its report is seen
//! untraced ----------------> seized ----------------> told ----------------> stopped
//!    ^                          |                      |                        |
//!    |                          |    it ends: it is    |                        |
//!    |                          |  forgotten (reaper)  |                        |
//!    |                          |                      |                        |
//!    +--------------------------+-- PTRACE_DETACH, with the signal that -------+
//!                                   was on its way to the thread
//! ```
//!
//! What holds at each moment, wherever we are ended:
//!
//! * All tracing belongs to one thread of ours: the kernel lets a thread go when its tracer ends.
//! * Reports are looked at and never taken (`tracee`), so that a signal stays with its thread.
//! * A watchdog of the kernel is set before the first thread is seized, and ends with the last one that is let go.
//! * Nobody waits stopped for longer than `hold`: a thread that is told and does not come is late, and the others run on until it
//!   has come.
//! * A thread of ours waits for threads that end while others are seized (`reaper`), for a process that executes another program
//!   waits for that.

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

/// Why threads could not be stopped.
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
    /// Nothing is stopped without a clock that ends it.
    #[error("the kernel has no timer for the end of a stop: {}", no_timer(.errno, .signals))]
    NoTimer {
        /// What the kernel says.
        errno: Errno,
        /// Where that is for the number of signals: how many wait for processes of our user, and how many may.
        signals: Option<(u64, u64)>,
    },
    /// Something else that the kernel says.
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
    /// Told to stop, not seen to have stopped.
    Stopping,
    /// Stopped; a signal that was on its way goes on with the thread.
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
    /// When one of them was last seen not to have stopped yet.
    seen_running: Instant,
    /// Where one thread is traced while others are seized.
    reaper: Option<Reaper>,
    /// Ends us where we do not go on: armed before the first thread is seized, disarmed when the last one was let go.
    watchdog: Watchdog,
    /// While they wait for us.
    raised: Option<Raised>,
    not_send: std::marker::PhantomData<*const ()>,
}

/// How a stop went, on our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopTimes {
    /// From the first request to stop to the last thread let go.
    pub total: Duration,
    /// From the first request to stop until all had stopped.
    pub until_stopped: Duration,
    /// How many threads were stopped.
    pub threads: usize,
}

impl Stopped {
    /// Stops all threads of `pid`, those included that are created meanwhile.
    ///
    /// Those that have stopped wait no longer than `hold` for those that have not, or than it takes to stop so many. Then they
    /// run on while one that is late is waited for (a fork in progress, the disk), for three seconds at most: once it has
    /// stopped it is kept, and the others are stopped again. One that could go on and only lacks a CPU is waited for longer.
    ///
    /// # Errors
    /// On any error no thread stays stopped.
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

    /// Stops all threads of `pid` as [`Stopped::all_threads`] does, but within `hold` or not at all.
    ///
    /// # Errors
    /// On any error no thread stays stopped.
    pub fn all_threads_within(pid: i32, hold: Duration) -> Result<Self, StopError> {
        let mut stopped = Stopped::of(pid, Instant::now(), hold)?;
        stopped.raised = Some(Raised::raise());
        stopped.reaper = Some(Reaper::start(pid));
        stopped.try_all(hold)?;
        stopped.reaper = None;
        stopped.watchdog.alive()?;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops some threads of `pid`, and those that they create meanwhile.
    ///
    /// # Errors
    /// On any error no thread stays stopped.
    pub fn some_threads(pid: i32, tids: &[i32], hold: Duration) -> Result<Self, StopError> {
        let mut stopped = Stopped::of(pid, Instant::now(), hold)?;
        stopped.raised = Some(Raised::raise());
        stopped.reaper = Some(Reaper::start(pid));
        // What that took is not what the threads take.
        stopped.begun = Instant::now();
        for &tid in tids {
            stopped.seize(tid)?;
        }
        stopped.interrupt_all();
        stopped.wait(stopped.begun + hold)?;
        stopped.reaper = None;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops all that have not stopped, in the time of `hold`.
    fn try_all(&mut self, hold: Duration) -> Result<(), StopError> {
        let tids = threads(self.pid)?;
        self.begun = Instant::now();
        self.seen_running = self.begun;
        let deadline = self.begun + hold;
        for tid in tids {
            self.seize(tid)?;
        }
        // Interrupting each only once all are seized: none waits stopped for the others to be seized.
        self.interrupt_all();
        self.wait(deadline)?;
        // Threads that a not yet seized thread created meanwhile are not traced automatically.
        for _ in 0..MAX_ROUNDS {
            let mut new = threads(self.pid)?;
            // A first thread that has ended is listed as long as the others live.
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

    /// Lets those run on that have stopped, and waits until one of those that have not has.
    fn await_late(&mut self, give_up: Instant) -> Result<(), StopError> {
        self.detach_stopped();
        let mut looks = 0;
        loop {
            self.watchdog.alive()?;
            for tid in self.stopping() {
                self.poll(tid)?;
            }
            let late = self.stopping();
            // Nobody is late any more, or one of them has come.
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

    /// Stops a single thread of `pid`. One that could go on and only lacks a CPU is waited for longer: nobody waits stopped for it.
    ///
    /// # Errors
    /// On any error the thread runs on.
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

    /// Stops a single thread of `pid`, of many that are stopped one after the other: does not give our core away while it can come
    /// to its stop on another one, so that it is not held for the time that we would wait for a core. Nor is one waited for that is
    /// late.
    ///
    /// # Errors
    /// On any error the thread runs on.
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

    /// The threads that are held.
    pub fn tids(&self) -> impl Iterator<Item = i32> {
        self.threads.keys().copied()
    }

    /// Since when: the first request to stop, of the time when all did.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// When one of them was last seen not to have stopped.
    pub fn seen_running(&self) -> Instant {
        self.seen_running
    }

    /// What is done while they are held may take so long, where that is longer than the time in which they were to stop; whoever
    /// takes far longer is [ended](longest_stop).
    pub fn allow(&self, time: Duration) -> Result<(), StopError> {
        Ok(self.watchdog.allow(longest_stop(time))?)
    }

    /// The registers of a held thread.
    pub fn registers(&self, tid: i32) -> Result<Registers, StopError> {
        self.watchdog.alive()?;
        Ok(registers::read(Pid::from_raw(tid))?)
    }

    /// Lets all threads run on and says how long they can have stood still: from when one was last seen not to have
    /// stopped. Before that they may have waited for a core, which they would have done without us.
    pub fn resume(mut self) -> Duration {
        self.release();
        self.seen_running.elapsed()
    }

    /// Lets all threads run on and says how long they were held.
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

/// How long threads wait stopped for others that have not, where nobody says how long they may.
pub const HOLD: Duration = Duration::from_millis(50);
/// How long those that are late are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// What stopping one of many may take where those that have stopped wait for it: four times what it takes on an idle machine.
const EACH: Duration = Duration::from_micros(40);
/// How long those are waited for that only lack a CPU, and how often the others are held for them.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);
const MAX_SLOW: u32 = 32;
/// So often those that have stopped are held for one that is late: in a process in which always another one is, no more.
const MAX_HOLDS: u32 = 8;
/// New threads appear at most while the last unseized ones run.
const MAX_ROUNDS: usize = 64;
