//! Snapshot of all goroutines of a process with their frames, of one instant if requested and possible.
//!
//! Parked goroutines are read while the target runs; changed ones are read again in the stop. A reading
//! counts only if the goroutine's epoch was the same before and after it.

mod close;
mod copier;
pub mod details;
mod forecast;
pub mod glist;
mod paused;
mod scan;
mod second;
mod settle;
pub mod stacks;
mod threads;
mod unpaused;

use std::time::Duration;

pub use details::Details;
use glist::GListError;
use paused::Paused;
pub(crate) use paused::stop_all;
use stacks::{Shapes, Stack};

use super::contradiction::Goroutines;
use super::goroutine::{Goroutine, M};
use super::running::NoStart;
use super::view::View;
use crate::clock;
use crate::memory::{Memory as _, MemoryError, ReadCost};
use crate::process::Process;
use crate::stop::StopError;
use crate::threads::apart;

/// Minimum number of goroutines for a second thread. With fewer, starting or waking a thread takes longer
/// than it saves.
const WORTH_A_SECOND: usize = 3000;

/// Maximum number of repetitions because pages were absent from memory in the stop. The first repetition
/// fetches them, but they may be evicted again.
const FETCHES: usize = 4;

/// Options of a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// Permission to stop the target, and maximum duration.
    pub pause: Pause,
    /// True to include system goroutines.
    pub system: bool,
    /// Id of the only goroutine to include.
    pub goid: Option<u64>,
}

/// Permission to stop the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Stop of all threads with this approximate maximum duration. If there are too many threads for it,
    /// they are stopped one by one.
    AtMost(Duration),
    /// No stop of all threads at once. Threads that run goroutines are stopped one by one, for their
    /// registers.
    No,
}

/// Frames of a goroutine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frames {
    /// Frames were not requested.
    Unwanted,
    /// Frames from unwinding the stack.
    Walked(Stack),
    /// Frames are unavailable, for this reason.
    Unavailable(NoStart),
}

/// Entry of `allgs`.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Contents of the g.
    pub g: Goroutine,
    /// Frames of the goroutine.
    pub frames: Frames,
    /// True if g and frames are proven consistent and, in a paused snapshot, true at its instant.
    pub confirmed: bool,
    /// Data outside of the g: labels, ancestors, bubble.
    pub details: Option<Box<Details>>,
}

/// Consistency of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Consistency {
    /// All goroutines are of one instant. Each was read in the stop, or was read before it and was unchanged
    /// in the stop or after it.
    Instant,
    /// Goroutines that were the same before and after the stop are of its instant. Goroutines that moved are
    /// unconfirmed.
    InstantVerifiedAfterwards,
    /// Each goroutine is consistent by itself; there is no common instant.
    EachByItself,
}

/// Snapshot of all goroutines of a process with their frames.
#[derive(Debug)]
pub struct Snapshot {
    /// Entries in the order of `allgs`.
    pub slots: Vec<Slot>,
    /// Program counters of the stacks.
    pub shapes: Shapes,
    /// All ms.
    pub ms: Vec<M>,
    /// Consistency of the snapshot.
    pub consistency: Consistency,
    /// Instant of the snapshot on the target's monotonic clock, in nanoseconds.
    pub taken_at: i64,
    /// True if the finalizer goroutine was in user code.
    pub finalizer_runs_user_code: bool,
    /// Duration of the stop of all threads; with [`Pause::No`] the longest stop of a single thread.
    pub stopped: Duration,
    /// Part of the stop until all threads had stopped.
    pub until_stopped: Duration,
    /// Number of threads that were stopped.
    pub threads_stopped: usize,
    /// Set if threads were stopped one by one although a stop of all threads was requested.
    pub too_many: Option<TooMany>,
    /// Cost of the reading: bytes read and system calls.
    pub cost: ReadCost,
}

/// Reason why threads were not stopped all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Number of threads.
    pub threads: usize,
    /// Expected duration of a stop of all threads, extrapolated from some of them.
    pub expected: Duration,
}

/// Reason why no snapshot could be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The list of goroutines cannot be read.
    #[error(transparent)]
    List(#[from] GListError),
    /// Threads of the process could not be stopped.
    #[error("its threads could not be stopped: {0}")]
    Stop(#[from] StopError),
    /// The values read cannot be true together.
    #[error("what was read of its goroutines contradicts itself: {0}")]
    Contradiction(String),
}

/// Takes a snapshot of the goroutines of a runtime of `process`.
///
/// # Errors
/// Returns a [`SnapshotError`] if the snapshot as a whole fails. Single unreadable goroutines are in the
/// snapshot, marked.
pub fn take(process: &Process, view: &View, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let snapshot = take_once(process, view, options)?;
        // A single goroutine cannot contradict others.
        let doubt = if options.goid.is_some() {
            None
        } else {
            Goroutines::count(view, &snapshot).contradiction(snapshot.consistency)
        };
        match doubt {
            None => return Ok(snapshot),
            Some(why) if snapshot.consistency == Consistency::Instant || tries >= TRIES => {
                return Err(SnapshotError::Contradiction(why));
            }
            Some(_) => {}
        }
    }
}

/// Maximum number of readings in a running process if goroutines contradict each other.
const TRIES: u32 = 3;

fn take_once(process: &Process, view: &View, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    // The kernel releases all threads traced by a thread when that thread ends, so nothing can stay stopped.
    // Without a separate thread the release comes at the end of the stop.
    apart("stop", || {
        let memory = process.memory();
        memory.prepare_stop();
        let copier = || copier::Copier::new(process, view, &memory, options);
        let take = || -> Result<Snapshot, SnapshotError> {
            match options.pause {
                Pause::AtMost(limit) => match paused::take(copier()?, limit)? {
                    Paused::Taken(snapshot) => Ok(snapshot),
                    Paused::TooMany(too_many, stopped) => {
                        let snapshot = unpaused::take(copier()?)?;
                        let stopped = snapshot.stopped.max(stopped);
                        Ok(Snapshot { too_many: Some(too_many), stopped, ..snapshot })
                    }
                },
                Pause::No => unpaused::take(copier()?),
            }
        };
        let mut tries = 0;
        loop {
            let taken = take();
            tries += 1;
            // Pages that were absent in the stop are in memory now.
            if memory.fetch_absent() && tries < FETCHES {
                continue;
            }
            let mut snapshot = taken?;
            snapshot.cost = memory.cost();
            return Ok(snapshot);
        }
    })
}

/// Returns the target's CLOCK_MONOTONIC in nanoseconds.
fn target_clock(view: &View) -> i64 {
    clock::monotonic().saturating_add(view.monotonic_offset)
}
