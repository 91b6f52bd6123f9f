//! A table of the runtime as it was read at one time, of which a profile is made.

use super::profile::ProfileKind;
use crate::memory::Memory;
use crate::profile::{Mapping, Profile};
use crate::runtime::buckets::{
    BucketsError, ContentionBuckets, MemoryBuckets, Tables, TicksPerSecond, allocs_profile, block_profile,
    heap_profile, mutex_profile, read_block, read_memory, read_mutex,
};

/// See the module.
pub(crate) enum Reading {
    Memory(MemoryBuckets),
    Contention(ContentionBuckets),
}

impl Reading {
    /// Reads the table of a profile that the runtime keeps one for.
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

    /// Has its times converted by `ticks`, where those are given, and says by what they are. Where there is nothing to
    /// convert, nothing was measured for it.
    pub(crate) fn convert(&mut self, ticks: Option<TicksPerSecond>) -> Option<TicksPerSecond> {
        let Reading::Contention(found) = self else { return None };
        found.ticks = ticks.unwrap_or(found.ticks);
        (!found.buckets.is_empty()).then_some(found.ticks)
    }

    /// Says with what rate was sampled, where the profiler is off again and the table no longer says it.
    pub(crate) fn was_sampled_with(&mut self, rate: u64) {
        match self {
            Reading::Memory(found) if found.rate == 0 => found.rate = i64::try_from(rate).unwrap_or(i64::MAX),
            Reading::Contention(found) if found.fraction == Some(0) => found.fraction = Some(rate),
            Reading::Memory(_) | Reading::Contention(_) => {}
        }
    }

    /// What was counted since an earlier reading of the same table.
    pub(crate) fn since(&self, earlier: &Reading) -> Reading {
        match (self, earlier) {
            (Reading::Memory(now), Reading::Memory(then)) => Reading::Memory(now.since(then)),
            (Reading::Contention(now), Reading::Contention(then)) => Reading::Contention(now.since(then)),
            // Both are of one kind.
            (Reading::Memory(now), _) => Reading::Memory(now.clone()),
            (Reading::Contention(now), _) => Reading::Contention(now.clone()),
        }
    }

    /// The profile of it.
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
