//! Setting of GOGC and the memory limit, with the effect of `debug.SetGCPercent` and `debug.SetMemoryLimit`.
//!
//! The runtime does both with the heap's lock held (`setGCPercent`, `setMemoryLimit` and
//! `gcControllerCommit`, runtime/mgcpacer.go). Gops-probe stops all threads at a moment in which that lock is
//! free, no collection runs and the last one is swept. At such a moment, only the words below depend on the
//! settings. The goals of the background scavenger follow at the end of the next cycle, except the one of the
//! memory limit, which is set with it.

use std::time::{Duration, Instant};

use super::journal::Journal;
use super::pacer;
use super::verified::VerifiedRuntime;
use super::word::{Outcome, Word, Writer};
use super::{ChangeOptions, Turn, refused, stop_all, unverified};
use crate::Error;

/// Time for which the process runs before the next attempt.
const STEP: Duration = Duration::from_micros(500);
/// `runtime.reduceExtraPercent`: distance of the scavenger's goal below the limit, in percent.
const REDUCE_PERCENT: f64 = 5.0;
/// Value for no memory limit (`math.MaxInt64`).
pub const NO_LIMIT: i64 = i64::MAX;

/// Result of a changed setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T> {
    /// Value from now on.
    pub now: T,
    /// Value before.
    pub before: T,
    /// Time for which all threads were stopped, over all attempts.
    pub stopped: Duration,
    /// Number of stops.
    pub stops: u32,
    /// Words written; in a dry run, words that would have been written.
    pub written: Vec<Word>,
}

/// Sets GOGC; a negative number is off.
///
/// # Errors
/// Returns [`Error::Uncalibrated`] or [`Error::Refused`]; nothing was written then.
pub fn set_gc_percent(
    subject: &VerifiedRuntime<'_>,
    percent: i32,
    options: &ChangeOptions<'_>,
) -> Result<Set<i32>, Error> {
    let percent = percent.max(-1);
    change(subject, options, percent, |subject| {
        let before = subject.gc_percent()?;
        check_pacer(subject, before)?;
        let words = percent_words(subject, percent)?;
        Ok((before, words))
    })
}

/// Memory that a process needs, by which a limit is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Bytes that no collection can free: stacks, the runtime's own structures, fragmentation.
    pub overhead: u64,
    /// Bytes that the last collection found alive.
    pub marked: u64,
}

/// Reads the memory that a process needs at least, by which a limit is judged.
///
/// # Errors
/// Returns the errors of [`set_memory_limit`].
pub fn needs(subject: &VerifiedRuntime<'_>) -> Result<Needs, Error> {
    check_has_limit(subject)?;
    let field = |name| subject.read("runtime.gcController", name);
    // As in `memoryLimitHeapGoal`: mapped memory that is neither free nor in objects.
    let objects = field("totalAlloc")?.saturating_sub(field("totalFree")?);
    let overhead = field("mappedReady")?.saturating_sub(field("heapFree")?).saturating_sub(objects);
    Ok(Needs { overhead, marked: field("heapMarked")? })
}

/// Sets the soft memory limit in bytes; [`NO_LIMIT`] is none.
///
/// # Errors
/// Returns [`Error::Uncalibrated`] or [`Error::Refused`]; nothing was written then. Go 1.18 has no memory
/// limit.
pub fn set_memory_limit(
    subject: &VerifiedRuntime<'_>,
    limit: i64,
    options: &ChangeOptions<'_>,
) -> Result<Set<i64>, Error> {
    check_has_limit(subject)?;
    let limit = u64::try_from(limit)
        .map_err(|_| refused(subject.process, "a memory limit is not negative; nothing is written"))?;
    let set = change(subject, options, limit, |subject| {
        let before = subject.read("runtime.gcController", "memoryLimit")?;
        let mut words = vec![subject.word("runtime.gcController", "memoryLimit", before, limit)?];
        words.extend(scavenger_word(subject, before, limit)?);
        Ok((before, words))
    })?;
    let Set { stopped, stops, .. } = set;
    Ok(Set {
        now: set.now.cast_signed(),
        before: set.before.cast_signed(),
        stopped,
        stops,
        written: set.written,
    })
}

fn check_has_limit(subject: &VerifiedRuntime<'_>) -> Result<(), Error> {
    if !subject.view.release.has_memory_limit() {
        return Err(unverified(
            subject.process,
            "its runtime is of Go 1.18 and has no memory limit, which came with Go 1.19",
        ));
    }
    Ok(())
}

/// Returns the word of the background scavenger's goal (`gcPaceScavenger`), if it has the value that the old
/// limit gives.
fn scavenger_word(subject: &VerifiedRuntime<'_>, before: u64, limit: u64) -> Result<Option<Word>, Error> {
    const FIELD: (&str, &str) = ("runtime.scavenge", "memoryLimitGoal");
    if !subject.has(FIELD.0, FIELD.1) {
        return Ok(None);
    }
    let below = |limit: u64| (limit as f64 * (1.0 - REDUCE_PERCENT / 100.0)) as u64;
    let now = subject.read(FIELD.0, FIELD.1)?;
    if now != u64::MAX && now != below(before) {
        return Ok(None);
    }
    let mapped = subject.read("runtime.gcController", "mappedReady")?;
    let goal = if mapped <= below(limit) { u64::MAX } else { below(limit) };
    subject.word(FIELD.0, FIELD.1, now, goal).map(Some)
}

