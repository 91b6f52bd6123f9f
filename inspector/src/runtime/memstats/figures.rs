//! `runtime.MemStats`, and what the runtime knows beyond it.

use serde::Serialize;

/// How many size classes `runtime.MemStats.BySize` has.
pub const BY_SIZE: usize = 61;
/// How many pauses the runtime remembers.
pub const PAUSES: usize = 256;

/// `runtime.MemStats` under its own field names. What is not known (an agent does not say all) is absent.
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
    /// Pointer look-ups, which no release counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookups: Option<u64>,
    /// Heap objects allocated since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mallocs: Option<u64>,
    /// Heap objects freed since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frees: Option<u64>,
    /// As `Alloc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_alloc: Option<u64>,
    /// Bytes of address space of the heap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_sys: Option<u64>,
    /// Bytes in unused spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_idle: Option<u64>,
    /// Bytes in spans that are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_inuse: Option<u64>,
    /// Bytes given back to the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_released: Option<u64>,
    /// Allocated heap objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_objects: Option<u64>,
    /// Bytes in spans for stacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_inuse: Option<u64>,
    /// Bytes obtained for stacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_sys: Option<u64>,
    /// Bytes of span structures that are used.
    #[serde(rename = "MSpanInuse", skip_serializing_if = "Option::is_none")]
    pub mspan_inuse: Option<u64>,
    /// Bytes obtained for span structures.
    #[serde(rename = "MSpanSys", skip_serializing_if = "Option::is_none")]
    pub mspan_sys: Option<u64>,
    /// Bytes of cache structures that are used.
    #[serde(rename = "MCacheInuse", skip_serializing_if = "Option::is_none")]
    pub mcache_inuse: Option<u64>,
    /// Bytes obtained for cache structures.
    #[serde(rename = "MCacheSys", skip_serializing_if = "Option::is_none")]
    pub mcache_sys: Option<u64>,
    /// Bytes of the tables of profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buck_hash_sys: Option<u64>,
    /// Bytes of structures of the garbage collector.
    #[serde(rename = "GCSys", skip_serializing_if = "Option::is_none")]
    pub gc_sys: Option<u64>,
    /// Bytes of other runtime structures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_sys: Option<u64>,
    /// The heap size at which the next collection has to be done.
    #[serde(rename = "NextGC", skip_serializing_if = "Option::is_none")]
    pub next_gc: Option<u64>,
    /// When the last collection ended, in nanoseconds since 1970; 0: there was none.
    #[serde(rename = "LastGC", skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<u64>,
    /// All pauses since the start, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_total_ns: Option<u64>,
    /// The last 256 pauses in nanoseconds, the newest at `(NumGC + 255) % 256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ns: Option<Vec<u64>>,
    /// When they ended, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_end: Option<Vec<u64>>,
    /// Collections since the start.
    #[serde(rename = "NumGC", skip_serializing_if = "Option::is_none")]
    pub num_gc: Option<u64>,
    /// Collections that the program asked for.
    #[serde(rename = "NumForcedGC", skip_serializing_if = "Option::is_none")]
    pub num_forced_gc: Option<u64>,
    /// The part of the CPU time that collections took since the start.
    #[serde(rename = "GCCPUFraction", skip_serializing_if = "Option::is_none")]
    pub gc_cpu_fraction: Option<f64>,
    /// Always true.
    #[serde(rename = "EnableGC", skip_serializing_if = "Option::is_none")]
    pub enable_gc: Option<bool>,
    /// Not used by Go.
    #[serde(rename = "DebugGC", skip_serializing_if = "Option::is_none")]
    pub debug_gc: Option<bool>,
    /// Allocations by size class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_size: Option<Vec<BySize>>,
}

impl MemStats {
    /// The last pause in nanoseconds and when it ended, of a complete answer.
    pub fn last_pause(&self) -> Option<(u64, u64)> {
        let at = usize::try_from((self.num_gc?.wrapping_add(255)) % PAUSES as u64).ok()?;
        Some((*self.pause_ns.as_ref()?.get(at)?, *self.pause_end.as_ref()?.get(at)?))
    }
}

/// A size class in `runtime.MemStats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BySize {
    /// Bytes of an object of this class at most.
    pub size: u64,
    /// Objects of the class that were allocated since the start.
    pub mallocs: u64,
    /// Of them, those that were freed.
    pub frees: u64,
}

/// What the runtime knows about its collector beyond `runtime.MemStats`. What a release does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Collector {
    /// GOGC; -1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gogc_percent: Option<i64>,
    /// The soft memory limit; absent where there is none, and before Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The heap size at which the collection that is under way or next is to be done; absent where there will be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_goal_bytes: Option<u64>,
    /// The heap size at which the next collection begins; absent as the goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_trigger_bytes: Option<u64>,
    /// Bytes that the last collection left or that were allocated since, counted span by span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_live_bytes: Option<u64>,
    /// Bytes that the last collection found alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_marked_bytes: Option<u64>,
    /// `off`, `mark` or `mark termination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// Collections that began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// Whether all that the last collection found dead is freed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep_done: Option<bool>,
    /// Bytes of the heap that a collection has to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_scan_bytes: Option<u64>,
    /// Bytes of stacks that the last collection looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_scan_bytes: Option<u64>,
    /// Bytes of global variables that a collection looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub globals_scan_bytes: Option<u64>,
    /// Time that goroutines helped in the collection that is under way or was last, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assist_ns: Option<u64>,
    /// CPU time by kind since the start, as of the end of the last collection; from Go 1.20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTimes>,
}

/// CPU time by kind in nanoseconds (`runtime.cpuStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CpuTimes {
    /// Goroutines that helped the collector.
    pub gc_assist_ns: i64,
    /// Workers that had a P to themselves, or a part of one.
    pub gc_dedicated_ns: i64,
    /// Workers on Ps that had nothing else to do.
    pub gc_idle_ns: i64,
    /// The world stood still, on all Ps.
    pub gc_pause_ns: i64,
    /// All of these.
    pub gc_total_ns: i64,
    /// Goroutines that gave memory back to the system.
    pub scavenge_assist_ns: i64,
    /// The runtime's own goroutine that does so.
    pub scavenge_background_ns: i64,
    /// Both.
    pub scavenge_total_ns: i64,
    /// Ps had nothing to do.
    pub idle_ns: i64,
    /// The program's own code.
    pub user_ns: i64,
    /// All: GOMAXPROCS times the time.
    pub total_ns: i64,
}
