//! Figures of `runtime.MemStats`, and collector state beyond it.

use serde::Serialize;

/// Number of size classes in `runtime.MemStats.BySize`.
pub const BY_SIZE: usize = 61;
/// Number of pauses that the runtime remembers.
pub const PAUSES: usize = 256;

/// Fields of `runtime.MemStats` under their Go names. Unknown fields are absent; an agent does not report
/// all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemStats {
    /// Bytes of allocated heap objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc: Option<u64>,
    /// Bytes allocated for heap objects since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_alloc: Option<u64>,
    /// Bytes obtained from the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sys: Option<u64>,
    /// Number of pointer look-ups; no release counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookups: Option<u64>,
    /// Number of heap objects allocated since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mallocs: Option<u64>,
    /// Number of heap objects freed since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frees: Option<u64>,
    /// Same value as `Alloc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_alloc: Option<u64>,
    /// Bytes of address space of the heap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_sys: Option<u64>,
    /// Bytes in unused spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_idle: Option<u64>,
    /// Bytes in spans in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_inuse: Option<u64>,
    /// Bytes returned to the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_released: Option<u64>,
    /// Number of allocated heap objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_objects: Option<u64>,
    /// Bytes in spans for stacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_inuse: Option<u64>,
    /// Bytes obtained for stacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_sys: Option<u64>,
    /// Bytes of span structures in use.
    #[serde(rename = "MSpanInuse", skip_serializing_if = "Option::is_none")]
    pub mspan_inuse: Option<u64>,
    /// Bytes obtained for span structures.
    #[serde(rename = "MSpanSys", skip_serializing_if = "Option::is_none")]
    pub mspan_sys: Option<u64>,
    /// Bytes of cache structures in use.
    #[serde(rename = "MCacheInuse", skip_serializing_if = "Option::is_none")]
    pub mcache_inuse: Option<u64>,
    /// Bytes obtained for cache structures.
    #[serde(rename = "MCacheSys", skip_serializing_if = "Option::is_none")]
    pub mcache_sys: Option<u64>,
    /// Bytes of the profiling tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buck_hash_sys: Option<u64>,
    /// Bytes of garbage collector structures.
    #[serde(rename = "GCSys", skip_serializing_if = "Option::is_none")]
    pub gc_sys: Option<u64>,
    /// Bytes of other runtime structures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_sys: Option<u64>,
    /// Heap size in bytes at which the next collection has to be complete.
    #[serde(rename = "NextGC", skip_serializing_if = "Option::is_none")]
    pub next_gc: Option<u64>,
    /// End of the last collection, in nanoseconds since 1970; 0 if there was none.
    #[serde(rename = "LastGC", skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<u64>,
    /// Total duration of all pauses since the start, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_total_ns: Option<u64>,
    /// Durations of the last 256 pauses in nanoseconds, newest at `(NumGC + 255) % 256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ns: Option<Vec<u64>>,
    /// End times of the last 256 pauses, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_end: Option<Vec<u64>>,
    /// Number of collections since the start.
    #[serde(rename = "NumGC", skip_serializing_if = "Option::is_none")]
    pub num_gc: Option<u64>,
    /// Number of collections requested by the program.
    #[serde(rename = "NumForcedGC", skip_serializing_if = "Option::is_none")]
    pub num_forced_gc: Option<u64>,
    /// Fraction of CPU time spent in collections since the start.
    #[serde(rename = "GCCPUFraction", skip_serializing_if = "Option::is_none")]
    pub gc_cpu_fraction: Option<f64>,
    /// Constant true.
    #[serde(rename = "EnableGC", skip_serializing_if = "Option::is_none")]
    pub enable_gc: Option<bool>,
    /// Unused by Go.
    #[serde(rename = "DebugGC", skip_serializing_if = "Option::is_none")]
    pub debug_gc: Option<bool>,
    /// Allocations by size class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_size: Option<Vec<BySize>>,
}

impl MemStats {
    /// Returns the duration of the last pause and its end time, both in nanoseconds. `None` if the needed
    /// fields are absent.
    pub fn last_pause(&self) -> Option<(u64, u64)> {
        let at = usize::try_from((self.num_gc?.wrapping_add(255)) % PAUSES as u64).ok()?;
        Some((*self.pause_ns.as_ref()?.get(at)?, *self.pause_end.as_ref()?.get(at)?))
    }
}

/// Size class in `runtime.MemStats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BySize {
    /// Maximum size of an object of this class, in bytes.
    pub size: u64,
    /// Number of objects of the class allocated since the start.
    pub mallocs: u64,
    /// Number of objects of the class freed since the start.
    pub frees: u64,
}

/// Collector state beyond `runtime.MemStats`. Fields that a release lacks are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Collector {
    /// GOGC in percent; -1 if off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gogc_percent: Option<i64>,
    /// Soft memory limit in bytes; absent if there is none, and before Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Heap size in bytes at which the current or next collection has to be complete; absent if no
    /// collection will come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_goal_bytes: Option<u64>,
    /// Heap size in bytes at which the next collection begins; absent if no collection will come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_trigger_bytes: Option<u64>,
    /// Bytes that the last collection left, plus bytes allocated since, counted by whole spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_live_bytes: Option<u64>,
    /// Bytes that the last collection found alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_marked_bytes: Option<u64>,
    /// Phase of the collector: `off`, `mark` or `mark termination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// Number of collections begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// True if everything that the last collection found dead is freed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep_done: Option<bool>,
    /// Bytes of the heap that a collection has to scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_scan_bytes: Option<u64>,
    /// Bytes of stacks scanned by the last collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_scan_bytes: Option<u64>,
    /// Bytes of global variables that a collection scans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub globals_scan_bytes: Option<u64>,
    /// Time of mark assists by goroutines in the current or last collection, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assist_ns: Option<u64>,
    /// CPU time by kind since the start, as of the end of the last collection; from Go 1.20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTimes>,
}

/// CPU time by kind, in nanoseconds (`runtime.cpuStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CpuTimes {
    /// Assists of the collector by goroutines.
    pub gc_assist_ns: i64,
    /// Workers with a P of their own, or with a fraction of one.
    pub gc_dedicated_ns: i64,
    /// Workers on otherwise idle Ps.
    pub gc_idle_ns: i64,
    /// Stop-the-world pauses, on all Ps.
    pub gc_pause_ns: i64,
    /// Sum of all collector times.
    pub gc_total_ns: i64,
    /// Memory returned to the system by goroutines that allocate.
    pub scavenge_assist_ns: i64,
    /// Memory returned to the system by the runtime's background scavenger.
    pub scavenge_background_ns: i64,
    /// Sum of both scavenger times.
    pub scavenge_total_ns: i64,
    /// Idle Ps.
    pub idle_ns: i64,
    /// Code of the program.
    pub user_ns: i64,
    /// Total: GOMAXPROCS times elapsed time.
    pub total_ns: i64,
}
