//! Computation of statistics from raw bytes, as in `runtime.readmemstats_m` (`runtime/mstats.go`; Go 1.18:
//! `updatememstats`).

use symbols::layout::Table;

use super::figures::{BY_SIZE, BySize, Collector, CpuTimes, MemStats};
use super::goal::Pacer;
use super::heap_stats::HeapStats;
use super::sources::{Raw, Sources};
use crate::runtime::record::{Record, RecordError};
use crate::runtime::release::GoRelease;
use crate::runtime::source::SourceError;
use crate::runtime::spans::size_of_class;

/// Statistics and their consistency.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Result that `runtime.ReadMemStats` would have returned.
    pub memstats: MemStats,
    /// Collector state beyond `runtime.MemStats`.
    pub collector: Collector,
    /// Non-zero differences of sums that the runtime itself takes as equal. There are none at an instant at
    /// which no thread is in the middle of an update.
    pub differences: Vec<Difference>,
    /// True if a thread was changing the heap or its counters.
    pub in_change: bool,
    /// Number of cached spans that the runtime would sweep before counting. The effect of that sweep is
    /// unknown from outside.
    pub stale_spans: usize,
    /// Number of stack spans that the runtime would free before counting. Their structures go to the P that
    /// reads. If that P has no room, the structures also leave `MSpanInuse`; which P reads is unknown from
    /// outside.
    pub stack_spans: usize,
    /// True if the counters moved from one part to another during the reading.
    pub generation_changed: bool,
}

/// Difference of two counts of the same quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// Name of the quantity.
    pub of: &'static str,
    /// Difference in bytes.
    pub bytes: i64,
}

impl Reading {
    /// Returns true if the reading equals the runtime's own result at that instant.
    pub fn is_exact(&self) -> bool {
        self.differences.is_empty() && !self.in_change && self.stale_spans == 0 && !self.generation_changed
    }

    /// Returns true if the differences are no larger than those in a running process.
    pub fn is_plausible(&self) -> bool {
        let sys = self.memstats.sys.unwrap_or(0);
        // Upper bound for a heap that changes as fast as memory allows, between two reads of one batch.
        let bound = (sys / 2).saturating_add(64 << 20);
        self.differences.iter().all(|d| d.bytes.unsigned_abs() <= bound)
    }
}

/// Counters of all releases under common names, except the three parts of the heap's counters.
struct Counters {
    heap_in_use: u64,
    heap_free: u64,
    heap_released: u64,
    next_gc: u64,
    trigger: u64,
    /// Sums: name, first way of counting, second way of counting.
    sums: Vec<(&'static str, u64, u64)>,
}

/// Computes the statistics from raw bytes.
///
/// # Errors
/// Returns a [`SourceError`] if the values are impossible. No part of the reading is then credible.
pub fn compute(
    table: &Table,
    release: GoRelease,
    sources: &Sources,
    raw: &Raw,
) -> Result<Reading, SourceError> {
    let stats = Record::parse(table, "runtime.mstats", sources.memstats, raw.memstats.clone())
        .map_err(|_| SourceError::Layout("runtime.mstats"))?;
    let control = Record::parse(table, "runtime.gcControllerState", sources.memstats, raw.controller.clone())
        .map_err(|_| SourceError::Layout("runtime.gcControllerState"))?;
    compute_records(table, release, sources.machine.max_addr(), raw, &stats, &control).map_err(|error| {
        match error {
            Failure::Record(error) => SourceError::Implausible(error.to_string()),
            Failure::Source(error) => error,
        }
    })
}

enum Failure {
    Record(RecordError),
    Source(SourceError),
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Failure::Record(error)
    }
}

fn implausible(what: impl Into<String>) -> Failure {
    Failure::Source(SourceError::Implausible(what.into()))
}

