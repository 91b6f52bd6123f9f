//! How much CPU time of a thread no sample stands for yet.

use std::time::Duration;

/// The account of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    /// What it had used when it was last looked at.
    used: Duration,
    /// What it has used since samples stood for all of it.
    owed: Duration,
}

/// Whether it is a thread's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is owed a sample.
    Due,
    /// It is not.
    NotYet,
}

impl Account {
    /// Of a thread that has used this much before it is sampled.
    pub(super) fn known(used: Duration) -> Self {
        Account { used, owed: Duration::ZERO }
    }

    /// Of a thread that began while its process was sampled.
    pub(super) fn begun() -> Self {
        Account::known(Duration::ZERO)
    }

    /// Adds what it has used by now.
    pub(super) fn turn(&mut self, used: Duration, period: Duration) -> Turn {
        self.owed += used.saturating_sub(self.used);
        self.used = self.used.max(used);
        if self.owed >= period { Turn::Due } else { Turn::NotYet }
    }

    /// The whole periods that it is owed, which are paid with that.
    pub(super) fn take(&mut self, period: Duration) -> u64 {
        let (owed, period) = (self.owed.as_nanos(), period.as_nanos().max(1));
        self.owed = Duration::from_nanos(u64::try_from(owed % period).unwrap_or_default());
        u64::try_from(owed / period).unwrap_or(u64::MAX)
    }

    /// What it is owed.
    pub(super) fn owed(&self) -> Duration {
        self.owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_time_is_paid_for_once() {
        const PERIOD: Duration = Duration::from_millis(10);
        let at = Duration::from_millis;
        let mut account = Account::known(at(1000));
        assert_eq!(account.turn(at(1009), PERIOD), Turn::NotYet);
        assert_eq!(account.turn(at(1035), PERIOD), Turn::Due);
        assert_eq!((account.take(PERIOD), account.owed()), (3, at(5)));
        // A clock that goes back a little changes nothing.
        assert_eq!(account.turn(at(1034), PERIOD), Turn::NotYet);
        assert_eq!(account.turn(at(1040), PERIOD), Turn::Due);
        assert_eq!((account.take(PERIOD), account.owed()), (1, Duration::ZERO));
        assert_eq!(Account::begun().turn(at(10), PERIOD), Turn::Due);
    }
}
