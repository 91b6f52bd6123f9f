//! The runtime's own profiles: the tables of sampled allocations, of blocking and of contended locks, read from a running
//! process without a pause (`runtime/mprof.go`; Go 1.18–1.27), and made into the profiles that `runtime/pprof` of that
//! process would write at the same instant.

mod contention;
mod list;
mod memory;
mod sampling;
mod shape;
mod ticks;

use symbols::addr::RuntimeAddr;

use super::locate::Located;
use super::record::RecordError;
use super::view::View;
use crate::memory::MemoryError;

pub use contention::{
    Contention, ContentionBucket, ContentionBuckets, block_profile, mutex_profile, read_block, read_mutex,
};
pub use memory::{Counts, MemoryBucket, MemoryBuckets, allocs_profile, heap_profile, read_memory};
pub use sampling::{Profilers, Sampling};
pub use ticks::{TicksPerSecond, ticks_per_second};

/// The variables that are needed, in the releases that have them.
pub const WANTED: &[&str] = &[
    "runtime.mbuckets",
    "runtime.bbuckets",
    "runtime.xbuckets",
    "runtime.mProf",
    "runtime.mProfCycle",
    "runtime.MemProfileRate",
    "runtime.disableMemoryProfiling",
    "runtime.blockprofilerate",
    "runtime.mutexprofilerate",
    "runtime.ticks",
    "runtime.debug",
];

/// Why a table could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketsError {
    /// A variable that it takes was not found, or not beyond doubt.
    #[error("{0} was not found in this program")]
    NotFound(&'static str),
    /// What is there is no such table.
    #[error("the list at {list} is not one of profile buckets: {why}")]
    Damaged {
        /// The variable that holds its head.
        list: RuntimeAddr,
        /// What is wrong with it.
        why: String,
    },
    /// More than any program has.
    #[error("the list at {0} has more profile buckets than are read")]
    TooMany(RuntimeAddr),
    /// A struct of the runtime.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Where a process has its profiles.
#[derive(Debug, Clone)]
pub struct Tables<'v> {
    view: &'v View,
    located: Located,
}

impl<'v> Tables<'v> {
    /// Finds them. Costs some milliseconds in a stripped program; what is not found is missed when it is needed.
    pub fn locate(view: &'v View) -> Self {
        Tables { view, located: view.locate(WANTED) }
    }

    /// The runtime that they are of.
    pub fn view(&self) -> &'v View {
        self.view
    }

    /// Where its variables are.
    pub fn located(&self) -> &Located {
        &self.located
    }

    fn at(&self, name: &'static str) -> Result<RuntimeAddr, BucketsError> {
        self.located.at(name).ok_or(BucketsError::NotFound(name))
    }
}