fn compute_records(
    table: &Table,
    release: GoRelease,
    most: u64,
    raw: &Raw,
    stats: &Record<'_>,
    control: &Record<'_>,
) -> Result<Reading, Failure> {
    let layout = || Failure::Source(SourceError::Layout("runtime.heapStatsDelta"));
    let mut heap = HeapStats::sum(table, stats.field("heapStats.stats")?).ok_or_else(layout)?;
    let (cached, cached_bytes) = raw.caches.allocated();
    for (sum, more) in heap.small_allocs.iter_mut().zip(cached) {
        *sum = sum.wrapping_add(more);
    }
    heap.tiny = heap.tiny.wrapping_add(raw.caches.tiny);
    // The runtime frees stack spans only while no collection is in progress.
    let (stack_spans, given_back) = if raw.gcphase == Some(0) { raw.caches.free_stacks() } else { (0, 0) };
    heap.in_stacks = heap.in_stacks.wrapping_sub(given_back);
    if !heap.is_sane() {
        return Err(implausible("counters of its heap are negative"));
    }
    let counters = if release.counts_heap_in_controller() {
        with_limits(release, stats, control, &heap, cached_bytes, given_back)?
    } else {
        before_limits(stats, control, &heap, given_back)?
    };
    let memstats = memstats(most, raw, stats, &heap, &counters)?;
    let differences = counters
        .sums
        .iter()
        .map(|&(of, one, other)| Difference { of, bytes: one.wrapping_sub(other).cast_signed() })
        .filter(|d| d.bytes != 0)
        .collect();
    let collector = collector(table, release, raw, control, &counters);
    Ok(Reading {
        memstats,
        collector,
        differences,
        in_change: raw.heap.lock != 0 || raw.procs.iter().any(|p| p.stats_seq % 2 != 0),
        stale_spans: raw.caches.stale(raw.heap.sweepgen),
        stack_spans,
        generation_changed: raw.generations.0 != raw.generations.1,
    })
}

/// Counters of Go 1.18. It has no memory limit; the heap sizes are in `memstats`, and the goal is stored.
fn before_limits(
    stats: &Record<'_>,
    control: &Record<'_>,
    heap: &HeapStats,
    given_back: u64,
) -> Result<Counters, Failure> {
    let heap_sys = stats.u64("heap_sys")?.wrapping_add(given_back);
    let (heap_in_use, heap_released) = (stats.u64("heap_inuse")?, stats.u64("heap_released")?);
    let heap_free = heap_sys.wrapping_sub(heap_in_use).wrapping_sub(heap_released);
    let beside = heap.beside_heap();
    Ok(Counters {
        heap_in_use,
        heap_free,
        heap_released,
        next_gc: control.u64("heapGoal")?,
        trigger: control.u64("trigger")?,
        sums: vec![
            ("HeapInuse", heap_in_use, heap.in_heap),
            ("HeapReleased", heap_released, heap.released),
            (
                "HeapSys - HeapReleased",
                heap_sys.wrapping_sub(heap_released),
                heap.committed.wrapping_sub(beside),
            ),
        ],
    })
}

/// Counters of Go 1.19 and later. All inputs of the pacer are in `gcController`, and the goal is computed on
/// demand.
fn with_limits(
    release: GoRelease,
    stats: &Record<'_>,
    control: &Record<'_>,
    heap: &HeapStats,
    cached_bytes: u64,
    given_back: u64,
) -> Result<Counters, Failure> {
    let heap_in_use = control.u64("heapInUse")?;
    let heap_released = control.u64("heapReleased")?;
    let heap_free = control.u64("heapFree")?.wrapping_add(given_back);
    let total_alloc = control.u64("totalAlloc")?.wrapping_add(cached_bytes);
    let total_free = control.u64("totalFree")?;
    let mapped_ready = control.u64("mappedReady")?;
    let pacer = Pacer {
        release,
        percent_goal: control.u64("gcPercentHeapGoal")?,
        memory_limit: control.u64("memoryLimit")?,
        mapped_ready,
        heap_free,
        heap_alloc: total_alloc.wrapping_sub(total_free),
        heap_marked: control.u64("heapMarked")?,
        sweep_min_trigger: control.u64("sweepDistMinTrigger")?,
        triggered: control.u64("triggered")?,
        runway: control.u64("runway")?,
    };
    let beside = heap.beside_heap();
    let mapped = [heap_in_use, heap_free, heap_released, beside, elsewhere(stats)?];
    let mapped = mapped.into_iter().fold(0, u64::wrapping_add);
    Ok(Counters {
        heap_in_use,
        heap_free,
        heap_released,
        next_gc: pacer.goal(),
        trigger: pacer.trigger(),
        sums: vec![
            ("HeapInuse", heap_in_use, heap.in_heap),
            ("HeapReleased", heap_released, heap.released),
            (
                "HeapSys - HeapReleased",
                heap_in_use.wrapping_add(heap_free),
                heap.committed.wrapping_sub(beside),
            ),
            ("TotalAlloc", total_alloc, heap.total_alloc()),
            ("bytes freed", total_free, heap.total_free()),
            ("Sys - HeapReleased", mapped_ready, mapped.wrapping_sub(heap.released)),
        ],
    })
}

