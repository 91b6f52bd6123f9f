//! Threads that were to stop in passing, and have not in time.

use std::time::Instant;

use super::Stopped;
use super::steps::{NAP, RELEASE_TIMEOUT};

/// What became of a thread that was to stop.
#[derive(Debug)]
pub enum StopOutcome {
    /// It is held.
    Stopped(Stopped),
    /// It had not stopped in time.
    Pending(PendingStop),
}

/// A thread that has not stopped yet, though told to: somebody has to let it go when it does.
#[derive(Debug)]
pub struct PendingStop {
    tid: i32,
    stopped: Stopped,
}

impl PendingStop {
    pub(super) fn new(tid: i32, stopped: Stopped) -> Self {
        PendingStop { tid, stopped }
    }

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
    ///
    /// Whoever does not ask for longer than [`longest_stop`] of what a thread may be held is ended.
    pub fn is_over(&mut self) -> bool {
        let _cannot_fail = self.stopped.watchdog.alive();
        // It may have made another thread meanwhile, or have the id of the process since it executed another program.
        for tid in self.stopped.stopping() {
            let _not_yet = self.stopped.poll(tid);
        }
        self.stopped.detach_stopped();
        self.stopped.threads.is_empty()
    }

    /// Waits for all of them at once and lets each go as it comes: for two seconds. The kernel has to do it for the rest.
    pub fn await_all(mut all: Vec<PendingStop>) {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            all.retain_mut(|late| !late.is_over());
            if all.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                for late in &mut all {
                    late.stopped.threads.clear();
                }
                return;
            }
            std::thread::sleep(NAP);
        }
    }
}
