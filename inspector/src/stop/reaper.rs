//! Waits for traced threads that end, while their tracer cannot.
//!
//! A thread that executes another program first ends all others of its process, and waits until each is gone: one that is
//! traced is gone only when its tracer has waited for it. Meanwhile it holds a lock that PTRACE_SEIZE of any thread of
//! the process needs (`cred_guard_mutex`; `de_thread` in fs/exec.c and `ptrace_attach` in kernel/ptrace.c, Linux 6.1 to
//! 6.18). So whoever traces one thread and seizes the next could wait for ever, and the target with it. The kernel lets
//! any thread of the tracing process wait for the tracee, and that is what is done here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::tasks::threads;
use super::tracee;

/// A call that takes longer may be one that waits for what we have to do.
const EVERY: Duration = Duration::from_millis(5);

/// Looks after the tracer, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Reaper {
    shared: Arc<Shared>,
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
    /// # Errors
    /// Where the kernel denies us another thread.
    pub(super) fn start(pid: i32) -> Result<Self, Errno> {
        let shared = Arc::new(Shared { pid, calls: AtomicU64::new(0), ended: AtomicBool::new(false) });
        let looked_after = Arc::clone(&shared);
        let started = thread::Builder::new().name("reaper".to_owned()).spawn(move || looked_after.reap());
        match started {
            Ok(_) => Ok(Reaper { shared }),
            Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN))),
        }
    }

    /// Makes a call that seizes a thread.
    pub(super) fn during<T>(&self, seize: impl FnOnce() -> T) -> T {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let result = seize();
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // It sees that soon enough: nobody has to wake it, or wait for it, while threads are held.
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn reap(&self) {
        let mut before = 0;
        while !self.ended.load(Ordering::Relaxed) {
            thread::sleep(EVERY);
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