/// Returns the bytes that the runtime obtained from the system for itself, outside the heap's address space.
fn elsewhere(stats: &Record<'_>) -> Result<u64, RecordError> {
    ["stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys"]
        .iter()
        .try_fold(0u64, |sum, name| Ok(sum.wrapping_add(stats.u64(name)?)))
}

fn memstats(
    most: u64,
    raw: &Raw,
    stats: &Record<'_>,
    heap: &HeapStats,
    counters: &Counters,
) -> Result<MemStats, Failure> {
    let Counters { heap_in_use, heap_free, heap_released, next_gc, .. } = *counters;
    let heap_idle = heap_free.wrapping_add(heap_released);
    let heap_sys = heap_idle.wrapping_add(heap_in_use);
    let alloc = heap.total_alloc().wrapping_sub(heap.total_free());
    let objects = heap.mallocs().wrapping_sub(heap.frees());
    let sys = heap_sys.wrapping_add(heap.beside_heap()).wrapping_add(elsewhere(stats)?);
    // A process cannot have more memory than there are addresses.
    let sizes =
        [heap_in_use, heap_free, heap_released, heap_sys, sys, raw.heap.span_in_use, raw.heap.cache_in_use];
    if sizes.into_iter().chain([alloc, objects]).any(|number| number > most) {
        return Err(implausible("it has more memory than there is"));
    }
    let gc_sys =
        stats.u64("gcMiscSys")?.wrapping_add(heap.in_work_bufs).wrapping_add(heap.in_ptr_scalar_bits);
    let by_size = (0..BY_SIZE).map(|class| BySize {
        size: size_of_class(class),
        mallocs: heap.small_allocs.get(class).copied().unwrap_or(0),
        frees: heap.small_frees.get(class).copied().unwrap_or(0),
    });
    Ok(MemStats {
        alloc: Some(alloc),
        total_alloc: Some(heap.total_alloc()),
        sys: Some(sys),
        lookups: Some(0),
        mallocs: Some(heap.mallocs()),
        frees: Some(heap.frees()),
        heap_alloc: Some(alloc),
        heap_sys: Some(heap_sys),
        heap_idle: Some(heap_idle),
        heap_inuse: Some(heap_in_use),
        heap_released: Some(heap_released),
        heap_objects: Some(objects),
        stack_inuse: Some(heap.in_stacks),
        stack_sys: Some(heap.in_stacks.wrapping_add(stats.u64("stacks_sys")?)),
        mspan_inuse: Some(raw.heap.span_in_use),
        mspan_sys: Some(stats.u64("mspan_sys")?),
        mcache_inuse: Some(raw.heap.cache_in_use),
        mcache_sys: Some(stats.u64("mcache_sys")?),
        buck_hash_sys: Some(stats.u64("buckhash_sys")?),
        gc_sys: Some(gc_sys),
        other_sys: Some(stats.u64("other_sys")?),
        next_gc: Some(next_gc),
        last_gc: Some(stats.u64("last_gc_unix")?),
        pause_total_ns: Some(stats.u64("pause_total_ns")?),
        pause_ns: Some(stats.words("pause_ns")?),
        pause_end: Some(stats.words("pause_end")?),
        num_gc: Some(stats.u32("numgc")?.into()),
        num_forced_gc: Some(stats.u32("numforcedgc")?.into()),
        gc_cpu_fraction: Some(stats.f64("gc_cpu_fraction")?).filter(|f| f.is_finite()),
        // The runtime reports true whatever the value of `memstats.enablegc` is.
        enable_gc: Some(true),
        debug_gc: Some(false),
        by_size: Some(by_size.collect()),
    })
}

