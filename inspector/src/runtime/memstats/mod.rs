//! `runtime.MemStats` from outside: the result of `runtime.ReadMemStats` at an instant, without a call of
//! it.
//!
//! The runtime's own counters and formulas give the result. Changes that `ReadMemStats` makes before it
//! reads them are computed too: see [`flush`](self). The runtime takes some sums as equal and aborts if they
//! differ; here they prove that the right values were read.

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

/// Reads the statistics of a process that does not run, or that changes nothing during the reading. They are
/// of one instant.
///
/// # Errors
/// Returns a [`SourceError`] if a value is missing or the values contradict each other.
pub fn read(view: &View, sources: &Sources, memory: &dyn Memory) -> Result<Reading, SourceError> {
    let raw = sources.read(memory)?;
    compute(&view.table, view.release, sources, &raw)
}
