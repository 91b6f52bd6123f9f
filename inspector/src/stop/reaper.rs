//! Waits for traced threads that end, while their tracer cannot.
//!
//! A thread that executes another program first ends all others of its process, and waits until each is gone: one that is
//! traced is gone only when its tracer has waited for it. Meanwhile it holds a lock that PTRACE_SEIZE of any thread of
//! the process needs (`cred_guard_mutex`; `de_thread` in fs/exec.c and `ptrace_attach` in kernel/ptrace.c, Linux 6.1 to
//! 6.18). So whoever traces one thread and seizes the next could wait for ever, and the target with it. The kernel lets
//! any thread of the tracing process wait for the tracee, and that is what is done here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::tracee::{self, Report};

/// A call that takes longer may be one that waits for what we have to do.
const EVERY: Duration = Duration::from_millis(5);

/// Looks after the tracer, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many calls have begun or ended: odd while the tracer is in one.
    calls: AtomicU64,
    ended: AtomicBool,
    traced: Mutex<Vec<i32>>,
}

impl Reaper {
    /// # Errors
    /// Where the kernel denies us another thread.
    pub(super) fn start() -> Result<Self, Errno> {
        let shared = Arc::new(Shared::default());
        let looked_after = Arc::clone(&shared);
        let started = thread::Builder::new().name("reaper".to_owned()).spawn(move || looked_after.reap());
        match started {
            Ok(_) => Ok(Reaper { shared }),
            Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN))),
        }
    }

    /// Makes a call that seizes a thread.
    pub(super) fn during<T>(&self, tid: i32, seize: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let result = seize();
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() {
            self.shared.traced.lock().unwrap_or_else(PoisonError::into_inner).push(tid);
        }
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
                let mut traced = self.traced.lock().unwrap_or_else(PoisonError::into_inner);
                // The kernel need keep nothing of those that have ended, once that was read.
                traced.retain(|&tid| !matches!(tracee::report(tid), Ok(Report::Ended) | Err(Errno::ECHILD)));
            }
            before = calls;
        }
    }
}
