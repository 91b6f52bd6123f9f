//! Ends this process where it does not let threads go itself: while it is stopped (`SIGSTOP`, a frozen cgroup), gets no CPU, or
//! waits for ever.
//!
//! A timer of the kernel sends the signal, which needs no process that could be stopped too. SIGKILL reaches a process in any of
//! these states (`send_sigqueue` and `complete_signal` in kernel/signal.c wake it to die). When a tracer has died, the kernel lets
//! its threads go, with the signals that were on their way to them, as their reports are only [looked at](super::tracee).

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::StopError;
use super::witness::Slot;

/// No stop is ended before: a loaded machine lets a process wait for a CPU for a part of that.
const LEAST: Duration = Duration::from_millis(500);
/// So many times what a stop is to take.
const TIMES: u32 = 20;
/// A sign of life is passed on when so much of the time is over: each is a system call.
const PART: u32 = 16;

/// The longest time that threads stand still after the last sign of life of the process that holds them, where `hold` is what
/// they were to stand still at most.
pub fn longest_stop(hold: Duration) -> Duration {
    hold.saturating_mul(TIMES).max(LEAST)
}

/// Armed by the first sign of life; dropping it disarms it.
#[derive(Debug)]
pub(super) struct Watchdog {
    timer: RefCell<Timer>,
    time: Cell<Duration>,
    /// Who says that it ended us.
    told: Slot,
    armed: Cell<Option<Instant>>,
}

impl Watchdog {
    /// # Errors
    /// Where the kernel has no timer for us: nothing may be stopped then.
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

    /// What is about to be done may take so long without a sign of life, where that is longer than what was said before.
    ///
    /// # Errors
    /// As [`Watchdog::new`].
    pub(super) fn allow(&self, time: Duration) -> Result<(), Errno> {
        if time > self.time.get() {
            self.time.set(time);
            self.armed.set(None);
        }
        self.alive()
    }

    /// We go on: the time begins anew.
    ///
    /// # Errors
    /// As [`Watchdog::new`].
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
        // Nobody else has it borrowed: this is the only place.
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

/// A timer that sends a signal takes a place among the signals that may wait for all processes of a user, which is all
/// that EAGAIN means here (`do_timer_create` in kernel/time/posix-timers.c).
fn no_timer(errno: Errno) -> StopError {
    StopError::NoTimer { errno, signals: pending_signals().filter(|_| errno == Errno::EAGAIN) }
}

/// How many signals wait for processes of our user, and how many may.
fn pending_signals() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let (used, limit) = status.lines().find_map(|line| line.strip_prefix("SigQ:"))?.trim().split_once('/')?;
    Some((used.parse().ok()?, limit.parse().ok()?))
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Deleting it does that too, but is left out amid a panic. It can only fail for a timer that is not there.
        let _disarmed = self.set(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// What the tests below run in a process of its own: named by a variable, else it does nothing.
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
