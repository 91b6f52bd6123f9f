//! What this program waits for that others have to give: memory of a process that somebody serves page by page (userfaultfd), files of
//! servers that do not answer (FUSE, NFS). The kernel wakes a thread that waits so for nothing but the end of its process, so
//! each such call is noted here, for whoever watches over the time that is left.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::alarm;
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
    /// A file whose path somebody else chose.
    Named,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Memory(pid, at) => write!(f, "to read the memory of process {pid} at {at}"),
            What::Proc(pid, action) => write!(f, "to {action} of process {pid}"),
            What::Program => f.write_str("to read the file of a program"),
            What::Named => f.write_str("for a file that a process names"),
        }
    }
}

/// What a thread waits for, and since when.
#[derive(Debug, Default)]
struct State {
    call: Option<(What, i64)>,
    /// Nobody waits for this thread any more.
    left_behind: bool,
}

/// A thread that may wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiter(Arc<Mutex<State>>);

static THREADS: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());
/// Nanoseconds that all have waited so far, of calls that are over.
static TOTAL: AtomicI64 = AtomicI64::new(0);
/// Nanoseconds that all may wait where no thread of ours watches over it; none where one does.
static ALONE: AtomicI64 = AtomicI64::new(0);
/// How many threads wait, where no thread of ours watches over it.
static WAITERS: Mutex<usize> = Mutex::new(0);

thread_local! {
    static OURS: RefCell<Option<Waiter>> = const { RefCell::new(None) };
}

/// A clock that costs next to nothing, and is exact to some milliseconds, which is far more than most calls take.
fn now() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.saturating_mul(SECOND).saturating_add(now.tv_nsec)
}

const SECOND: i64 = 1_000_000_000;

fn time(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

impl Waiter {
    /// The thread that asks.
    pub(crate) fn ours() -> Self {
        let ours = OURS.try_with(|ours| {
            let mut ours = ours.try_borrow_mut().ok()?;
            Some(ours.get_or_insert_with(Waiter::register).clone())
        });
        // A thread that is about to end waits for nothing any more.
        ours.ok().flatten().unwrap_or_default()
    }

    fn register() -> Self {
        let waiter = Waiter::default();
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(&waiter.0));
        waiter
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the call takes already in which it is.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.state().call.map(|(_, since)| time(now().saturating_sub(since)))
    }

    /// We go on without it: what it waits for counts no longer.
    pub(crate) fn leave_behind(&self) {
        self.state().left_behind = true;
    }
}

/// Makes a call that may wait.
pub(crate) fn waiting<T>(what: What, call: impl FnOnce() -> T) -> T {
    let waiter = Waiter::ours();
    let begun = now();
    {
        let mut state = waiter.state();
        if state.call.is_some() {
            // Part of a call that is noted.
            drop(state);
            return call();
        }
        state.call = Some((what, begun));
    }
    let result = match ALONE.load(Ordering::Relaxed) {
        0 => call(),
        limit => {
            begin_alone(limit);
            let result = call();
            end_alone();
            result
        }
    };
    let mut state = waiter.state();
    state.call = None;
    if !state.left_behind {
        TOTAL.fetch_add(now().saturating_sub(begun), Ordering::Relaxed);
    }
    result
}

/// No thread of ours watches: from now on the kernel ends us when all calls together have taken so long.
pub(crate) fn watch_alone(limit: Duration) {
    let limit = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX).max(1);
    ALONE.store(limit, Ordering::Relaxed);
}

