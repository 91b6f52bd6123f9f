//! Profiles kept by the Go runtime: sampled allocations, blocking and contended locks (`runtime/mprof.go`;
//! Go 1.18–1.27). The tables are read from a running process without a pause. The result equals the profiles
//! that `runtime/pprof` of that process would write at the same instant.

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

/// Variables needed for the profiles, each in the releases that have it.
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

/// Reason why a profile table could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketsError {
    /// A required variable was not found, or not with certainty.
    #[error("{0} was not found in this program")]
    NotFound(&'static str),
    /// Memory at the expected address holds no profile table.
    #[error("the list at {list} is not one of profile buckets: {why}")]
    Damaged {
        /// Address of the variable that holds the head of the list.
        list: RuntimeAddr,
        /// Description of the damage.
        why: String,
    },
    /// The list has more buckets than any program has.
    #[error("the list at {0} has more profile buckets than are read")]
    TooMany(RuntimeAddr),
    /// A runtime struct could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Locations of the profile tables of a process.
#[derive(Debug, Clone)]
pub struct Tables<'v> {
    view: &'v View,
    located: Located,
}

impl<'v> Tables<'v> {
    /// Locates the tables. Takes some milliseconds in a stripped program. A missing variable becomes an
    /// error only when it is needed.
    pub fn locate(view: &'v View) -> Self {
        Tables { view, located: view.locate(WANTED) }
    }

    /// Runtime that owns the tables.
    pub fn view(&self) -> &'v View {
        self.view
    }

    /// Addresses of the variables of the tables.
    pub fn located(&self) -> &Located {
        &self.located
    }

    fn at(&self, name: &'static str) -> Result<RuntimeAddr, BucketsError> {
        self.located.at(name).ok_or(BucketsError::NotFound(name))
    }
}
