//! `runtime.MemStats` from outside: what `runtime.ReadMemStats` would return at an instant, without calling it.
//!
//! It is computed from the runtime's own counters by the runtime's own formulas. What `ReadMemStats` changes before it reads
//! them is computed too: see [`flush`](self). The runtime takes some sums for equal and dies where they are not; here
//! they are the proof that what was read is what it should be.

mod compute;
pub mod figures;
mod flush;
mod goal;
mod heap_stats;
mod sources;
mod take;

pub(crate) use compute::phase_name;
pub use compute::{Difference, Reading, compute};
pub use sources::{Raw, Sources};
pub use take::{Consistency, TakeError, Taken, Wanted, take, take_with};

use crate::memory::Memory;
use crate::runtime::source::SourceError;
use crate::runtime::view::View;

/// The statistics of a process that does not run, or that is known to change nothing meanwhile: of an instant.
///
/// # Errors
/// What is missing or does not fit together.
pub fn read(view: &View, sources: &Sources, memory: &dyn Memory) -> Result<Reading, SourceError> {
    let raw = sources.read(memory)?;
    compute(&view.table, view.release, sources, &raw)
}
