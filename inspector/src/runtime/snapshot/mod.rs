//! All goroutines of a process with their frames, of one instant where that is wanted and possible.
//!
//! Parked goroutines are read while the target runs; what changed until it is stopped is read again then. A
//! reading counts only if the goroutine's epoch was the same before and after it.

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

/// With fewer goroutines, a second thread takes longer to start or wake than what it saves.
const WORTH_A_SECOND: usize = 3000;

/// How often all is read anew since pages were not in memory in the stop: they come with the first, and can go again.
const FETCHES: usize = 4;

/// How a snapshot is to be taken.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// Whether the target is stopped, and for how long at most.
    pub pause: Pause,
    /// Include the runtime's own goroutines.
    pub system: bool,
    /// Only this goroutine.
    pub goid: Option<u64>,
}

/// Whether the target is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// All threads, at most about so long; where there are so many that this would take longer, one by one.
    AtMost(Duration),
    /// Not all at once: threads that run goroutines one by one, for their registers.
    No,
}

/// What is known of a goroutine's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frames {
    /// Not asked for.
    Unwanted,
    /// These.
    Walked(Stack),
    /// None, for this reason.
    Unavailable(NoStart),
}

/// A g of `allgs`.
#[derive(Debug, Clone)]
pub struct Slot {
    /// What it holds.
    pub g: Goroutine,
    /// Its frames.
    pub frames: Frames,
    /// Proven to be of one piece, and, in a paused snapshot, true at its instant.
    pub confirmed: bool,
    /// What lies outside of the g: labels, ancestors, bubble.
    pub details: Option<Box<Details>>,
}

/// How a snapshot was made consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Consistency {
    /// All goroutines are of one instant: each was read while the target was stopped, or before it and was the same in
    /// the stop or after it.
    Instant,
    /// Goroutines are of the instant of the stop where they were the same before and after it; those that moved are
    /// unconfirmed.
    InstantVerifiedAfterwards,
    /// Each goroutine is true by itself; there is no common instant.
    EachByItself,
}

/// See the module.
#[derive(Debug)]
pub struct Snapshot {
    /// In the order of `allgs`.
    pub slots: Vec<Slot>,
    /// The stacks' program counters.
    pub shapes: Shapes,
    /// All ms.
    pub ms: Vec<M>,
    /// How it holds together.
    pub consistency: Consistency,
    /// Its instant on the target's monotonic clock, in nanoseconds.
    pub taken_at: i64,
    /// Whether the finalizer goroutine was in user code.
    pub finalizer_runs_user_code: bool,
    /// How long all threads were stopped; with [`Pause::No`] the longest that one was.
    pub stopped: Duration,
    /// Of that, until all had stopped.
    pub until_stopped: Duration,
    /// How many threads were stopped.
    pub threads_stopped: usize,
    /// Its threads were stopped one by one though all at once were asked for.
    pub too_many: Option<TooMany>,
    /// What reading cost.
    pub cost: ReadCost,
}

/// Why threads were not stopped all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// So many there are.
    pub threads: usize,
    /// How long a stop of all would take, as some of them showed.
    pub expected: Duration,
}

/// Why no snapshot could be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The list of goroutines.
    #[error(transparent)]
    List(#[from] GListError),
    /// Its threads could not be stopped.
    #[error("its threads could not be stopped: {0}")]
    Stop(#[from] StopError),
    /// What was read cannot be true.
    #[error("what was read of its goroutines contradicts itself: {0}")]
    Contradiction(String),
}

/// Takes a snapshot of the goroutines of a runtime of `process`.
///
/// # Errors
/// Where nothing can be said. Single goroutines that could not be read are in the snapshot, marked.
pub fn take(process: &Process, view: &View, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let snapshot = take_once(process, view, options)?;
        // One goroutine contradicts nothing.
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

/// How often goroutines that were read while the process ran on are read again where they contradict themselves.
const TRIES: u32 = 3;

fn take_once(process: &Process, view: &View, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    // The kernel lets go all that a thread traces when that thread ends, so nothing can stay stopped behind us.
    // Without a thread of their own they are let go at the end of the stop.
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
            // What the stop missed is there now.
            if memory.fetch_absent() && tries < FETCHES {
                continue;
            }
            let mut snapshot = taken?;
            snapshot.cost = memory.cost();
            return Ok(snapshot);
        }
    })
}

/// CLOCK_MONOTONIC as the target sees it, in nanoseconds.
fn target_clock(view: &View) -> i64 {
    clock::monotonic().saturating_add(view.monotonic_offset)
}
