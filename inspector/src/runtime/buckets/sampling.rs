//! Whether a process samples at all, and how often.

use super::Tables;
use crate::memory::Memory;

/// Whether a profiler of the runtime takes samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// It does. The rate is as the runtime has it: a sample each so many bytes (`MemProfileRate`), of each event that
    /// takes so many ticks of the processor (`blockprofilerate`), of one in so many events (`mutexprofilerate`).
    On {
        /// At least 1.
        rate: u64,
    },
    /// It does not; what there is is from before.
    Off,
    /// It does not because the linker found no use of the profile in the program (`disableMemoryProfiling`).
    NotLinked,
    /// The variable was not found, or holds what it cannot hold.
    Unknown,
}

/// What each of the profilers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profilers {
    /// Of allocations (`heap`, `allocs`).
    pub memory: Sampling,
    /// Of blocking on channels and locks.
    pub block: Sampling,
    /// Of contended locks.
    pub mutex: Sampling,
}

/// A larger rate takes no samples: more bytes than a machine has, more ticks than a process lives.
const MAX_RATE: i64 = 1 << 56;

impl Profilers {
    /// Asks a process.
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
        // -1 too is set to switch one off.
        Some(-1 | 0) => Sampling::Off,
        _ => Sampling::Unknown,
    }
}

/// The linker's flag; where it is not found, what the linker goes by: whether the program has the function that reads the
/// profile (`cmd/link/internal/ld`).
fn not_linked(tables: &Tables<'_>, memory: &dyn Memory) -> bool {
    let view = tables.view;
    let mut flag = [0];
    match tables.located.at("runtime.disableMemoryProfiling") {
        Some(at) => memory.read(at, &mut flag).is_ok() && flag == [1],
        None => view.modules.function(view.release.memory_profile_reader()).is_none(),
    }
}
