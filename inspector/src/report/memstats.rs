//! Answer of `memstats`. The text is that of gops; the JSON is `runtime.MemStats` and more.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;

use super::answers::{Source, nanoseconds, pairs, parse_bytes};
use super::go_text;
use super::stack::AnswerCost;
use crate::memory::ReadCost;
use crate::runtime::memstats::figures::{Collector, MemStats};
use crate::runtime::memstats::{Consistency, Difference, Reading, Taken};

/// Answer of `memstats --json`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemStatsAnswer {
    /// Target that was asked, and who answered.
    #[serde(flatten)]
    pub source: Source,
    /// Consistency of the numbers with each other. An agent stops the world: its numbers are of one instant.
    pub consistency: Consistency,
    /// Statistics under their names in Go's `runtime.MemStats`. Values that an agent does not give are
    /// absent.
    pub memstats: MemStats,
    /// Last pause of the garbage collector. Absent before the first collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pause: Option<Pause>,
    /// End of the last collection, as Go prints the time in the time zone of the process. Absent before the
    /// first collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<String>,
    /// State of the garbage collector beyond `memstats`. Absent where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<Collector>,
    /// Sums that should be equal but are not, because they changed during reading. Empty if `consistency` is
    /// `instant`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Number of cached spans that the runtime would sweep before it counts. A sweep would free some of the
    /// memory counted here.
    #[serde(skip_serializing_if = "is_zero")]
    pub stale_spans: usize,
    /// True if a panic, a fatal error or a signal is ending the program: it exits once its traceback is
    /// written. Absent if unknown, and where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicking: Option<bool>,
    /// Cost of the answer. Absent where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<AnswerCost>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Pause of the garbage collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pause {
    /// Time that the world was stopped, in nanoseconds: both stops of a cycle together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<u64>,
    /// End of the pause, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_unix_ns: Option<u64>,
}

impl MemStatsAnswer {
    /// Makes the answer from data read from outside.
    pub fn of_probe(source: Source, taken: Taken<Reading>, attach: ReadCost, zone: &TimeZone) -> Self {
        let cost = AnswerCost::of_stops(attach, &taken.stopped, taken.cost);
        let Reading { memstats, collector, differences, stale_spans, .. } = taken.answer;
        let collected = memstats.last_gc.filter(|&ns| ns != 0);
        let last_pause = memstats.last_pause().filter(|_| collected.is_some());
        MemStatsAnswer {
            source,
            consistency: taken.consistency,
            last_pause: last_pause.map(|(ns, end)| Pause { ns: Some(ns), ended_unix_ns: Some(end) }),
            last_gc: collected.map(|ns| go_text::time(ns, zone)),
            memstats,
            collector: Some(collector),
            differences,
            stale_spans,
            panicking: None,
            cost: Some(cost),
        }
    }

    /// Parses the text of an agent. Returns `None` if nothing in it is known.
    pub fn of_agent(source: Source, text: &str) -> Option<Self> {
        let (memstats, last_pause, last_gc) = parse(text)?;
        Some(MemStatsAnswer {
            source,
            consistency: Consistency::Instant,
            memstats,
            last_pause,
            last_gc,
            collector: None,
            differences: Vec::new(),
            stale_spans: 0,
            panicking: None,
            cost: None,
        })
    }