/// Whole seconds that are left, at least one.
fn seconds_left(limit: i64) -> u32 {
    let left = limit.saturating_sub(TOTAL.load(Ordering::Relaxed));
    let seconds = left.max(1).saturating_add(SECOND - 1) / SECOND;
    // What is above it no clock of ours sees the end of.
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// One more thread waits.
fn begin_alone(limit: i64) {
    let mut waiters = WAITERS.lock().unwrap_or_else(PoisonError::into_inner);
    *waiters += 1;
    // Those that wait at the same time share one clock: the process has only one.
    if *waiters == 1 {
        end_by_alarm();
        alarm::set(seconds_left(limit));
    }
}

/// One that waited does so no more.
fn end_alone() {
    let mut waiters = WAITERS.lock().unwrap_or_else(PoisonError::into_inner);
    *waiters = waiters.saturating_sub(1);
    if *waiters == 0 {
        alarm::cancel();
    }
}

/// Lets SIGALRM end us: whoever started us may have it ignored, or blocked.
fn end_by_alarm() {
    // SAFETY: the default action runs no code of ours.
    let _there_is_one = unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) };
    let _can_be_changed = SigSet::from(Signal::SIGALRM).thread_unblock();
}

/// Makes a call in which the kernel ends us if it takes longer, which needs neither a thread nor memory of ours: SIGALRM, as a
/// signal whose default action is to end a process, also wakes threads that wait so that no other reaches them.
pub(crate) fn in_time<T>(seconds: u32, call: impl FnOnce() -> T) -> T {
    end_by_alarm();
    let before = alarm::set(seconds);
    let result = call();
    // Somebody may have set one for more than this call.
    match before {
        Some(left) => _ = alarm::set(left),
        None => _ = alarm::cancel(),
    }
    result
}

/// How long this program has waited so far, and, where it does now, what for and how long already: the longest such call.
pub(crate) fn so_far() -> (Duration, Option<(What, Duration)>) {
    let now = now();
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = threads.iter().filter_map(|thread| {
        let thread = Waiter(thread.upgrade()?);
        let state = thread.state();
        let (what, since) = state.call.filter(|_| !state.left_behind)?;
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
            // Part of it.
            waiting(What::Program, || {});
            assert!(Waiter::ours().waits().is_some_and(|waited| waited >= Duration::from_millis(40)));
            // Other tests wait too, but none for this.
            let threads: Vec<_> = THREADS.lock().unwrap().iter().filter_map(Weak::upgrade).collect();
            threads.iter().any(|state| state.lock().unwrap().call.is_some_and(|(seen, _)| seen == what))
        });
        assert!(seen);
        assert_eq!(Waiter::ours().waits(), None);
        let (total, _) = so_far();
        assert!(total >= Duration::from_millis(40), "{total:?}");
        assert_eq!(what.to_string(), "to read the environment of process 7");
    }

    #[test]
    fn who_is_left_behind_counts_no_longer() {
        let what = What::Proc(i32::MAX, "do nothing");
        let longest = || so_far().1.is_some_and(|(seen, _)| seen == what);
        waiting(what, || {
            // None of the other tests waits so long.
            while !longest() {
                std::thread::sleep(Duration::from_millis(10));
            }
            Waiter::ours().leave_behind();
            assert!(!longest());
            OURS.with(|ours| ours.take());
        });
    }

    #[test]
    fn seconds() {
        assert_eq!(seconds_left(1), 1);
        assert_eq!(seconds_left(i64::MAX), u32::MAX);
    }

    /// What the test below runs in a process of its own: named by a variable, else it does nothing.
    #[test]
    fn alone() {
        let Ok(what) = std::env::var("ALONE") else { return };
        watch_alone(Duration::from_secs(1));
        let nap = if what == "waits" { 20 } else { 0 };
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { signal(Signal::SIGALRM, SigHandler::SigIgn) }.unwrap();
        SigSet::from(Signal::SIGALRM).thread_block().unwrap();
        waiting(What::Program, || std::thread::sleep(Duration::from_secs(nap)));
        std::thread::sleep(Duration::from_millis(1200));
    }

    #[test]
    fn without_a_watching_thread_the_kernel_ends_us() {
        use std::os::unix::process::ExitStatusExt as _;
        let end_of = |what| {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "patience::tests::alone"]).env("ALONE", what);
            command.stdout(std::process::Stdio::null()).status().unwrap()
        };
        assert_eq!(end_of("waits").signal(), Some(libc::SIGALRM));
        assert!(end_of("goes on").success());
    }
}
