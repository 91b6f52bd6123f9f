//! Current settings of a runtime. The program may have changed them since its start (`runtime.GOMAXPROCS`,
//! `debug.SetGCPercent`, `debug.SetMemoryLimit`), so they may differ from its environment.

use symbols::addr::RuntimeAddr;

use super::view::View;
use crate::memory::Memory;

/// Verified settings; `None` for a setting that could not be read or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Maximum number of threads that run Go code at once (GOMAXPROCS).
    pub gomaxprocs: Option<u32>,
    /// Heap growth in percent until the next collection (GOGC); -1 is `off`.
    pub gogc: Option<i32>,
    /// Soft memory limit in bytes; `i64::MAX` means no limit. From Go 1.19.
    pub memory_limit: Option<i64>,
}

const WANTED: &[&str] = &["runtime.gomaxprocs", "runtime.allp", "runtime.gcController"];
/// Upper bound of GOMAXPROCS in any release.
const MAX_PROCS: u32 = 1 << 16;
/// Heap size in bytes at which the first collection begins with GOGC=100 (`runtime.defaultHeapMinimum`).
const HEAP_MINIMUM: u64 = 4 << 20;

/// Reads the settings. Each value is verified against a related value.
pub fn read(view: &View, memory: &dyn Memory) -> Settings {
    if view.confirm_layouts().is_err() {
        return Settings::default();
    }
    let found = view.locate(WANTED);
    let at = |name: &str| found.at(name);
    let (gogc, memory_limit) =
        at("runtime.gcController").and_then(|at| controller(view, memory, at)).unwrap_or_default();
    Settings {
        gomaxprocs: gomaxprocs(memory, at("runtime.gomaxprocs"), at("runtime.allp")),
        gogc,
        memory_limit,
    }
}

/// Reads GOMAXPROCS and verifies it: the runtime keeps as many Ps.
fn gomaxprocs(memory: &dyn Memory, at: Option<RuntimeAddr>, allp: Option<RuntimeAddr>) -> Option<u32> {
    let value = u32::from_le_bytes(array(memory, at?)?);
    let ps = memory.word(allp?.plus(8)).ok()?;
    ((1..=MAX_PROCS).contains(&value) && ps == u64::from(value)).then_some(value)
}

/// Reads GOGC and the memory limit. The minimum heap size verifies GOGC.
fn controller(view: &View, memory: &dyn Memory, at: RuntimeAddr) -> Option<(Option<i32>, Option<i64>)> {
    let field = |name| view.table.field("runtime.gcControllerState", name).map(|f| at.plus(f.offset));
    let gogc = i32::from_le_bytes(array(memory, field("gcPercent")?)?);
    let least = memory.word(field("heapMinimum")?).ok()?;
    // `setGCPercent` computes the minimum even for -1, converted to unsigned.
    let fits = gogc >= -1 && least == HEAP_MINIMUM.wrapping_mul(i64::from(gogc).cast_unsigned()) / 100;
    fits.then_some(())?;
    let limit = field("memoryLimit").and_then(|at| Some(i64::from_le_bytes(array(memory, at)?)));
    Some((Some(gogc), limit.filter(|&limit| limit >= 0)))
}

fn array<const N: usize>(memory: &dyn Memory, at: RuntimeAddr) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    memory.read(at, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RecordedMemory;

    #[test]
    fn gomaxprocs_is_the_number_of_ps() {
        let memory = RecordedMemory::default()
            .with(0x1000, 8u32.to_le_bytes().to_vec())
            .with(0x2000, [0u64.to_le_bytes(), 8u64.to_le_bytes()].concat())
            .with(0x3000, [0u64.to_le_bytes(), 9u64.to_le_bytes()].concat());
        let read = |allp| gomaxprocs(&memory, Some(RuntimeAddr(0x1000)), Some(RuntimeAddr(allp)));
        assert_eq!(read(0x2000), Some(8));
        assert_eq!(read(0x3000), None);
        assert_eq!(read(0x4000), None);
    }
}
