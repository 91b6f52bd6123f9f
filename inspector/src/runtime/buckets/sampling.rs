//! Sampling state of the runtime's profilers, and their rates.

use super::Tables;
use crate::memory::Memory;

/// Sampling state of one profiler of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// The profiler takes samples. The rate has the unit of the runtime: bytes per sample
    /// (`MemProfileRate`), ticks of the processor per sample (`blockprofilerate`), or events per sample
    /// (`mutexprofilerate`).
    On {
        /// Sampling rate, at least 1.
        rate: u64,
    },
    /// The profiler is off; existing samples are from earlier.
    Off,
    /// The profiler is off because the linker found no use of the profile in the program
    /// (`disableMemoryProfiling`).
    NotLinked,
    /// The variable was not found, or holds an impossible value.
    Unknown,
}

/// Sampling states of all profilers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profilers {
    /// Allocation profiler (`heap`, `allocs`).
    pub memory: Sampling,
    /// Profiler of blocking on channels and locks.
    pub block: Sampling,
    /// Profiler of contended locks.
    pub mutex: Sampling,
}

/// Maximum plausible rate. A larger one takes no samples: it exceeds the bytes of any machine and the ticks
/// in the life of a process.
const MAX_RATE: i64 = 1 << 56;

impl Profilers {
    /// Reads the sampling states from a process.
    pub fn read(tables: &Tables<'_>, memory: &dyn Memory) -> Self {
        let mut profilers = Profilers {
            memory: rate(tables, memory, "runtime.MemProfileRate"),
            block: rate(tables, memory, "runtime.blockprofilerate"),
            mutex: rate(tables, memory, "runtime.mutexprofilerate"),
        };
        if profilers.memory == Sampling::Off && not_linked(tables, memory) {
            profilers.memory = Sampling::NotLinked;
        }
        profilers
    }
}

fn rate(tables: &Tables<'_>, memory: &dyn Memory, name: &str) -> Sampling {
    let value = tables.located.at(name).and_then(|at| memory.word(at).ok());
    match value.map(u64::cast_signed) {
        Some(rate @ 1..=MAX_RATE) => Sampling::On { rate: rate.unsigned_abs() },
        // Programs also set -1 to switch a profiler off.
        Some(-1 | 0) => Sampling::Off,
        _ => Sampling::Unknown,
    }
}

/// Returns true if the linker disabled memory profiling. Reads the linker's flag. Without the flag, applies
/// the linker's rule: the program lacks the function that reads the profile (`cmd/link/internal/ld`).
fn not_linked(tables: &Tables<'_>, memory: &dyn Memory) -> bool {
    let view = tables.view;
    let mut flag = [0];
    match tables.located.at("runtime.disableMemoryProfiling") {
        Some(at) => memory.read(at, &mut flag).is_ok() && flag == [1],
        None => view.modules.function(view.release.memory_profile_reader()).is_none(),
    }
}
