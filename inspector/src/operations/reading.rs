//! Table of the runtime, read at one time, from which a profile is made.

use super::profile::ProfileKind;
use crate::memory::Memory;
use crate::profile::{Mapping, Profile};
use crate::runtime::buckets::{
    BucketsError, ContentionBuckets, MemoryBuckets, Tables, TicksPerSecond, allocs_profile, block_profile,
    heap_profile, mutex_profile, read_block, read_memory, read_mutex,
};

/// Table of memory or of contention, read at one time.
pub(crate) enum Reading {
    Memory(MemoryBuckets),
    Contention(ContentionBuckets),
}

impl Reading {
    /// Reads the table that the runtime keeps for a profile.
    pub(crate) fn take(
        kind: ProfileKind,
        tables: &Tables<'_>,
        memory: &dyn Memory,
    ) -> Result<Self, BucketsError> {
        Ok(match kind {
            ProfileKind::Block => Reading::Contention(read_block(tables, memory)?),
            ProfileKind::Mutex => Reading::Contention(read_mutex(tables, memory)?),
            _ => Reading::Memory(read_memory(tables, memory)?),
        })
    }

    /// Sets the rate that converts times to `ticks`, if given. Returns the rate in use; `None` if there is
    /// nothing to convert, as no rate was measured then.
    pub(crate) fn convert(&mut self, ticks: Option<TicksPerSecond>) -> Option<TicksPerSecond> {
        let Reading::Contention(found) = self else { return None };
        found.ticks = ticks.unwrap_or(found.ticks);
        (!found.buckets.is_empty()).then_some(found.ticks)
    }

    /// Sets the sampling rate, if the profiler is off again and the table no longer has the rate.
    pub(crate) fn was_sampled_with(&mut self, rate: u64) {
        match self {
            Reading::Memory(found) if found.rate == 0 => found.rate = i64::try_from(rate).unwrap_or(i64::MAX),
            Reading::Contention(found) if found.fraction == Some(0) => found.fraction = Some(rate),
            Reading::Memory(_) | Reading::Contention(_) => {}
        }
    }

    /// Returns the difference to an earlier reading of the same table.
    pub(crate) fn since(&self, earlier: &Reading) -> Reading {
        match (self, earlier) {
            (Reading::Memory(now), Reading::Memory(then)) => Reading::Memory(now.since(then)),
            (Reading::Contention(now), Reading::Contention(then)) => Reading::Contention(now.since(then)),
            // Both readings are of one kind.
            (Reading::Memory(now), _) => Reading::Memory(now.clone()),
            (Reading::Contention(now), _) => Reading::Contention(now.clone()),
        }
    }

    /// Makes the profile from the reading.
    pub(crate) fn profile(&self, kind: ProfileKind, tables: &Tables<'_>, mappings: Vec<Mapping>) -> Profile {
        match self {
            Reading::Memory(memory) if kind == ProfileKind::Allocs => {
                allocs_profile(tables, memory, mappings)
            }
            Reading::Memory(memory) => heap_profile(tables, memory, mappings),
            Reading::Contention(events) if kind == ProfileKind::Block => {
                block_profile(tables, events, mappings)
            }
            Reading::Contention(events) => mutex_profile(tables, events, mappings),
        }
    }
}
