//! Stopping the threads of a process for a moment: the only ptrace code.
//!
//! Threads are seized and interrupted, which sends no signal and injects nothing. If we die in between, the
//! kernel detaches them and they run on.

mod reaper;
mod registers;
mod tracee;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use reaper::Reaper;
pub use registers::Registers;
use tracee::Report;

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
    /// Something else that the kernel says.
    #[error("ptrace: {0}")]
    Os(Errno),
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
    not_send: std::marker::PhantomData<*const ()>,
}

/// What became of a thread that was to stop.
#[derive(Debug)]
pub enum Passing {
    /// It is held.
    Stopped(Stopped),
    /// It had not stopped in time.
    Late(Late),
}

/// A thread that has not stopped yet, though told to: somebody has to let it go when it does.
#[derive(Debug)]
pub struct Late {
    tid: i32,
    stopped: Stopped,
}

impl Late {
    /// Which one.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Its process, of which no other thread must be seized meanwhile: one that executes another program waits for this one to
    /// be gone, holding a lock that we would wait for.
    pub fn pid(&self) -> i32 {
        self.stopped.pid
    }

    /// Lets it go if it has stopped meanwhile; whether there is nothing left to do. To be asked every now and then.
    pub fn is_over(&mut self) -> bool {
        // It may have made another thread meanwhile, or have the id of the process since it executed another program.
        for tid in self.stopped.stopping() {
            let _not_yet = self.stopped.poll(tid);
        }
        self.stopped.detach_stopped();
        self.stopped.threads.is_empty()
    }
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
    /// Those that have stopped wait no longer than `hold` for those that have not. Then they run on while one that is late is
    /// waited for (a fork in progress, the disk), for three seconds at most: once it has stopped it is kept, and the others
    /// are stopped again.
    ///
    /// # Errors
    /// On any error no thread stays stopped.
    pub fn all_threads(pid: i32, hold: Duration) -> Result<Self, StopError> {
        let mut stopped = Stopped::of(pid, Instant::now());
        let give_up = stopped.begun + PATIENCE;
        stopped.reaper = Some(Reaper::start(pid)?);
        let mut rounds = 1;
        loop {
            match stopped.try_all(hold) {
                Ok(()) => break,
                Err(StopError::Timeout(_)) if rounds < MAX_HOLDS && Instant::now() < give_up => {
                    rounds += 1;
                    stopped.await_late(give_up)?;
                }
                Err(error) => return Err(error),
            }
        }
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

    /// Stops a single thread of `pid`.
    ///
    /// # Errors
    /// On any error the thread runs on.
    pub fn one_thread(pid: i32, tid: i32, timeout: Duration) -> Result<Self, StopError> {
        let begun = Instant::now();
        let mut stopped = Stopped::of(pid, begun);
        stopped.seize(tid)?;
        if stopped.threads.is_empty() {
            return Err(StopError::Exited);
        }
        stopped.interrupt(tid);
        stopped.wait(begun + timeout)?;
        if stopped.threads.is_empty() { Err(StopError::Exited) } else { Ok(stopped) }
    }

    /// Stops a single thread of `pid`, of many that are stopped one after the other: does not give our core away while it can come
    /// to its stop on another one, so that it is not held for the time that we would wait for a core. Nor is one waited for that is
    /// late.
    ///
    /// # Errors
    /// On any error the thread runs on.
    pub fn one_in_passing(pid: i32, tid: i32, timeout: Duration) -> Result<Passing, StopError> {
        let begun = Instant::now();
        let mut stopped = Stopped::of(pid, begun);
        stopped.seize(tid)?;
        stopped.interrupt(tid);
        let waited = stopped.wait_with(begun + timeout, |idle_rounds| {
            if idle_rounds < SPINS { std::hint::spin_loop() } else { std::thread::sleep(NAP) }
        });
        match waited {
            Ok(()) if stopped.threads.is_empty() => Err(StopError::Exited),
            Ok(()) => Ok(Passing::Stopped(stopped)),
            Err(StopError::Timeout(_)) => Ok(Passing::Late(Late { tid, stopped })),
            Err(error) => Err(error),
        }
    }

    fn of(pid: i32, begun: Instant) -> Self {
        Stopped {
            pid,
            threads: BTreeMap::new(),
            begun,
            seen_running: begun,
            reaper: None,
            not_send: std::marker::PhantomData,
        }
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

    /// The registers of a held thread.
    pub fn registers(&self, tid: i32) -> Result<Registers, StopError> {
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

    fn seize(&mut self, tid: i32) -> Result<(), StopError> {
        if self.threads.contains_key(&tid) {
            return Ok(());
        }
        let seize = || ptrace::seize(Pid::from_raw(tid), ptrace::Options::PTRACE_O_TRACECLONE);
        let seized = match &self.reaper {
            Some(reaper) => reaper.during(seize),
            None => seize(),
        };
        match seized {
            Ok(()) => {
                self.threads.insert(tid, ThreadState::Stopping);
                Ok(())
            }
            // A thread may end at any time; a zombie thread cannot be seized.
            Err(Errno::ESRCH) => Ok(()),
            // One that is ours already: it was made by a thread that was, or has the id of the process since it executed another
            // program. Only the tracer can interrupt it, and has to reap it if it has ended.
            Err(Errno::EPERM) if ptrace::interrupt(Pid::from_raw(tid)).is_ok() => {
                self.threads.insert(tid, ThreadState::Stopping);
                Ok(())
            }
            Err(Errno::EPERM) if is_dead(tid) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells all to stop that have not stopped.
    fn interrupt_all(&mut self) {
        for tid in self.stopping() {
            self.interrupt(tid);
        }
    }

    /// Those that have not stopped.
    fn stopping(&self) -> Vec<i32> {
        let stopping = self.threads.iter().filter(|(_, state)| **state == ThreadState::Stopping);
        stopping.map(|(tid, _)| *tid).collect()
    }

    fn interrupt(&mut self, tid: i32) {
        // A thread that has gone shows up as such in the wait.
        let _gone = ptrace::interrupt(Pid::from_raw(tid));
    }

    /// Waits until every held thread has stopped.
    fn wait(&mut self, deadline: Instant) -> Result<(), StopError> {
        // The threads need a core to get to their stop.
        self.wait_with(deadline, give_way)
    }

    fn wait_with(&mut self, deadline: Instant, idle: impl Fn(u32)) -> Result<(), StopError> {
        let mut idle_rounds = 0u32;
        loop {
            let now = Instant::now();
            let waiting = self.stopping();
            let Some(first) = waiting.first().copied() else { return Ok(()) };
            let mut progress = false;
            for tid in waiting {
                progress |= self.poll(tid)?;
            }
            if progress {
                idle_rounds = 0;
                continue;
            }
            // One that executes another program ends those that have stopped, and comes to its own stop only when they
            // are gone.
            if idle_rounds >= SPINS {
                self.poll_stopped()?;
            }
            self.seen_running = now;
            if now >= deadline {
                return Err(StopError::Timeout(first));
            }
            idle_rounds += 1;
            idle(idle_rounds);
        }
    }

    /// Looks whether `tid` has stopped, or ended; true where something happened.
    fn poll(&mut self, tid: i32) -> Result<bool, StopError> {
        let stopped = matches!(self.threads.get(&tid), Some(ThreadState::Stopped { .. }));
        match tracee::report(tid) {
            // Only its end makes a held thread run: it was killed, and is not gone yet.
            Ok(Report::Running) if stopped => {
                self.threads.insert(tid, ThreadState::Stopping);
                Ok(true)
            }
            Ok(Report::Running) => Ok(false),
            // As is known.
            Ok(Report::Cloned | Report::Stopped { .. }) if stopped => Ok(false),
            Ok(Report::Cloned) => {
                if let Ok(new) = ptrace::getevent(Pid::from_raw(tid))
                    && let Ok(new) = i32::try_from(new)
                {
                    // Traced from its birth, and it stops by itself.
                    self.threads.entry(new).or_insert(ThreadState::Stopping);
                }
                self.threads.insert(tid, ThreadState::Stopped { signal: None });
                Ok(true)
            }
            // A signal on its way to the thread: stopped all the same, and it goes on with it.
            Ok(Report::Stopped { signal }) => {
                self.threads.insert(tid, ThreadState::Stopped { signal });
                Ok(true)
            }
            Ok(Report::Ended) => {
                self.threads.remove(&tid);
                Ok(true)
            }
            Err(Errno::ECHILD) => {
                self.threads.remove(&tid);
                // If it executed another program, it is traced as before, by the id of the process.
                if tid != self.pid && ptrace::interrupt(Pid::from_raw(self.pid)).is_ok() {
                    // Whatever was known of that id was of another thread, which is gone.
                    self.threads.insert(self.pid, ThreadState::Stopping);
                }
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Looks whether those that have stopped were ended meanwhile.
    fn poll_stopped(&mut self) -> Result<(), StopError> {
        let held = self.threads.iter().filter(|(_, state)| matches!(state, ThreadState::Stopped { .. }));
        let held: Vec<i32> = held.map(|(tid, _)| *tid).collect();
        for tid in held {
            self.poll(tid)?;
        }
        Ok(())
    }

    fn release(&mut self) {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        let mut looks = 0;
        while self.release_stopped() {
            if Instant::now() >= deadline {
                // They stay seized, which the kernel undoes when we exit; they are not held before they stop.
                self.threads.clear();
                return;
            }
            give_way(looks);
            looks += 1;
            for tid in self.stopping() {
                if self.poll(tid).is_err() {
                    self.threads.remove(&tid);
                }
            }
        }
    }

    /// Lets those run on that have stopped; true where others are left, which are told to stop.
    fn release_stopped(&mut self) -> bool {
        self.detach_stopped();
        self.interrupt_all();
        !self.threads.is_empty()
    }

    fn detach_stopped(&mut self) {
        self.threads.retain(|&tid, state| {
            if let ThreadState::Stopped { signal } = *state
                && tracee::detach(tid, signal).is_ok()
            {
                return false;
            }
            // It was not told to stop yet, as seizing the next one failed; or it was killed while it was held, and is not
            // gone before its tracer has waited for it; or the only one left has its id since it executed another program.
            *state = ThreadState::Stopping;
            true
        });
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
/// So often those that have stopped are held for one that is late: in a process in which always another one is, no more.
const MAX_HOLDS: u32 = 8;
/// New threads appear at most while the last unseized ones run.
const MAX_ROUNDS: usize = 64;
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Looks in quick succession, until naps are taken between them.
const SPINS: u32 = 64;
const NAP: Duration = Duration::from_micros(50);

/// Gives our core away, first briefly, after so many looks in vain.
fn give_way(looks: u32) {
    if looks < SPINS { std::thread::yield_now() } else { std::thread::sleep(NAP) }
}

/// The thread ids of a process, as seen in our pid namespace.
pub fn threads(pid: i32) -> Result<Vec<i32>, StopError> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| match e.raw_os_error() {
        Some(code) if code != libc::ENOENT => StopError::from(Errno::from_raw(code)),
        _ => StopError::Exited,
    })?;
    let mut tids: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    Ok(tids)
}

/// Whether another process traces one of the threads of `pid`.
pub fn is_traced(pid: i32) -> bool {
    threads(pid).unwrap_or_default().iter().any(|tid| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
        field(&status, "TracerPid:").is_some_and(|tracer| tracer != "0")
    })
}

/// The threads of a process in another pid namespace: their ids there, and in ours. `None` where both are the same.
pub fn namespaced_threads(pid: i32) -> Option<HashMap<u64, i32>> {
    let innermost = |path: String| -> Option<(usize, u64)> {
        let status = fs::read_to_string(path).ok()?;
        let ids: Vec<&str> = field(&status, "NSpid:")?.split_ascii_whitespace().collect();
        Some((ids.len(), ids.last()?.parse().ok()?))
    };
    let (levels, _) = innermost(format!("/proc/{pid}/status"))?;
    if levels < 2 {
        return None;
    }
    let tids = threads(pid).ok()?;
    Some(
        tids.into_iter()
            .filter_map(|tid| Some((innermost(format!("/proc/{pid}/task/{tid}/status"))?.1, tid)))
            .collect(),
    )
}

/// What a thread waits for in the kernel, for messages.
pub fn wait_channel(tid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{tid}/wchan")).unwrap_or_default();
    if name.is_empty() || name == "0" { "in the kernel".to_owned() } else { format!("it waits in {name}") }
}

/// The value of a field of a status file.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a thread is a zombie or gone.
fn is_dead(tid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{tid}/stat")) else { return true };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}
