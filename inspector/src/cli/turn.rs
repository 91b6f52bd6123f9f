//! Turns for work that only one may do at a time. Others wait for a turn, but not without end.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// State of the turn: free or taken.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Turn of one holder. Dropping it frees the turn for the next.
#[derive(Debug)]
pub(super) struct Turn<'t>(&'t Turns);

impl Turns {
    /// Waits for a turn, at most for `limit`. Returns `None` if the holder does not give it back in time.
    pub(super) fn take(&self, limit: Duration) -> Option<Turn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.free.wait_timeout_while(taken, limit, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!std::mem::replace(&mut *taken, true)).then(|| Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]

    use super::*;

    #[test]
    fn one_at_a_time_and_not_without_end() {
        let turns = Turns::default();
        let first = turns.take(Duration::ZERO).unwrap();
        assert!(turns.take(Duration::from_millis(20)).is_none());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| turns.take(Duration::from_secs(60)).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(turns.take(Duration::ZERO).is_some());
    }
}
