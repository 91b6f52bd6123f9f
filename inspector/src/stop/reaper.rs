//! Waits for traced threads that end, while their tracer cannot.
//!
//! A thread that executes another program first ends all others of its process, and waits until each is gone: one that is
//! traced is gone only when its tracer has waited for it. Meanwhile it holds a lock that PTRACE_SEIZE of any thread of
//! the process needs (`cred_guard_mutex`; `de_thread` in fs/exec.c and `ptrace_attach` in kernel/ptrace.c, Linux 6.1 to
//! 6.18). So whoever traces one thread and seizes the next could wait for ever, and the target with it. The kernel lets
//! any thread of the tracing process wait for the tracee, and that is what is done here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::tasks::threads;
use super::tracee;
use crate::patience::in_time;
use crate::threads as own;

/// A call that takes longer may be one that waits for what we have to do.
const EVERY: Duration = Duration::from_millis(5);

/// Where there is no thread for it, a call may take so many seconds: far more than any needs that does not wait for ever.
const ALONE: u32 = 5;

/// Looks after the tracer, on a thread of its own, until it is dropped. Where there is none to be had, we end at a call that does
/// not: the kernel lets go all that we trace then.
#[derive(Debug)]
pub(super) struct Reaper {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// The process that is traced.
    pid: i32,
    /// How many calls have begun or ended: odd while the tracer is in one.
    calls: AtomicU64,
    ended: AtomicBool,
}

impl Reaper {
    pub(super) fn start(pid: i32) -> Self {
        let shared = Arc::new(Shared { pid, calls: AtomicU64::new(0), ended: AtomicBool::new(false) });
        let looked_after = Arc::clone(&shared);
        match own::start("reaper", move || looked_after.reap()) {
            Ok(_) => Reaper { shared: Some(shared) },
            Err(_) => Reaper { shared: None },
        }
    }

    /// Makes a call that seizes a thread.
    pub(super) fn during<T>(&self, seize: impl FnOnce() -> T) -> T {
        let Some(shared) = &self.shared else { return in_time(ALONE, seize) };
        shared.calls.fetch_add(1, Ordering::Relaxed);
        let result = seize();
        shared.calls.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // It sees that soon enough: nobody has to wake it, or wait for it, while threads are held.
        if let Some(shared) = &self.shared {
            shared.ended.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn reap(&self) {
        let mut before = 0;
        while !self.ended.load(Ordering::Relaxed) {
            sleep(EVERY);
            let calls = self.calls.load(Ordering::Relaxed);
            // In the same call as the last time.
            if calls % 2 == 1 && calls == before {
                // All that are listed: those are among them that were made by a traced thread, of which nobody knows yet. The kernel
                // keeps nothing of one that has ended once that was read, and the others say what they said before. The first
                // thread it lets go by itself.
                for tid in threads(self.pid).unwrap_or_default() {
                    if tid != self.pid {
                        let _report = tracee::report(tid);
                    }
                }
            }
            before = calls;
        }
    }
}
