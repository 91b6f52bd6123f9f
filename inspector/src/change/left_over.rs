//! Closed list of the words that a journal may ask to restore.
//!
//! A journal is a file. A person who can write it must be able to write into a process only what a change by
//! gops-probe would restore. Each word must be one of the variables below, at its present address in the
//! runtime of the process. It must still hold a value that a change leaves there for a time. Its new value
//! must be one from before such a change.

use super::gc::ALMOST_OFF;
use super::journal::{Entry, STATE_VARIABLE};
use super::pacer;
use super::sampling::MAX_RATE;
use super::verified::VerifiedRuntime;
use crate::Error;
use crate::process::Process;

/// Variable that a change leaves changed for a time.
struct Changeable {
    variable: &'static str,
    /// Field of the variable; empty if the variable itself is the word.
    field: &'static str,
    /// Returns true for a value that a change may have left.
    ours: fn(u64) -> bool,
    /// Returns true for a value from before a change.
    before: fn(u64) -> bool,
    /// True if restoring may need all threads stopped.
    stopped: bool,
}

const fn rate(variable: &'static str, stopped: bool) -> Changeable {
    Changeable { variable, field: "", ours: |n| (1..=MAX_RATE).contains(&n), before: |n| n == 0, stopped }
}

/// Goal or trigger of the collector while GOGC is set for a moment instead of off. Before, the value was one
/// that no heap reaches.
const fn goal(field: &'static str) -> Changeable {
    Changeable {
        variable: "runtime.gcController",
        field,
        ours: |n| n == pacer::heap_minimum(-1),
        before: |n| n >= pacer::heap_minimum(-1),
        stopped: false,
    }
}

/// Rates of [`sampling`](super::sampling), and variables that [`gc`](super::gc) sets if GOGC is off.
const CHANGEABLE: [Changeable; 7] = [
    rate("runtime.MemProfileRate", true),
    rate("runtime.blockprofilerate", false),
    rate("runtime.mutexprofilerate", false),
    Changeable {
        variable: "runtime.gcController",
        field: "gcPercent",
        ours: |n| n == ALMOST_OFF.cast_unsigned() as u64,
        before: |n| n == (-1i32).cast_unsigned() as u64,
        stopped: false,
    },
    goal("gcPercentHeapGoal"),
    goal("trigger"),
    goal("heapGoal"),
];

/// Checks that each entry of a journal is one that a change by gops-probe may have left in this process.
///
/// # Errors
/// Returns [`Error::Refused`] if an entry is not, or the error that keeps the runtime from being known.
pub(super) fn check(process: &Process, entries: &[Entry]) -> Result<(), Error> {
    let subjects = VerifiedRuntime::known(process)?;
    for entry in entries {
        let known = subjects
            .iter()
            .any(|subject| CHANGEABLE.iter().any(|changeable| is_of(entry, changeable, subject)));
        if !known {
            return Err(Error::Refused {
                pid: process.pid(),
                what: format!(
                    "its journal asks for a write that no change of gops-probe has to put back ({entry}); nothing is written"
                ),
                hint: Some(format!(
                    "somebody else has written that journal, or it is damaged: remove it from /run/gops-probe, or from the \
                     folder that {STATE_VARIABLE} names"
                )),
            });
        }
    }
    Ok(())
}

fn is_of(entry: &Entry, changeable: &Changeable, subject: &VerifiedRuntime<'_>) -> bool {
    let Ok((at, width)) = subject.place(changeable.variable, changeable.field) else { return false };
    entry.is_at(at, width)
        && (changeable.ours)(entry.ours())
        && (changeable.before)(entry.before())
        && (changeable.stopped || !entry.needs_stop())
}
