//! Helper thread that waits for traced threads that end, while their tracer is blocked.
//!
//! A thread that executes another program first ends all others of its process, and waits until
//! each is gone. A traced thread is gone only when its tracer has waited for it. Meanwhile the
//! executing thread holds a lock that PTRACE_SEIZE of any thread of the process needs
//! (`cred_guard_mutex`; `de_thread` in fs/exec.c and `ptrace_attach` in kernel/ptrace.c, Linux 6.1
//! to 6.18). So a tracer that holds one thread and seizes the next could block for ever, and the
//! target with it. The kernel lets any thread of the tracing process wait for the tracee. The
//! helper thread does so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::tasks::threads;
use super::tracee;
use crate::patience::in_time;
use crate::threads as own;

/// Polling interval. A call that takes longer may be blocked on what the helper has to do.
const EVERY: Duration = Duration::from_millis(5);

/// Seconds that a call may take without a helper thread: far more than any call needs that does not
/// block for ever.
const ALONE: u32 = 5;

/// Handle of the helper thread, which runs until this is dropped. If no thread could be started,
/// our process is ended at a call that does not return, and the kernel lets all traced threads go.
#[derive(Debug)]
pub(super) struct Reaper {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// Id of the traced process.
    pid: i32,
    /// Number of calls that have begun or ended: odd while the tracer is in a call.
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

    /// Runs `seize`, a call that seizes a thread, under the watch of the helper.
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
        // The helper thread sees this soon enough. It is neither woken nor joined while threads are
        // held.
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
            // Still in the call of the previous look.
            if calls % 2 == 1 && calls == before {
                // Poll all listed threads, as they include those that a traced thread created and
                // nobody knows yet. Reading the report of an ended thread frees it; the others give
                // the same report again. The kernel frees the main thread by itself.
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
