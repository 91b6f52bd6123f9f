//! Steps of a stop: seize, interrupt, wait, release.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::tasks::is_dead;
use super::tracee::{self, Report};
use super::{StopError, Stopped, ThreadState};

/// Maximum time that a release waits for threads to stop. The rest are left to the kernel.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of looks in quick succession, before naps are taken between them.
pub(super) const SPINS: u32 = 64;
pub(super) const NAP: Duration = Duration::from_micros(50);
/// Maximum number of threads in a row that are found not stopped in one pass.
const LOOKS: u32 = 8;

/// Gives our core away: yields for the first looks in vain, sleeps after [`SPINS`] of them.
pub(super) fn give_way(looks: u32) {
    if looks < SPINS { std::thread::yield_now() } else { std::thread::sleep(NAP) }
}

impl Stopped {
    pub(super) fn seize(&mut self, tid: i32) -> Result<(), StopError> {
        if self.threads.contains_key(&tid) {
            return Ok(());
        }
        self.watchdog.alive()?;
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
            // The thread is ours already: a traced thread created it, or it has the id of the
            // process since it executed another program. Only the tracer can interrupt it, and has
            // to reap it if it has ended.
            Err(Errno::EPERM) if ptrace::interrupt(Pid::from_raw(tid)).is_ok() => {
                self.threads.insert(tid, ThreadState::Stopping);
                Ok(())
            }
            Err(Errno::EPERM) if is_dead(tid) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Interrupts all threads that have not stopped.
    pub(super) fn interrupt_all(&mut self) {
        for tid in self.stopping() {
            self.interrupt(tid);
        }
    }

    /// Ids of the threads that have not stopped.
    pub(super) fn stopping(&self) -> Vec<i32> {
        let stopping = self.threads.iter().filter(|(_, state)| **state == ThreadState::Stopping);
        stopping.map(|(tid, _)| *tid).collect()
    }

    pub(super) fn interrupt(&mut self, tid: i32) {
        // A thread that is gone is noticed in the wait.
        let _gone = ptrace::interrupt(Pid::from_raw(tid));
    }

    /// Waits until every held thread has stopped.
    pub(super) fn wait(&mut self, deadline: Instant) -> Result<(), StopError> {
        // The threads need a core to get to their stop.
        self.wait_with(deadline, give_way)
    }

    pub(super) fn wait_with(&mut self, deadline: Instant, idle: impl Fn(u32)) -> Result<(), StopError> {
        let mut idle_rounds = 0u32;
        loop {
            let now = Instant::now();
            self.watchdog.alive()?;
            let waiting = self.stopping();
            if waiting.is_empty() {
                return Ok(());
            }
            let (mut progress, mut vain) = (false, 0);
            for tid in waiting {
                if self.poll(tid)? {
                    (progress, vain) = (true, 0);
                } else {
                    vain += 1;
                }
                // Threads stop about in the order in which they were told to. Looking at all of
                // them would take their CPU.
                if vain >= LOOKS {
                    break;
                }
            }
            if progress {
                idle_rounds = 0;
                continue;
            }
            // A thread that executes another program ends the stopped ones, and stops itself only
            // when they are gone.
            if idle_rounds >= SPINS {
                self.poll_stopped()?;
            }
            self.seen_running = now;
            if now >= deadline {
                // Late threads are known only now.
                for tid in self.stopping() {
                    self.poll(tid)?;
                }
                let Some(&late) = self.stopping().first() else { return Ok(()) };
                return Err(StopError::Timeout(late));
            }
            idle_rounds += 1;
            idle(idle_rounds);
        }
    }

    /// Looks if `tid` has stopped or ended. Returns true if its state changed.
    pub(super) fn poll(&mut self, tid: i32) -> Result<bool, StopError> {
        let stopped = matches!(self.threads.get(&tid), Some(ThreadState::Stopped { .. }));
        match tracee::report(tid) {
            // A held thread runs only when it ends: it was killed, and is not gone yet.
            Ok(Report::Running) if stopped => {
                self.threads.insert(tid, ThreadState::Stopping);
                Ok(true)
            }
            Ok(Report::Running) => Ok(false),
            // No change.
            Ok(Report::Cloned | Report::Stopped { .. }) if stopped => Ok(false),
            Ok(Report::Cloned) => {
                if let Ok(new) = ptrace::getevent(Pid::from_raw(tid))
                    && let Ok(new) = i32::try_from(new)
                {
                    // The new thread is traced from its birth and stops by itself.
                    self.threads.entry(new).or_insert(ThreadState::Stopping);
                }
                self.threads.insert(tid, ThreadState::Stopped { signal: None });
                Ok(true)
            }
            // A signal on its way to the thread also means stopped; the thread goes on with the
            // signal.
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
                // A thread that executed another program is traced as before, by the id of the
                // process.
                if tid != self.pid && ptrace::interrupt(Pid::from_raw(self.pid)).is_ok() {
                    // The known state of that id belonged to another thread, which is gone.
                    self.threads.insert(self.pid, ThreadState::Stopping);
                }
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Looks if stopped threads were ended meanwhile.
    pub(super) fn poll_stopped(&mut self) -> Result<(), StopError> {
        let held = self.threads.iter().filter(|(_, state)| matches!(state, ThreadState::Stopped { .. }));
        let held: Vec<i32> = held.map(|(tid, _)| *tid).collect();
        for tid in held {
            self.poll(tid)?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self) {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        let mut looks = 0;
        while self.release_stopped() {
            if Instant::now() >= deadline {
                // The rest stay seized, which the kernel undoes when we exit; they are not held
                // before they stop.
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

    /// Lets stopped threads run on. Returns true if others are left; these are told to stop.
    pub(super) fn release_stopped(&mut self) -> bool {
        self.detach_stopped();
        self.interrupt_all();
        !self.threads.is_empty()
    }

    pub(super) fn detach_stopped(&mut self) {
        let watchdog = &self.watchdog;
        self.threads.retain(|&tid, state| {
            let _cannot_fail = watchdog.alive();
            if let ThreadState::Stopped { signal } = *state
                && tracee::detach(tid, signal).is_ok()
            {
                return false;
            }
            // The thread was not told to stop yet, as seizing the next one failed. Or it was killed
            // while it was held, and is not gone before its tracer has waited for it. Or the only
            // thread left has its id since it executed another program.
            *state = ThreadState::Stopping;
            true
        });
    }
}
