//! Changes of a process: the only code that writes into its memory.
//!
//! Only aligned words of data are written, in pages that are writable and not executable. Each word is
//! written only if it still holds the value that was read and verified ([`word`]). Code and registers are
//! never written. Words that have to be restored are in a file before they are written ([`journal`]). If
//! gops-probe cannot restore them, a child process that outlives it does ([`guard`]). If the guard dies too,
//! the next run does ([`restore_left_over`]).
//!
//! Before any write, the runtime must be exactly a known one, and its variables must be consistent
//! ([`verified`]). A doubtful case is refused.

pub mod gc;
pub mod guard;
pub mod journal;
pub mod knob;
mod left_over;
pub mod pacer;
pub mod sampling;
pub mod verified;
pub mod word;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Pid, Process};
use crate::stop::{self, HOLD, StopError, Stopped};
use crate::{Error, standstill};
use journal::Restored;

/// Minimum time without a break for which one tracer holds the process before it counts as a debugger.
/// Another gops-probe is done sooner.
const DEBUGGER: Duration = Duration::from_secs(3);
/// Retries after EPERM when no tracer is visible: a tracer may have let go before we look.
const DENIED_TRIES: u32 = 5;

/// Options of a change.
#[allow(missing_debug_implementations, reason = "a closure has none")]
pub struct ChangeOptions<'a> {
    /// Maximum time for attempts and for the effect.
    pub timeout: Duration,
    /// True to report the planned writes and write nothing.
    pub dry_run: bool,
    /// Returns true if the user asks to end: everything is restored then.
    pub interrupted: &'a dyn Fn() -> bool,
    /// Program that runs the [guard]: [`guard::OURSELVES`] if the caller is `gops-probe`.
    pub guard: &'a Path,
}

/// Restores words of this process that an earlier run changed and did not restore because it was killed.
/// Reads one folder if nothing has to be restored.
///
/// # Errors
/// Returns an error if a word has to be restored and cannot be.
pub fn restore_left_over(process: &Process) -> Result<Vec<Restored>, Error> {
    journal::restore_left_over(process)
}

/// Limit of the wait for another tracer of the process.
pub(crate) struct Turn<'a> {
    pub(crate) deadline: Instant,
    pub(crate) interrupted: &'a dyn Fn() -> bool,
}

impl Turn<'_> {
    /// Waits until nobody traces the process.
    ///
    /// # Errors
    /// Returns [`crate::process::Error::Traced`] if a debugger traces the process, or if any tracer is there
    /// at the deadline.
    pub(crate) fn wait(&self, process: &Process) -> Result<(), Error> {
        let mut same: Option<(i32, Instant)> = None;
        while let Some(tracer) = stop::tracer(process.pid().as_raw()) {
            let now = Instant::now();
            let since = match same {
                Some((before, since)) if before == tracer => since,
                _ => now,
            };
            same = Some((tracer, since));
            if now >= self.deadline || now >= since + DEBUGGER {
                return Err(match Pid::try_from(u64::from(tracer.unsigned_abs())) {
                    Ok(tracer) => process.traced_by(tracer).into(),
                    Err(_) => stop_error(process, StopError::Denied),
                });
            }
            self.nap()?;
        }
        Ok(())
    }

    /// Sleeps for a time that depends on our pid: two tracers that each hold some threads must not retry in
    /// step.
    fn nap(&self) -> Result<(), Error> {
        if (self.interrupted)() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(1 + u64::from(std::process::id() % 7)));
        Ok(())
    }
}

/// Stops all threads of a process, after other tracers have let go, or returns the reason why it cannot.
pub(crate) fn stop_all(process: &Process, turn: &Turn<'_>) -> Result<Stopped, Error> {
    let mut denied = 0;
    loop {
        match Stopped::all_threads(process.pid().as_raw(), HOLD) {
            Ok(stopped) => return Ok(stopped),
            Err(StopError::Denied) if stop::is_traced(process.pid().as_raw()) => {
                turn.wait(process)?;
                if Instant::now() < turn.deadline {
                    denied = 0;
                }
            }
            Err(StopError::Denied) if denied < DENIED_TRIES => {
                denied += 1;
                turn.nap()?;
            }
            Err(error) => return Err(stop_error(process, error)),
        }
    }
}

fn stop_error(process: &Process, error: StopError) -> Error {
    match standstill::error(process, error) {
        Error::Standstill { pid, what, hint } => Error::Refused {
            pid,
            what: format!("{what}; nothing is written while it runs"),
            hint: Some(hint),
        },
        other => other,
    }
}

/// Creates the error for a change that the state of the process does not allow.
pub(crate) fn refused(process: &Process, what: impl Into<String>) -> Error {
    Error::Refused { pid: process.pid(), what: what.into(), hint: None }
}

/// Creates the error for a process that a signal has stopped, with the command that continues it.
pub(crate) fn stopped(process: &Process, what: impl Into<String>) -> Error {
    let hint = format!("let it run: kill -CONT {}", process.pid());
    Error::Refused { pid: process.pid(), what: what.into(), hint: Some(hint) }
}

/// Creates the error for a write that could not be verified.
pub(crate) fn unverified(process: &Process, what: impl Into<String>) -> Error {
    Error::Uncalibrated { pid: process.pid(), what: what.into() }
}
