//! Reading the statistics of a running process, in a short stop of all threads or without one.

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

/// Requested consistency, which decides whether the target is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Stop of all threads for the duration of the reading.
    Instant,
    /// No stop.
    Approximate,
}

/// Consistency of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Consistency {
    /// All numbers are of one instant.
    Instant,
    /// All numbers are of one instant at which a thread was changing some of them. They may differ slightly
    /// from each other.
    InstantInChange,
    /// Numbers were read one after another while the process ran on.
    Approximate,
}

/// Statistics, and the cost of reading them.
#[derive(Debug)]
pub struct Taken<T> {
    /// Result of the reading.
    pub answer: T,
    /// Consistency of the result.
    pub consistency: Consistency,
    /// Total duration of all stops of all threads.
    pub stopped: StopTimes,
    /// Number of stops.
    pub stops: u32,
    /// Cost of the reading: bytes read and system calls.
    pub cost: ReadCost,
}

/// Reason why statistics are unavailable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// A source is missing, unreadable or implausible.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Threads of the process could not be stopped.
    #[error("its threads could not be stopped: {0}")]
    Stop(#[from] StopError),
}

/// Maximum number of attempts. A stop may fall into the middle of a change; that is detected, and the
/// reading is repeated.
const TRIES: u32 = 8;
/// Generous upper bound of the duration of a reading.
const READING: Duration = HOLD;
/// Delay between attempts. Changes take microseconds, unless the thread that makes one has lost its CPU.
const BETWEEN: Duration = Duration::from_millis(2);

/// Reads the statistics of a runtime of `process`.
///
/// # Errors
/// Returns a [`TakeError`] if the statistics are unavailable or not credible.
pub fn take(
    process: &Process,
    view: &View,
    sources: &Sources,
    wanted: Wanted,
) -> Result<Taken<Reading>, TakeError> {
    let exact = |reading: &Reading| match wanted {
        Wanted::Instant => reading.is_exact(),
        // Sums differ by the changes between two reads.
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

/// Reads until the result is `exact` or the attempts are exhausted. Each attempt runs in a stop of its own,
/// or without a stop.
///
/// A reading in a stop takes about `expected`. `finish` computes the answer from the read data after the
/// process runs on.
///
/// # Errors
/// Returns a [`TakeError`] if stopping fails, or if the last attempt to read fails.
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
            // Absent pages are fetched now, together with all others that another stop would miss.
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
    // The kernel releases all threads traced by a thread when that thread ends, so nothing can stay stopped.
    // Without a separate thread the release comes at the end of the stop.
    threads::apart("stop", work)
}
