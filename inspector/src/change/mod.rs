//! Changing a process: the only code that writes into its memory.
//!
//! Nothing but aligned words of data is written, in pages that are writable and not executable, each only where it
//! still holds what was read and verified ([`word`]). Never code, never registers. What has to be put back is in a
//! file before it is written ([`journal`]), and a process of our own that outlives us puts it back where we cannot
//! ([`guard`]); where that dies too, the next run does ([`restore_left_over`]).
//!
//! Before anything is written, the runtime has to be exactly one that is known, and its variables have to make sense
//! together ([`subject`]); what is doubtful is refused.

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

/// A thread that holds the process for so long on end is a debugger's, and no other gops-probe that is done soon.
const DEBUGGER: Duration = Duration::from_secs(3);
/// So often a denial is tried again for which no tracer is seen: whoever held it may have let go before we look.
const DENIED_TRIES: u32 = 5;

/// What a change may take and who may end it.
#[allow(missing_debug_implementations, reason = "a closure has none")]
pub struct ChangeOptions<'a> {
    /// For how long to try, and to wait for the effect.
    pub timeout: Duration,
    /// Only say what would be written.
    pub dry_run: bool,
    /// Whether somebody wants us to end: everything is put back then.
    pub interrupted: &'a dyn Fn() -> bool,
    /// The program that is the [guard]: [`guard::OURSELVES`], for whoever is `gops-probe`.
    pub guard: &'a Path,
}

/// Puts back what an earlier run changed in this process and could not put back, because it was killed. Costs one
/// look into a folder where there is nothing to do.
///
/// # Errors
/// Where there is something to put back and that cannot be done.
pub fn restore_left_over(process: &Process) -> Result<Vec<Restored>, Error> {
    journal::restore_left_over(process)
}

/// For how long whoever else holds the process is waited for.
pub(crate) struct Turn<'a> {
    pub(crate) deadline: Instant,
    pub(crate) interrupted: &'a dyn Fn() -> bool,
}

impl Turn<'_> {
    /// Waits until nobody traces the process.
    ///
    /// # Errors
    /// [`crate::process::Error::Traced`] by a debugger, or where somebody does at the end of the time.
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

    /// Two that each hold some of the threads must not try again in step.
    fn nap(&self) -> Result<(), Error> {
        if (self.interrupted)() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(1 + u64::from(std::process::id() % 7)));
        Ok(())
    }
}

/// Stops all threads of a process, when it is our turn, or says why that cannot be.
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

/// The error that something is not done to a process in the state that it is in.
pub(crate) fn refused(process: &Process, what: impl Into<String>) -> Error {
    Error::Refused { pid: process.pid(), what: what.into(), hint: None }
}

/// The error that a signal has stopped the process, with the way out.
pub(crate) fn stopped(process: &Process, what: impl Into<String>) -> Error {
    let hint = format!("let it run: kill -CONT {}", process.pid());
    Error::Refused { pid: process.pid(), what: what.into(), hint: Some(hint) }
}

/// The error that what would be written could not be verified.
pub(crate) fn unverified(process: &Process, what: impl Into<String>) -> Error {
    Error::Uncalibrated { pid: process.pid(), what: what.into() }
}
