//! Registry of calls that may block on others: memory of a process that is served page by page
//! (userfaultfd), files of servers that do not answer (FUSE, NFS). The kernel wakes a thread
//! blocked in such a call only at the end of its process. So each such call is noted here, for the
//! thread that watches over the time limit.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::alarm;
use rustix::time::{ClockId, clock_gettime};
use symbols::addr::RuntimeAddr;

/// Object of a blocking call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Memory of a process: process id and address.
    Memory(i32, RuntimeAddr),
    /// Data about a process in /proc: process id and the action, for messages.
    Proc(i32, &'static str),
    /// Contents of a program or library file.
    Program,
    /// File whose path another process chose.
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

/// Blocking call of a thread, and its start time.
#[derive(Debug, Default)]
struct State {
    call: Option<(What, i64)>,
    /// True if nobody waits for this thread any more.
    left_behind: bool,
}

/// Handle of a thread that may block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiter(Arc<Mutex<State>>);

static THREADS: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());
/// Total nanoseconds of all blocking calls that are over.
static TOTAL: AtomicI64 = AtomicI64::new(0);
/// Limit in nanoseconds for all blocking calls if no thread of ours watches over them; 0 if one
/// does.
static ALONE: AtomicI64 = AtomicI64::new(0);
/// Number of blocked threads if no thread of ours watches over them.
static WAITERS: Mutex<usize> = Mutex::new(0);

thread_local! {
    static OURS: RefCell<Option<Waiter>> = const { RefCell::new(None) };
}

/// Reads CLOCK_MONOTONIC_COARSE, in nanoseconds. It is cheap, and exact to some milliseconds. Most
/// calls take far less.
fn now() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.saturating_mul(SECOND).saturating_add(now.tv_nsec)
}

const SECOND: i64 = 1_000_000_000;

fn time(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

impl Waiter {
    /// Handle of the calling thread.
    pub(crate) fn ours() -> Self {
        let ours = OURS.try_with(|ours| {
            let mut ours = ours.try_borrow_mut().ok()?;
            Some(ours.get_or_insert_with(Waiter::register).clone())
        });
        // A thread that is about to end waits for nothing.
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

    /// Duration of the call that blocks this thread now.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.state().call.map(|(_, since)| time(now().saturating_sub(since)))
    }

    /// Notes that we go on without this thread: its blocking call no longer counts.
    pub(crate) fn leave_behind(&self) {
        self.state().left_behind = true;
    }
}

/// Runs `call`, which may block on `what`.
pub(crate) fn waiting<T>(what: What, call: impl FnOnce() -> T) -> T {
    let waiter = Waiter::ours();
    let begun = now();
    {
        let mut state = waiter.state();
        if state.call.is_some() {
            // Part of a call that is already noted.
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

/// Sets the limit for the case that no thread of ours watches. The kernel ends us when all blocking
/// calls together have taken `limit`.
pub(crate) fn watch_alone(limit: Duration) {
    let limit = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX).max(1);
    ALONE.store(limit, Ordering::Relaxed);
}

/// Number of whole seconds left, at least one.
fn seconds_left(limit: i64) -> u32 {
    let left = limit.saturating_sub(TOTAL.load(Ordering::Relaxed));
    let seconds = left.max(1).saturating_add(SECOND - 1) / SECOND;
    // A larger value than `u32` holds has no end that a clock of ours would see.
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Counts one more blocked thread. The first one starts the alarm.
fn begin_alone(limit: i64) {
    let mut waiters = WAITERS.lock().unwrap_or_else(PoisonError::into_inner);
    *waiters += 1;
    // Threads that block at the same time share one alarm: a process has only one.
    if *waiters == 1 {
        end_by_alarm();
        alarm::set(seconds_left(limit));
    }
}

/// Counts one blocked thread less. The last one cancels the alarm.
fn end_alone() {
    let mut waiters = WAITERS.lock().unwrap_or_else(PoisonError::into_inner);
    *waiters = waiters.saturating_sub(1);
    if *waiters == 0 {
        alarm::cancel();
    }
}

/// Makes SIGALRM end our process. Our parent may have left it ignored or blocked.
fn end_by_alarm() {
    // SAFETY: the default action runs no code of ours.
    let _there_is_one = unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) };
    let _can_be_changed = SigSet::from(Signal::SIGALRM).thread_unblock();
}

/// Runs `call`; the kernel ends our process if it takes longer than `seconds`. This needs neither a
/// thread nor memory of ours. The default action of SIGALRM ends a process, so it also wakes
/// threads that no other signal reaches.
pub(crate) fn in_time<T>(seconds: u32, call: impl FnOnce() -> T) -> T {
    end_by_alarm();
    let before = alarm::set(seconds);
    let result = call();
    // An outer call may have set the alarm for a longer time.
    match before {
        Some(left) => _ = alarm::set(left),
        None => _ = alarm::cancel(),
    }
    result
}

/// Total time of blocking calls so far. If threads are blocked now, also the object and duration of
/// the longest such call.
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

    /// Body of the test below, run in a process of its own. An environment variable names the case;
    /// without it nothing is done.
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
