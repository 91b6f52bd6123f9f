//! Threads that were told to stop in passing, and have not stopped in time.

use std::time::Instant;

use super::Stopped;
use super::steps::{NAP, RELEASE_TIMEOUT};

/// Result of stopping a thread in passing.
#[derive(Debug)]
pub enum StopOutcome {
    /// The thread is held.
    Stopped(Stopped),
    /// The thread had not stopped in time.
    Pending(PendingStop),
}

/// A thread that was told to stop and has not stopped yet. It must be let go when it stops.
#[derive(Debug)]
pub struct PendingStop {
    tid: i32,
    stopped: Stopped,
}

impl PendingStop {
    pub(super) fn new(tid: i32, stopped: Stopped) -> Self {
        PendingStop { tid, stopped }
    }

    /// Id of the thread.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Id of the process. No other thread of the process may be seized meanwhile: a thread that
    /// executes another program waits until this one is gone, and holds a lock that seizing would
    /// wait for.
    pub fn pid(&self) -> i32 {
        self.stopped.pid
    }

    /// Lets the thread go if it has stopped meanwhile. Returns true once it is released; poll
    /// periodically.
    ///
    /// A caller that does not poll for longer than [`longest_stop`](super::longest_stop) of the
    /// hold time is ended.
    pub fn is_over(&mut self) -> bool {
        let _cannot_fail = self.stopped.watchdog.alive();
        // The thread may have created another one meanwhile, or have the id of the process since it
        // executed another program.
        for tid in self.stopped.stopping() {
            let _not_yet = self.stopped.poll(tid);
        }
        self.stopped.detach_stopped();
        self.stopped.threads.is_empty()
    }

    /// Waits for all pending threads at once and lets each go as it stops, for two seconds. The
    /// kernel lets the rest go when our process exits.
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
