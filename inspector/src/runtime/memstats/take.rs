//! Reading the statistics of a running process: in a short stop of all threads, or without one.

use std::time::Duration;

use super::{Reading, Sources, compute};
use crate::memory::{InStop, Memory, ReadCost};
use crate::process::Process;
use crate::runtime::contradiction;
use crate::runtime::snapshot::stop_all;
use crate::runtime::source::SourceError;
use crate::runtime::view::View;
use crate::stop::{HOLD, StopError, StopTimes};
use crate::threads;

/// Whether the target is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All threads, for as long as reading takes.
    Instant,
    /// Not at all.
    Approximate,
}

/// How the numbers hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Consistency {
    /// All are of one instant.
    Instant,
    /// All are of one instant, but in it a thread was changing some of them: they may differ from each other a little.
    InstantInChange,
    /// They were read one after another while the process ran on.
    Approximate,
}

/// Statistics, and what it took to read them.
#[derive(Debug)]
pub struct Taken<T> {
    /// What was read.
    pub answer: T,
    /// How it holds together.
    pub consistency: Consistency,
    /// How long all threads were stopped, all stops together.
    pub stopped: StopTimes,
    /// How often they were stopped.
    pub stops: u32,
    /// What reading cost.
    pub cost: ReadCost,
}

/// Why there are no statistics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// What was read, or could not be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its threads could not be stopped.
    #[error("its threads could not be stopped: {0}")]
    Stop(#[from] StopError),
}

/// A stop may fall into the middle of a change. That is seen, and tried again this often.
const TRIES: u32 = 8;
/// What reading takes at most, by far.
const READING: Duration = HOLD;
/// Changes take microseconds, unless the thread that makes one has lost its CPU.
const BETWEEN: Duration = Duration::from_millis(2);

/// Reads the statistics of a runtime of `process`.
///
/// # Errors
/// Where they cannot be had, or not believed.
pub fn take(
    process: &Process,
    view: &View,
    sources: &Sources,
    wanted: Wanted,
) -> Result<Taken<Reading>, TakeError> {
    let exact = |reading: &Reading| match wanted {
        Wanted::Instant => reading.is_exact(),
        // Sums differ by what happened between two reads.
        Wanted::Approximate => !reading.generation_changed && reading.is_plausible(),
    };
    let taken = take_with(
        process,
        wanted,
        READING,
        exact,
        |memory| sources.read(memory),
        |raw| compute(&view.table, view.release, sources, &raw),
    )?;
    if !taken.answer.is_plausible() {
        let differences: Vec<String> =
            taken.answer.differences.iter().map(|d| format!("{} by {} bytes", d.of, d.bytes)).collect();
        return Err(SourceError::Implausible(format!("sums differ: {}", differences.join(", "))).into());
    }
    let exact = taken.consistency == Consistency::Instant;
    if let Some(doubt) = contradiction::of_memstats(&taken.answer.memstats, exact) {
        return Err(
            SourceError::Implausible(format!("its statistics contradict themselves: {}", doubt.why)).into()
        );
    }
    Ok(taken)
}

/// Reads something until it is `exact`, or was tried often enough: each time in a stop of its own, or without one.
///
/// Reading takes about as long as `expected` in a stop; `finish` makes the answer of what was read, once the process runs on.
///
/// # Errors
/// Those of stopping, and of the last try to read.
pub fn take_with<R, T: Send>(
    process: &Process,
    wanted: Wanted,
    expected: Duration,
    exact: impl Fn(&T) -> bool + Sync,
    read: impl Fn(&dyn Memory) -> Result<R, SourceError> + Sync,
    finish: impl Fn(R) -> Result<T, SourceError> + Sync,
) -> Result<Taken<T>, TakeError> {
    let work = || {
        let memory = process.memory();
        memory.prepare_stop();
        let (mut times, mut stops) = (StopTimes::default(), 0);
        let mut tries = 0;
        loop {
            tries += 1;
            let result = match wanted {
                Wanted::Approximate => read(&memory),
                Wanted::Instant => {
                    let stopped = stop_all(process, HOLD)?;
                    stopped.allow(expected)?;
                    let until_stopped = stopped.begun().elapsed();
                    let threads = stopped.tids().count();
                    let in_stop = InStop::begin(&memory);
                    let result = read(&memory);
                    drop(in_stop);
                    times.total += stopped.thaw();
                    times.until_stopped += until_stopped;
                    times.threads = threads;
                    stops += 1;
                    result
                }
            };
            // What the stop missed is there now; and all else that another stop would miss.
            if memory.fetch_absent() && tries < TRIES {
                let _again_in_the_stop = read(&memory);
                continue;
            }
            let done = |answer, consistency| {
                Ok(Taken { answer, consistency, stopped: times, stops, cost: memory.cost() })
            };
            match (result.and_then(&finish), wanted) {
                (Ok(answer), Wanted::Instant) if exact(&answer) => return done(answer, Consistency::Instant),
                (Ok(answer), Wanted::Approximate) if exact(&answer) => {
                    return done(answer, Consistency::Approximate);
                }
                (Ok(answer), Wanted::Instant) if tries >= TRIES => {
                    return done(answer, Consistency::InstantInChange);
                }
                (Ok(answer), Wanted::Approximate) if tries >= TRIES => {
                    return done(answer, Consistency::Approximate);
                }
                (Err(error @ (SourceError::Missing(_) | SourceError::Layout(_))), _) => {
                    return Err(error.into());
                }
                (Err(error), _) if tries >= TRIES => return Err(error.into()),
                _ => std::thread::sleep(BETWEEN),
            }
        }
    };
    // The kernel lets go all that a thread traces when that thread ends, so nothing can stay stopped behind us.
    // Without a thread of their own they are let go at the end of the stop.
    threads::apart("stop", work)
}
