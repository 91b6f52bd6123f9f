//! Work on many items with a few threads, leaving out items that block for ever: memory that nobody
//! serves, files of servers that do not answer. Such a wait ends only with the program. A process
//! that makes us wait hides no other process.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::patience::Waiter;
use crate::threads;

/// Time in the same blocking call after which a thread is left behind.
pub(super) const STUCK: Duration = Duration::from_secs(2);
/// Interval between looks. Only the number of looks counts, as our process may have been stopped in
/// between.
const TICK: Duration = Duration::from_millis(50);
const STUCK_TICKS: u32 = 40;
/// Maximum number of threads that are replaced. When as many block, all remaining items are left
/// out.
const REPLACEMENTS: usize = 64;

/// Result of the work on all items.
#[derive(Debug)]
pub(super) struct Outcome<I, R> {
    pub results: Vec<R>,
    /// Items without a result, as their work blocked.
    pub left_out: Vec<I>,
}

/// Applies `work` to each of `items`, in no order, on `workers` threads. Uses the calling thread if
/// none can be started.
pub(super) fn for_all<I, R>(
    workers: usize,
    items: Vec<I>,
    work: impl Fn(I) -> R + Send + Sync + 'static,
) -> Outcome<I, R>
where
    I: Copy + Send + Sync + 'static,
    R: Send + 'static,
{
    let work: Arc<dyn Fn(I) -> R + Send + Sync> = Arc::new(work);
    let shared = Arc::new(Shared {
        items,
        next: AtomicUsize::new(0),
        work,
        ended: Mutex::new(()),
        end: Condvar::new(),
    });
    let mut crew: Vec<Hand<I, R>> = (0..workers).map_while(|_| shared.hire()).collect();
    let mut outcome = Outcome { results: Vec::new(), left_out: Vec::new() };
    if crew.is_empty() {
        outcome.results = std::iter::from_fn(|| shared.next()).map(|item| (shared.work)(item)).collect();
        return outcome;
    }
    let mut replacements = 0;
    while !crew.is_empty() {
        shared.wait_for_an_end();
        let mut left_behind = 0;
        let (at_work, ended): (Vec<_>, Vec<_>) =
            crew.into_iter().partition(|hand| !hand.thread.is_finished());
        for hand in ended {
            if let Err(panic) = hand.thread.join() {
                resume_unwind(panic);
            }
            outcome.results.append(&mut lock(&hand.desk).results);
        }
        crew = at_work;
        crew.retain_mut(|hand| {
            let its = Arc::clone(&hand.desk);
            let mut desk = lock(&its);
            if !hand.is_stuck(&desk) {
                return true;
            }
            if let Some(waiter) = &desk.waiter {
                waiter.leave_behind();
            }
            desk.is_left = true;
            outcome.results.append(&mut desk.results);
            outcome.left_out.extend(desk.at);
            left_behind += 1;
            false
        });
        for _ in 0..left_behind {
            if shared.has_more() && replacements < REPLACEMENTS {
                replacements += 1;
                crew.extend(shared.hire());
            }
        }
    }
    // All threads are stuck, and none was replaced.
    outcome.left_out.extend(std::iter::from_fn(|| shared.next()));
    outcome
}

struct Shared<I, R> {
    items: Vec<I>,
    next: AtomicUsize,
    work: Arc<dyn Fn(I) -> R + Send + Sync>,
    ended: Mutex<()>,
    end: Condvar,
}

/// State of a thread's work.
#[derive(Debug)]
struct Desk<I, R> {
    waiter: Option<Waiter>,
    at: Option<I>,
    results: Vec<R>,
    /// True if nobody wants the results any more.
    is_left: bool,
}

struct Hand<I, R> {
    desk: Arc<Mutex<Desk<I, R>>>,
    thread: JoinHandle<()>,
    /// Blocking time of the thread at the last look. `seen` counts consecutive looks in the same
    /// call.
    waited: Duration,
    seen: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I: Copy + Send + Sync + 'static, R: Send + 'static> Shared<I, R> {
    fn next(&self) -> Option<I> {
        self.items.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.items.len()
    }

    /// Starts one more thread; `None` if none can be started.
    fn hire(self: &Arc<Self>) -> Option<Hand<I, R>> {
        let desk = Desk { waiter: None, at: None, results: Vec::new(), is_left: false };
        let desk = Arc::new(Mutex::new(desk));
        let (shared, its) = (Arc::clone(self), Arc::clone(&desk));
        let thread = threads::start("look", move || {
            shared.work_through(&its);
            let _order = lock(&shared.ended);
            shared.end.notify_all();
        });
        Some(Hand { desk, thread: thread.ok()?, waited: Duration::ZERO, seen: 0 })
    }

    fn work_through(&self, desk: &Mutex<Desk<I, R>>) {
        lock(desk).waiter = Some(Waiter::ours());
        while let Some(item) = self.next() {
            lock(desk).at = Some(item);
            let result = (self.work)(item);
            let mut desk = lock(desk);
            if desk.is_left {
                return;
            }
            desk.at = None;
            desk.results.push(result);
        }
    }

    fn wait_for_an_end(&self) {
        let ended = lock(&self.ended);
        // A thread that announces its end has a few instructions left; one more look costs little.
        let _whatever = self.end.wait_timeout(ended, TICK);
    }
}

impl<I, R> Hand<I, R> {
    fn is_stuck(&mut self, desk: &Desk<I, R>) -> bool {
        let waited = desk.waiter.as_ref().and_then(Waiter::waits).filter(|_| desk.at.is_some());
        match waited {
            Some(waited) if waited >= self.waited && !waited.is_zero() => self.seen += 1,
            _ => self.seen = 0,
        }
        self.waited = waited.unwrap_or_default();
        self.seen >= STUCK_TICKS && self.waited >= STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{What, waiting};

    #[test]
    fn everything_is_looked_at_once() {
        for workers in [0, 1, 3] {
            let outcome = for_all(workers, (0..1000).collect(), |n: u32| n * 2);
            let mut results = outcome.results;
            results.sort_unstable();
            assert_eq!(results, (0..1000).map(|n| n * 2).collect::<Vec<u32>>(), "{workers}");
            assert!(outcome.left_out.is_empty());
        }
    }

    #[test]
    fn who_waits_for_ever_hides_nobody() {
        let outcome = for_all(1, (0..100).collect(), |n: u32| {
            // Item 50 only takes long. Items 0 and 60 do not end.
            match n {
                0 | 60 => waiting(What::Program, || std::thread::sleep(Duration::from_secs(3600))),
                50 => std::thread::sleep(STUCK * 2),
                _ => {}
            }
            n
        });
        let mut results = outcome.results;
        results.sort_unstable();
        assert_eq!(results, (1..60).chain(61..100).collect::<Vec<u32>>());
        assert_eq!(outcome.left_out, [0, 60]);
    }
}
