//! CPU time of a thread that one look stands for.
//!
//! A thread is found running in looks that together stand for some time. Its real CPU time is about as long,
//! or shorter if it only seemed to run. The ratio of both is the weight of a look for the time since the
//! previous look. Errors of earlier looks are corrected step by step. So a thread gets as many samples as the
//! sampling periods of CPU time that it used, even if its load changes.

use std::time::Duration;

/// CPU time account of a thread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Account {
    /// CPU time used before the first look.
    before: Duration,
    /// CPU time used until now.
    used: Duration,
    /// Total time between looks that found the thread running and the looks before them.
    found: Duration,
    /// CPU time for which samples were taken or are owed.
    counted: Duration,
    /// CPU time for which samples are still owed.
    owed: Duration,
}

/// Divisor of the correction: each look corrects one part in this many of the earlier error.
const MADE_UP: f64 = 8.0;

impl Account {
    /// Creates the account of a thread that used `before` of CPU time before sampling.
    pub(super) fn known(before: Duration) -> Self {
        Account { before, used: before, found: Duration::ZERO, counted: Duration::ZERO, owed: Duration::ZERO }
    }

    /// Creates the account of a thread that began during sampling.
    pub(super) fn begun() -> Self {
        Account::known(Duration::ZERO)
    }

    /// Records the CPU time that the thread has used until now.
    pub(super) fn saw(&mut self, used: Duration) {
        // The kernel's clocks of a thread may go back a little.
        self.used = self.used.max(used);
    }

    /// Records that the thread was found running, with the time since the last look.
    pub(super) fn found(&mut self, after: Duration) {
        self.found += after;
    }

    /// Adds owed samples for `time` in which the thread seemed to run.
    pub(super) fn owe(&mut self, time: Duration, period: Duration) {
        // At first, little is known of the thread: assume that it runs if it seems to.
        let prior = (period * 2).as_secs_f64();
        let used = self.used().as_secs_f64();
        let part = (used + prior) / (self.found.as_secs_f64() + prior);
        let counts = time.as_secs_f64() * part;
        let wrong = used - (self.counted.as_secs_f64() + counts);
        let counts = Duration::try_from_secs_f64(counts + wrong / MADE_UP).unwrap_or_default();
        self.counted += counts;
        self.owed += counts;
    }

    /// Takes the number of owed samples and removes them from the account.
    pub(super) fn take(&mut self, period: Duration) -> u64 {
        let (owed, period) = (self.owed.as_nanos(), period.as_nanos().max(1));
        self.owed = Duration::from_nanos(u64::try_from(owed % period).unwrap_or_default());
        u64::try_from(owed / period).unwrap_or(u64::MAX)
    }

    /// CPU time of the thread if no look ever found it running, otherwise zero.
    pub(super) fn unseen(&self) -> Duration {
        if self.found.is_zero() { self.used() } else { Duration::ZERO }
    }

    fn used(&self) -> Duration {
        self.used.saturating_sub(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(10);

    /// Samples in ten seconds of a thread that is on a CPU for one part of the time and waits for one for
    /// another part.
    fn samples(on_cpu: u32, waits: u32, of: u32) -> u64 {
        let (mut account, mut samples, mut random) = (Account::known(Duration::from_secs(5)), 0, 12345u32);
        for look in 1..=1000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            account.saw(Duration::from_secs(5) + PERIOD * look * on_cpu / of);
            if (random >> 16) % of < on_cpu + waits {
                account.found(PERIOD);
                account.owe(PERIOD, PERIOD);
                samples += account.take(PERIOD);
            }
        }
        samples
    }

    #[test]
    fn samples_are_of_cpu_time() {
        for (on_cpu, waits, of) in [(10, 0, 10), (5, 5, 10), (2, 8, 10), (5, 0, 10), (1, 1, 10), (1, 0, 50)] {
            let expected = 1000 * u64::from(on_cpu) / u64::from(of);
            let samples = samples(on_cpu, waits, of);
            assert!(samples.abs_diff(expected) <= 10 + expected / 20, "{samples} for {expected}");
        }
    }

    /// Samples of a thread that uses CPUs in `early` of 100 looks first, then in `late` of 100, and seems to
    /// run in each.
    fn changing(early: u32, late: u32) -> (u64, u64) {
        let (mut account, mut samples, mut used) = (Account::begun(), 0, Duration::ZERO);
        for look in 0..1000 {
            used += PERIOD * if look < 500 { early } else { late } / 100;
            account.saw(used);
            account.found(PERIOD);
            account.owe(PERIOD, PERIOD);
            samples += account.take(PERIOD);
        }
        (samples, u64::try_from(used.as_nanos() / PERIOD.as_nanos()).unwrap())
    }

    #[test]
    fn work_that_changes() {
        for (early, late) in [(100, 5), (5, 100), (50, 50), (100, 0), (0, 100)] {
            let (samples, expected) = changing(early, late);
            assert!(samples.abs_diff(expected) <= 10, "{early} {late}: {samples} for {expected}");
        }
    }

    #[test]
    fn what_no_look_found() {
        let mut account = Account::known(Duration::from_secs(1));
        account.saw(Duration::from_secs(3));
        account.saw(Duration::from_secs(2));
        assert_eq!(account.unseen(), Duration::from_secs(2));
        account.found(PERIOD);
        assert_eq!(account.unseen(), Duration::ZERO);
    }
}