    /// Writes the lines of gops.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let s = &self.memstats;
        let bytes = |value: Option<u64>| go_text::bytes(value.unwrap_or(0));
        let count = |value: Option<u64>| value.unwrap_or(0);
        let flag = |value: Option<bool>| value.unwrap_or(false);
        // The runtime's rings hold zeros before the first collection.
        let (pause, pause_end) = s.last_pause().unwrap_or((0, 0));
        writeln!(out, "alloc: {}", bytes(s.alloc))?;
        writeln!(out, "total-alloc: {}", bytes(s.total_alloc))?;
        writeln!(out, "sys: {}", bytes(s.sys))?;
        writeln!(out, "lookups: {}", count(s.lookups))?;
        writeln!(out, "mallocs: {}", count(s.mallocs))?;
        writeln!(out, "frees: {}", count(s.frees))?;
        writeln!(out, "heap-alloc: {}", bytes(s.heap_alloc))?;
        writeln!(out, "heap-sys: {}", bytes(s.heap_sys))?;
        writeln!(out, "heap-idle: {}", bytes(s.heap_idle))?;
        writeln!(out, "heap-in-use: {}", bytes(s.heap_inuse))?;
        writeln!(out, "heap-released: {}", bytes(s.heap_released))?;
        writeln!(out, "heap-objects: {}", count(s.heap_objects))?;
        writeln!(out, "stack-in-use: {}", bytes(s.stack_inuse))?;
        writeln!(out, "stack-sys: {}", bytes(s.stack_sys))?;
        writeln!(out, "stack-mspan-inuse: {}", bytes(s.mspan_inuse))?;
        writeln!(out, "stack-mspan-sys: {}", bytes(s.mspan_sys))?;
        writeln!(out, "stack-mcache-inuse: {}", bytes(s.mcache_inuse))?;
        writeln!(out, "stack-mcache-sys: {}", bytes(s.mcache_sys))?;
        writeln!(out, "other-sys: {}", bytes(s.other_sys))?;
        writeln!(out, "gc-sys: {}", bytes(s.gc_sys))?;
        writeln!(out, "next-gc: when heap-alloc >= {}", bytes(s.next_gc))?;
        writeln!(out, "last-gc: {}", self.last_gc.as_deref().unwrap_or("-"))?;
        writeln!(out, "gc-pause-total: {}", go_text::duration(count(s.pause_total_ns)))?;
        writeln!(out, "gc-pause: {pause}")?;
        writeln!(out, "gc-pause-end: {pause_end}")?;
        writeln!(out, "num-gc: {}", count(s.num_gc))?;
        writeln!(out, "num-forced-gc: {}", count(s.num_forced_gc))?;
        writeln!(out, "gc-cpu-fraction: {}", go_text::float(s.gc_cpu_fraction.unwrap_or(f64::NAN)))?;
        writeln!(out, "enable-gc: {}", flag(s.enable_gc))?;
        writeln!(out, "debug-gc: {}", flag(s.debug_gc))
    }

    /// Writes further values in the format of gops.
    pub fn write_more(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(c) = &self.collector else { return Ok(()) };
        let mut line = |name: &str, value: Option<String>| match value {
            Some(value) => writeln!(out, "{name}: {value}"),
            None => Ok(()),
        };
        let bytes = |value: Option<u64>| value.map(go_text::bytes);
        let gogc = c.gogc_percent.map(|p| if p < 0 { "off".to_owned() } else { format!("{p}%") });
        line("gogc", gogc)?;
        line("memory-limit", Some(bytes(c.memory_limit_bytes).unwrap_or_else(|| "none".to_owned())))?;
        line("heap-goal", Some(bytes(c.heap_goal_bytes).unwrap_or_else(|| "off".to_owned())))?;
        line("heap-trigger", Some(bytes(c.heap_trigger_bytes).unwrap_or_else(|| "off".to_owned())))?;
        line("heap-live", bytes(c.heap_live_bytes))?;
        line("heap-marked", bytes(c.heap_marked_bytes))?;
        line("gc-phase", c.phase.map(str::to_owned))?;
        line("gc-cycles", c.cycles.map(|n| n.to_string()))?;
        line("sweep-done", c.sweep_done.map(|done| done.to_string()))?;
        line("scan-heap", bytes(c.heap_scan_bytes))?;
        line("scan-stacks", bytes(c.stack_scan_bytes))?;
        line("scan-globals", bytes(c.globals_scan_bytes))?;
        let time = |ns: i64| Some(go_text::duration(ns.cast_unsigned()));
        line("gc-assist", c.assist_ns.and_then(|ns| time(ns.cast_signed())))?;
        let Some(cpu) = c.cpu else { return Ok(()) };
        for (name, ns) in [
            ("cpu-gc-assist", cpu.gc_assist_ns),
            ("cpu-gc-dedicated", cpu.gc_dedicated_ns),
            ("cpu-gc-idle", cpu.gc_idle_ns),
            ("cpu-gc-pause", cpu.gc_pause_ns),
            ("cpu-gc-total", cpu.gc_total_ns),
            ("cpu-scavenge-assist", cpu.scavenge_assist_ns),
            ("cpu-scavenge-background", cpu.scavenge_background_ns),
            ("cpu-idle", cpu.idle_ns),
            ("cpu-user", cpu.user_ns),
            ("cpu-total", cpu.total_ns),
        ] {
            line(name, time(ns))?;
        }
        Ok(())
    }
}

