//! What this program waits for that others have to give: memory of a process that somebody serves page by page (userfaultfd), files of
//! servers that do not answer (FUSE, NFS). The kernel wakes a thread that waits so for nothing but the end of its process, so
//! each such call is noted here, for whoever watches over the time that is left.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use symbols::addr::RuntimeAddr;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Memory of a process.
    Memory(i32, RuntimeAddr),
    /// Something that /proc says of a process: what is being done.
    Proc(i32, &'static str),
    /// The contents of a program or library.
    Program,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Memory(pid, at) => write!(f, "to read the memory of process {pid} at {at}"),
            What::Proc(pid, action) => write!(f, "to {action} of process {pid}"),
            What::Program => f.write_str("to read the file of a program"),
        }
    }
}

/// What a thread waits for, and since when.
type Slot = Mutex<Option<(What, i64)>>;

static THREADS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());
/// Nanoseconds that all have waited so far, of calls that are over.
static TOTAL: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static OURS: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

/// A clock that costs next to nothing, and is exact to some milliseconds, which is far more than most calls take.
fn now() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Makes a call that may wait.
pub(crate) fn waiting<T>(what: What, call: impl FnOnce() -> T) -> T {
    let slot = OURS.try_with(|ours| {
        let mut ours = ours.try_borrow_mut().ok()?;
        Some(Arc::clone(ours.get_or_insert_with(register)))
    });
    let Ok(Some(slot)) = slot else { return call() };
    let begun = now();
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((what, begun));
    let result = call();
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    TOTAL.fetch_add(now().saturating_sub(begun), Ordering::Relaxed);
    result
}

fn register() -> Arc<Slot> {
    let slot = Arc::new(Slot::default());
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.retain(|thread| thread.strong_count() > 0);
    threads.push(Arc::downgrade(&slot));
    slot
}

/// How long this program has waited so far, and, where it does now, what for and how long already: the longest such call.
pub(crate) fn so_far() -> (Duration, Option<(What, Duration)>) {
    let time = |nanoseconds: i64| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let now = now();
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = threads.iter().filter_map(|thread| {
        let (what, since) = (*thread.upgrade()?.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some((what, time(now.saturating_sub(since))))
    });
    (time(TOTAL.load(Ordering::Relaxed)), waits.max_by_key(|(_, waited)| *waited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_known_to_others() {
        let what = What::Proc(7, "read the environment");
        let seen = waiting(what, || {
            std::thread::sleep(Duration::from_millis(60));
            // Other tests wait too, but none for this.
            THREADS
                .lock()
                .unwrap()
                .iter()
                .filter_map(Weak::upgrade)
                .any(|slot| slot.try_lock().is_ok_and(|slot| slot.is_some_and(|(seen, _)| seen == what)))
        });
        assert!(seen);
        let (total, _) = so_far();
        assert!(total >= Duration::from_millis(40), "{total:?}");
        assert_eq!(what.to_string(), "to read the environment of process 7");
    }
}