/// Sweep state after completion (`sweepDrainedMask`): everything is swept, and no sweeper is active.
const SWEPT: u64 = 1 << 31;

fn collector(
    table: &Table,
    release: GoRelease,
    raw: &Raw,
    control: &Record<'_>,
    counters: &Counters,
) -> Collector {
    let word = |name: &str| control.u64(name).ok();
    let size = |name: &str| word(name).filter(|&bytes| bytes < 1 << 48);
    let gogc = control.i32("gcPercent").ok().filter(|&percent| percent >= -1).map(i64::from);
    let limit = control.i64("memoryLimit").ok().filter(|&limit| (0..i64::MAX).contains(&limit));
    let limit = limit.and_then(|limit| u64::try_from(limit).ok());
    // Without GOGC and without a limit there is no next collection, and the computed values are not sizes.
    let off = gogc == Some(-1) && limit.is_none();
    let work = raw.work.as_deref();
    let in_work = |name: &str| {
        let field = table.field("runtime.work", name)?;
        let at = usize::try_from(field.offset).ok()?;
        work?.get(at..at.checked_add(usize::try_from(field.size).ok()?)?)
    };
    Collector {
        gogc_percent: gogc,
        memory_limit_bytes: limit,
        heap_goal_bytes: (!off).then_some(counters.next_gc),
        heap_trigger_bytes: (!off).then_some(counters.trigger),
        heap_live_bytes: size("heapLive"),
        heap_marked_bytes: size("heapMarked"),
        phase: raw.gcphase.map(phase_name),
        cycles: in_work("cycles").and_then(crate::runtime::batch::unsigned),
        // Up to Go 1.18 the word also holds nothing but the mask.
        sweep_done: raw.sweep_state.map(|state| state == SWEPT),
        heap_scan_bytes: size("heapScan"),
        stack_scan_bytes: size(release.stack_scan_field()),
        globals_scan_bytes: size("globalsScan"),
        assist_ns: word("assistTime"),
        cpu: cpu_times(table, &in_work),
    }
}

pub(crate) fn phase_name(phase: u64) -> &'static str {
    match phase {
        0 => "off",
        1 => "mark",
        _ => "mark termination",
    }
}

/// Reads `work.cpuStats`. Go 1.23 renamed its fields.
fn cpu_times<'r>(table: &Table, in_work: &dyn Fn(&str) -> Option<&'r [u8]>) -> Option<CpuTimes> {
    table.field("runtime.work", "cpuStats")?;
    let time = |name: &str| {
        let mut old = name.to_owned();
        if let Some(first) = old.get_mut(..2).filter(|first| *first == "GC") {
            first.make_ascii_lowercase();
        } else if let Some(first) = old.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        let bytes = in_work(&format!("cpuStats.{name}")).or_else(|| in_work(&format!("cpuStats.{old}")))?;
        Some(crate::runtime::batch::unsigned(bytes)?.cast_signed())
    };
    let times = CpuTimes {
        gc_assist_ns: time("GCAssistTime")?,
        gc_dedicated_ns: time("GCDedicatedTime")?,
        gc_idle_ns: time("GCIdleTime")?,
        gc_pause_ns: time("GCPauseTime")?,
        gc_total_ns: time("GCTotalTime")?,
        scavenge_assist_ns: time("ScavengeAssistTime")?,
        scavenge_background_ns: time("ScavengeBgTime")?,
        scavenge_total_ns: time("ScavengeTotalTime")?,
        idle_ns: time("IdleTime")?,
        user_ns: time("UserTime")?,
        total_ns: time("TotalTime")?,
    };
    // The runtime computes the total as this sum. A different sum means that the fields are wrong.
    let gc = [times.gc_assist_ns, times.gc_dedicated_ns, times.gc_idle_ns, times.gc_pause_ns];
    let sum = gc.into_iter().fold(0, i64::wrapping_add);
    (sum == times.gc_total_ns).then_some(times)
}