/// Parses the lines of an agent. Unknown lines are skipped; returns `None` if no line is known.
fn parse(text: &str) -> Option<(MemStats, Option<Pause>, Option<String>)> {
    let (mut stats, mut last_gc) = (MemStats::default(), None);
    let mut pause = Pause { ns: None, ended_unix_ns: None };
    for (key, value) in pairs(text) {
        let bytes = || parse_bytes(value);
        let number = || value.parse().ok();
        match key {
            "alloc" => stats.alloc = bytes(),
            "total-alloc" => stats.total_alloc = bytes(),
            "sys" => stats.sys = bytes(),
            "lookups" => stats.lookups = number(),
            "mallocs" => stats.mallocs = number(),
            "frees" => stats.frees = number(),
            "heap-alloc" => stats.heap_alloc = bytes(),
            "heap-sys" => stats.heap_sys = bytes(),
            "heap-idle" => stats.heap_idle = bytes(),
            "heap-in-use" => stats.heap_inuse = bytes(),
            "heap-released" => stats.heap_released = bytes(),
            "heap-objects" => stats.heap_objects = number(),
            "stack-in-use" => stats.stack_inuse = bytes(),
            "stack-sys" => stats.stack_sys = bytes(),
            "stack-mspan-inuse" => stats.mspan_inuse = bytes(),
            "stack-mspan-sys" => stats.mspan_sys = bytes(),
            "stack-mcache-inuse" => stats.mcache_inuse = bytes(),
            "stack-mcache-sys" => stats.mcache_sys = bytes(),
            "other-sys" => stats.other_sys = bytes(),
            "gc-sys" => stats.gc_sys = bytes(),
            "next-gc" => stats.next_gc = bytes(),
            "last-gc" if value == "-" => stats.last_gc = Some(0),
            "last-gc" => {
                last_gc = Some(value.to_owned());
                stats.last_gc = go_text::parse_time(value);
            }
            "gc-pause-total" => stats.pause_total_ns = nanoseconds(value),
            "gc-pause" => pause.ns = number(),
            "gc-pause-end" => pause.ended_unix_ns = number(),
            "num-gc" => stats.num_gc = number(),
            "num-forced-gc" => stats.num_forced_gc = number(),
            "gc-cpu-fraction" => stats.gc_cpu_fraction = value.parse().ok().filter(|f: &f64| f.is_finite()),
            "enable-gc" => stats.enable_gc = value.parse().ok(),
            "debug-gc" => stats.debug_gc = value.parse().ok(),
            _ => {}
        }
    }
    let collected = stats.last_gc != Some(0) && (pause.ns.is_some() || pause.ended_unix_ns.is_some());
    let known = stats != (MemStats { last_gc: stats.last_gc, ..MemStats::default() }) || collected;
    known.then_some((stats, Some(pause).filter(|_| collected), last_gc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_agent() {
        let text = "alloc: 1.25MB (1310720 bytes)\nsys: 512 bytes\nmallocs: 99\n\
                    next-gc: when heap-alloc >= 4.00MB (4194304 bytes)\n\
                    last-gc: 2026-11-25 12:00:00.5 +0000 UTC\ngc-pause-total: 1.5ms\ngc-pause: 17\n\
                    gc-cpu-fraction: 1.5e-05\nenable-gc: true\nnew-key: 1\nheap-sys: \x1b[31m\n";
        let (stats, pause, last_gc) = parse(text).unwrap();
        assert_eq!((stats.alloc, stats.sys), (Some(1_310_720), Some(512)));
        assert_eq!((stats.mallocs, stats.next_gc), (Some(99), Some(4_194_304)));
        assert_eq!(stats.last_gc, Some(1_795_608_000_500_000_000));
        assert_eq!(last_gc.as_deref(), Some("2026-11-25 12:00:00.5 +0000 UTC"));
        assert_eq!(stats.pause_total_ns, Some(1_500_000));
        assert_eq!(pause, Some(Pause { ns: Some(17), ended_unix_ns: None }));
        assert_eq!((stats.gc_cpu_fraction, stats.enable_gc), (Some(1.5e-5), Some(true)));
        assert_eq!((stats.heap_sys, stats.frees), (None, None));
        assert!(parse("last-gc: -\nnothing: 1\n").is_none());
    }
}