/// Checks that the pacer's variables follow from each other as this release computes them. All of them take
/// part in this last check.
fn check_pacer(subject: &VerifiedRuntime<'_>, percent: i32) -> Result<(), Error> {
    // Before the first cycle, the runtime is still counting parts of the terms.
    if subject.read("runtime.memstats", "numgc")? == 0 {
        return Ok(());
    }
    let controller = |name| subject.read("runtime.gcController", name);
    let (found, computed, fits) = if subject.view.release.computes_heap_goal() {
        let (found, computed) = (controller("gcPercentHeapGoal")?, subject.live()?.percent_goal(percent));
        (found, computed, found == computed)
    } else {
        let (trigger, goal) = (controller("trigger")?, controller("heapGoal")?);
        let (_, computed) = subject.trigger18()?.commit(percent, subject.view.machine);
        // During sweeping, the runtime keeps the trigger away, and the goal moves with it.
        (goal, computed, goal == computed || (goal == trigger && goal > computed))
    };
    if fits {
        return Ok(());
    }
    Err(unverified(
        subject.process,
        format!("its heap goal is {found}, where this release computes {computed}; nothing is written"),
    ))
}

/// Returns the words that depend on GOGC.
fn percent_words(subject: &VerifiedRuntime<'_>, percent: i32) -> Result<Vec<Word>, Error> {
    let mut values = vec![
        ("heapMinimum", pacer::heap_minimum(percent)),
        ("gcPercent", u64::from(percent.cast_unsigned())),
    ];
    if subject.view.release.computes_heap_goal() {
        values.push(("gcPercentHeapGoal", subject.live()?.percent_goal(percent)));
        values.push(("sweepDistMinTrigger", 0));
    } else {
        let (trigger, goal) = subject.trigger18()?.commit(percent, subject.view.machine);
        values.extend([("trigger", trigger), ("heapGoal", goal)]);
    }
    let word = |(field, value)| {
        let before = subject.read("runtime.gcController", field)?;
        subject.word("runtime.gcController", field, before, value)
    };
    values.into_iter().map(word).collect()
}

/// Makes a change at a moment in which nothing else depends on its words.
fn change<T: Copy>(
    subject: &VerifiedRuntime<'_>,
    options: &ChangeOptions<'_>,
    now: T,
    words: impl Fn(&VerifiedRuntime<'_>) -> Result<(T, Vec<Word>), Error>,
) -> Result<Set<T>, Error> {
    let process = subject.process;
    let deadline = Instant::now() + options.timeout;
    let turn = Turn { deadline, interrupted: options.interrupted };
    turn.wait(process)?;
    let mut writer = Writer::new(process, options.dry_run)?;
    // Nothing is restored, but nobody else may change the same words meanwhile.
    let journal = if options.dry_run { None } else { Some(Journal::open(process)?) };
    let (mut stopped, mut stops) = (Duration::ZERO, 0);
    loop {
        // No thread is stopped while the pacer is busy anyway.
        let result = match subject.pacer_is_busy()? {
            Some(reason) => Err(reason),
            None => {
                let held = stop_all(process, &turn)?;
                stops += 1;
                let in_stop = subject.in_stop();
                let result = attempt(subject, &mut writer, &words);
                drop(in_stop);
                stopped += held.thaw();
                result?
            }
        };
        let reason = match result {
            Ok(before) => {
                if let Some(journal) = journal {
                    journal.close();
                }
                return Ok(Set { now, before, stopped, stops, written: writer.written().to_vec() });
            }
            Err(reason) => reason,
        };
        if (options.interrupted)() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= deadline {
            let tried = options.timeout;
            return Err(refused(
                process,
                format!("{reason}, each time that it was tried in {tried:?}; nothing was written"),
            ));
        }
        std::thread::sleep(STEP);
    }
}

/// Makes one attempt, with all threads stopped. Returns the value before, or the reason why the change cannot
/// be made now.
fn attempt<T>(
    subject: &VerifiedRuntime<'_>,
    writer: &mut Writer<'_>,
    words: &impl Fn(&VerifiedRuntime<'_>) -> Result<(T, Vec<Word>), Error>,
) -> Result<Result<T, &'static str>, Error> {
    if let Some(reason) = subject.pacer_is_busy()? {
        return Ok(Err(reason));
    }
    let (before, words) = words(subject)?;
    Ok(match writer.write(&words)? {
        Outcome::Written => Ok(before),
        // Only another process that writes from outside can do that.
        Outcome::Changed(_) => Err("somebody else is changing it"),
    })
}
