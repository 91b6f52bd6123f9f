//! Timer that ends our process if it does not let threads go: while it is stopped (`SIGSTOP`, a
//! frozen cgroup), gets no CPU, or blocks for ever.
//!
//! A kernel timer sends the signal, so no other process is needed that could be stopped too.
//! SIGKILL reaches a process in any of these states (`send_sigqueue` and `complete_signal` in
//! kernel/signal.c wake it to die). When a tracer has died, the kernel lets its threads go. Signals
//! that were on their way are delivered, as reports are only [looked at](super::tracee).

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::StopError;
use super::witness::Slot;

/// Minimum time before a stop is ended. On a loaded machine a process waits for a CPU for a part of
/// that.
const LEAST: Duration = Duration::from_millis(500);
/// Factor from the planned time of a stop to the time at which it is ended.
const TIMES: u32 = 20;
/// Divisor of the allowed time: a sign of life is passed on to the kernel only after this part of
/// the time, as each one is a system call.
const PART: u32 = 16;

/// Maximum time that threads stand still after the last sign of life of the process that holds
/// them. `hold` is the planned maximum.
pub fn longest_stop(hold: Duration) -> Duration {
    hold.saturating_mul(TIMES).max(LEAST)
}

/// Kernel timer that ends our process. The first sign of life arms it; dropping it disarms it.
#[derive(Debug)]
pub(super) struct Watchdog {
    timer: RefCell<Timer>,
    time: Cell<Duration>,
    /// Slot through which the witness learns when the timer ends us.
    told: Slot,
    armed: Cell<Option<Instant>>,
}

impl Watchdog {
    /// Creates the timer without arming it.
    ///
    /// # Errors
    /// Returns [`StopError::NoTimer`] if the kernel gives no timer. Nothing may be stopped then.
    pub(super) fn new(time: Duration) -> Result<Self, StopError> {
        let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(kill)).map_err(no_timer)?;
        Ok(Watchdog {
            timer: RefCell::new(timer),
            time: Cell::new(time),
            told: Slot::take(),
            armed: Cell::new(None),
        })
    }

    /// Allows `time` without a sign of life for the next step, if that is longer than the time
    /// allowed before.
    ///
    /// # Errors
    /// Returns the kernel's error if the timer could not be set. Nothing may be stopped then.
    pub(super) fn allow(&self, time: Duration) -> Result<(), Errno> {
        if time > self.time.get() {
            self.time.set(time);
            self.armed.set(None);
        }
        self.alive()
    }

    /// Gives a sign of life: the time begins anew.
    ///
    /// # Errors
    /// Returns the kernel's error if the timer could not be set. Nothing may be stopped then.
    pub(super) fn alive(&self) -> Result<(), Errno> {
        let now = Instant::now();
        let time = self.time.get();
        if self.armed.get().is_some_and(|armed| now < armed + time / PART) {
            return Ok(());
        }
        self.set(time)?;
        self.armed.set(Some(now));
        Ok(())
    }

    fn set(&self, time: Duration) -> Result<(), Errno> {
        let flags = TimerSetTimeFlags::empty();
        if !time.is_zero() {
            self.told.set(time);
        }
        // Never borrowed elsewhere: this is the only place.
        self.timer
            .try_borrow_mut()
            .map_err(|_| Errno::EBUSY)?
            .set(Expiration::OneShot(TimeSpec::from_duration(time)), flags)?;
        if time.is_zero() {
            self.told.set(time);
        }
        Ok(())
    }
}

/// Names the cause of a missing timer. A timer that sends a signal counts as a pending signal of
/// its user; EAGAIN means that this limit is reached (`do_timer_create` in
/// kernel/time/posix-timers.c).
fn no_timer(errno: Errno) -> StopError {
    StopError::NoTimer { errno, signals: pending_signals().filter(|_| errno == Errno::EAGAIN) }
}

/// Number of signals pending for processes of our user, and its limit.
fn pending_signals() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let (used, limit) = status.lines().find_map(|line| line.strip_prefix("SigQ:"))?.trim().split_once('/')?;
    Some((used.parse().ok()?, limit.parse().ok()?))
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Deleting the timer disarms it too, but is skipped during a panic. Setting fails only for
        // a timer that does not exist.
        let _disarmed = self.set(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// Body of the tests below, run in a process of its own. An environment variable names the
    /// case; without it nothing is done.
    #[test]
    fn watched() {
        let Ok(what) = std::env::var("WATCHED") else { return };
        let watchdog = Watchdog::new(Duration::from_millis(200)).unwrap();
        watchdog.alive().unwrap();
        match what.as_str() {
            "stopped" => nix::sys::signal::raise(Signal::SIGSTOP).unwrap(),
            "alive" => {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(600) {
                    watchdog.alive().unwrap();
                }
            }
            "over" => {
                drop(watchdog);
                std::thread::sleep(Duration::from_millis(600));
            }
            _ => std::thread::sleep(Duration::from_secs(60)),
        }
    }

    fn end_of(what: &str) -> std::process::ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "stop::watchdog::tests::watched"]).env("WATCHED", what);
        command.stdout(std::process::Stdio::null()).status().unwrap()
    }

    #[test]
    fn who_is_stopped_or_hangs_is_ended() {
        assert_eq!(end_of("stopped").signal(), Some(libc::SIGKILL));
        assert_eq!(end_of("hangs").signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn who_goes_on_or_is_done_is_not() {
        assert!(end_of("alive").success());
        assert!(end_of("over").success());
    }

    #[test]
    fn no_timer_is_named_by_its_cause() {
        let signals = pending_signals().unwrap();
        assert!(signals.1 > 0, "{signals:?}");
        let error = StopError::NoTimer { errno: Errno::EAGAIN, signals: Some((7, 5)) };
        assert_eq!(
            error.to_string(),
            "the kernel has no timer for the end of a stop: the signals that wait for processes of this user (7) reach \
             RLIMIT_SIGPENDING (ulimit -i, 5)"
        );
        let other = no_timer(Errno::ENOMEM).to_string();
        assert!(other.ends_with(": ENOMEM: Out of memory"), "{other}");
    }

    #[test]
    fn times() {
        assert_eq!(longest_stop(Duration::from_millis(20)), LEAST);
        assert_eq!(longest_stop(Duration::from_millis(50)), Duration::from_secs(1));
        assert_eq!(longest_stop(Duration::MAX), Duration::MAX);
    }
}
