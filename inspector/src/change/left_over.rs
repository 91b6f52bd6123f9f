//! What a journal may ask to be put back: a closed list.
//!
//! A journal is a file. Whoever can write it must not be able to write anything into a process but what a change of ours
//! would put back: each word is one of the variables below, where the runtime of the process has it now; it still holds
//! a value that a change leaves there for a time; and it gets one that was there before such a change.

use super::gc::ALMOST_OFF;
use super::journal::{Entry, STATE_VARIABLE};
use super::pacer;
use super::sampling::MAX_RATE;
use super::verified::VerifiedRuntime;
use crate::Error;
use crate::process::Process;

/// A variable that a change leaves changed for a time.
struct Changeable {
    variable: &'static str,
    /// Empty where the variable is the word.
    field: &'static str,
    /// What a change may have left in it.
    ours: fn(u64) -> bool,
    /// What may have been there before.
    before: fn(u64) -> bool,
    /// All threads may have to be stopped to put it back.
    stopped: bool,
}

const fn rate(variable: &'static str, stopped: bool) -> Changeable {
    Changeable { variable, field: "", ours: |n| (1..=MAX_RATE).contains(&n), before: |n| n == 0, stopped }
}

/// A goal or a trigger of the collector, while GOGC is not off for a moment: before, it was one that no heap reaches.
const fn goal(field: &'static str) -> Changeable {
    Changeable {
        variable: "runtime.gcController",
        field,
        ours: |n| n == pacer::heap_minimum(-1),
        before: |n| n >= pacer::heap_minimum(-1),
        stopped: false,
    }
}

/// The rates of [`sampling`](super::sampling), and what [`gc`](super::gc) sets where GOGC is off.
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

/// Checks that everything that a journal asks for is what a change of ours may have left in this process.
///
/// # Errors
/// [`Error::Refused`] where it is not; what keeps the runtime of the process from being known.
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
