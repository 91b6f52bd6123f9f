//! Answers that a gops agent gives as lines of text, as values.

use serde::Serialize;

use super::SCHEMA;
use super::stack::Cost;
use crate::agent::AgentTarget;
use crate::profile::json::ProfileAnswer;

/// Who was asked, and who answered.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// Version of this format.
    pub schema: u32,
    /// The process; absent where an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The address that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who answered: `probe` or `agent`.
    pub via: &'static str,
}

impl Source {
    /// What was asked of a target, and answered by its agent or by us.
    pub fn new(target: &AgentTarget, via: &'static str) -> Self {
        let (pid, address) = match target {
            AgentTarget::Process(pid) => (Some(pid.as_raw()), None),
            AgentTarget::Address(address) => (None, Some(address.to_string())),
        };
        Source { schema: SCHEMA, pid, address, via }
    }
}

/// `runtime.MemStats`, as far as gops shows it. What an agent did not say is absent.
#[derive(Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemStats {
    /// Bytes of allocated heap objects (`Alloc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_bytes: Option<u64>,
    /// Bytes allocated for heap objects since the start (`TotalAlloc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_alloc_bytes: Option<u64>,
    /// Bytes obtained from the system (`Sys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sys_bytes: Option<u64>,
    /// Pointer look-ups (`Lookups`), which no release counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookups: Option<u64>,
    /// Heap objects allocated since the start (`Mallocs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mallocs: Option<u64>,
    /// Heap objects freed since the start (`Frees`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frees: Option<u64>,
    /// As `alloc_bytes` (`HeapAlloc`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_alloc_bytes: Option<u64>,
    /// Bytes of address space of the heap (`HeapSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_sys_bytes: Option<u64>,
    /// Bytes in unused spans (`HeapIdle`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_idle_bytes: Option<u64>,
    /// Bytes in spans that are used (`HeapInuse`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_in_use_bytes: Option<u64>,
    /// Bytes given back to the system (`HeapReleased`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_released_bytes: Option<u64>,
    /// Allocated heap objects (`HeapObjects`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_objects: Option<u64>,
    /// Bytes in spans for stacks (`StackInuse`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_in_use_bytes: Option<u64>,
    /// Bytes obtained for stacks (`StackSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_sys_bytes: Option<u64>,
    /// Bytes of span structures that are used (`MSpanInuse`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mspan_in_use_bytes: Option<u64>,
    /// Bytes obtained for span structures (`MSpanSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mspan_sys_bytes: Option<u64>,
    /// Bytes of cache structures that are used (`MCacheInuse`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcache_in_use_bytes: Option<u64>,
    /// Bytes obtained for cache structures (`MCacheSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcache_sys_bytes: Option<u64>,
    /// Bytes of other runtime structures (`OtherSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_sys_bytes: Option<u64>,
    /// Bytes of structures of the garbage collector (`GCSys`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_sys_bytes: Option<u64>,
    /// The heap size at which the next collection begins (`NextGC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_gc_bytes: Option<u64>,
    /// When the last collection ended (`LastGC`), as Go prints a time; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<String>,
    /// All pauses since the start, in nanoseconds (`PauseTotalNs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_pause_total_ns: Option<u64>,
    /// The last pause, in nanoseconds (`PauseNs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_pause_ns: Option<u64>,
    /// When that ended, in nanoseconds since 1970 (`PauseEnd`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_pause_end_unix_ns: Option<u64>,
    /// Collections since the start (`NumGC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_gc: Option<u64>,
    /// Collections that the program asked for (`NumForcedGC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_forced_gc: Option<u64>,
    /// The part of the CPU time that collections took (`GCCPUFraction`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_cpu_fraction: Option<f64>,
    /// Collections are possible at all (`EnableGC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_gc: Option<bool>,
    /// Not used by Go (`DebugGC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_gc: Option<bool>,
}

impl MemStats {
    /// Reads the lines of an agent. Lines that are not known are skipped; `None` where none is.
    pub fn parse(text: &str) -> Option<Self> {
        let mut stats = MemStats::default();
        for (key, value) in pairs(text) {
            let bytes = || bytes(value);
            match key {
                "alloc" => stats.alloc_bytes = bytes(),
                "total-alloc" => stats.total_alloc_bytes = bytes(),
                "sys" => stats.sys_bytes = bytes(),
                "lookups" => stats.lookups = value.parse().ok(),
                "mallocs" => stats.mallocs = value.parse().ok(),
                "frees" => stats.frees = value.parse().ok(),
                "heap-alloc" => stats.heap_alloc_bytes = bytes(),
                "heap-sys" => stats.heap_sys_bytes = bytes(),
                "heap-idle" => stats.heap_idle_bytes = bytes(),
                "heap-in-use" => stats.heap_in_use_bytes = bytes(),
                "heap-released" => stats.heap_released_bytes = bytes(),
                "heap-objects" => stats.heap_objects = value.parse().ok(),
                "stack-in-use" => stats.stack_in_use_bytes = bytes(),
                "stack-sys" => stats.stack_sys_bytes = bytes(),
                "stack-mspan-inuse" => stats.mspan_in_use_bytes = bytes(),
                "stack-mspan-sys" => stats.mspan_sys_bytes = bytes(),
                "stack-mcache-inuse" => stats.mcache_in_use_bytes = bytes(),
                "stack-mcache-sys" => stats.mcache_sys_bytes = bytes(),
                "other-sys" => stats.other_sys_bytes = bytes(),
                "gc-sys" => stats.gc_sys_bytes = bytes(),
                "next-gc" => stats.next_gc_bytes = bytes(),
                "last-gc" => stats.last_gc = Some(value.to_owned()).filter(|v| v != "-"),
                "gc-pause-total" => stats.gc_pause_total_ns = nanoseconds(value),
                "gc-pause" => stats.gc_pause_ns = value.parse().ok(),
                "gc-pause-end" => stats.gc_pause_end_unix_ns = value.parse().ok(),
                "num-gc" => stats.num_gc = value.parse().ok(),
                "num-forced-gc" => stats.num_forced_gc = value.parse().ok(),
                "gc-cpu-fraction" => {
                    stats.gc_cpu_fraction = value.parse().ok().filter(|f: &f64| f.is_finite())
                }
                "enable-gc" => stats.enable_gc = value.parse().ok(),
                "debug-gc" => stats.debug_gc = value.parse().ok(),
                _ => {}
            }
        }
        (stats != MemStats::default()).then_some(stats)
    }
}

/// What `stats` says.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stats {
    /// Goroutines (`runtime.NumGoroutine`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goroutines: Option<u64>,
    /// Threads that the runtime created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_threads: Option<u64>,
    /// GOMAXPROCS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gomaxprocs: Option<u64>,
    /// CPUs that the process can use (`runtime.NumCPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cpu: Option<u64>,
}

impl Stats {
    /// As [`MemStats::parse`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut stats = Stats::default();
        for (key, value) in pairs(text) {
            match key {
                "goroutines" => stats.goroutines = value.parse().ok(),
                "OS threads" => stats.os_threads = value.parse().ok(),
                "GOMAXPROCS" => stats.gomaxprocs = value.parse().ok(),
                "num CPU" => stats.num_cpu = value.parse().ok(),
                _ => {}
            }
        }
        (stats != Stats::default()).then_some(stats)
    }
}

/// A file that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Saved {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// What it cost the process; absent where nothing was read from its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// A profile.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileOf {
    /// Which one: `heap`, `goroutine`.
    pub profile: &'static str,
    /// What it cost the process; absent where its agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What is in it.
    #[serde(flatten)]
    pub content: ProfileAnswer,
}

/// Where a process is served.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Serving {
    /// The address for gops.
    pub listening: String,
}

/// An answer, and where it comes from.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sourced<T> {
    /// Where it comes from.
    #[serde(flatten)]
    pub source: Source,
    /// What it says.
    #[serde(flatten)]
    pub answer: T,
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim()))
}

/// `12.50KB (12800 bytes)`, `512 bytes`, and either behind some words: what stands before the last `bytes`.
fn bytes(text: &str) -> Option<u64> {
    let rest = text.trim_end_matches(')').strip_suffix(" bytes")?;
    let digits = rest.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    rest.get(digits..)?.parse().ok()
}

/// A duration as Go prints it: `1h2m3.5s`, `1.5ms`, `10µs`, `0s`. It has no more digits than nanoseconds.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit: u64 = match unit {
            "ns" => 1,
            "µs" | "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut part = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        let mut place = unit;
        for digit in fraction.chars() {
            place /= 10;
            part = part.checked_add(place.checked_mul(digit.to_digit(10)?.into())?)?;
        }
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_statistics() {
        let text = "alloc: 1.25MB (1310720 bytes)\nsys: 512 bytes\nmallocs: 99\n\
                    next-gc: when heap-alloc >= 4.00MB (4194304 bytes)\n\
                    last-gc: 2026-11-25 12:00:00.5 +0000 UTC\ngc-pause-total: 1.5ms\ngc-pause: 17\n\
                    gc-cpu-fraction: 1.5e-05\nenable-gc: true\nnew-key: 1\nheap-sys: \x1b[31m\n";
        let stats = MemStats::parse(text).unwrap();
        assert_eq!((stats.alloc_bytes, stats.sys_bytes), (Some(1_310_720), Some(512)));
        assert_eq!((stats.mallocs, stats.next_gc_bytes), (Some(99), Some(4_194_304)));
        assert_eq!(stats.last_gc.as_deref(), Some("2026-11-25 12:00:00.5 +0000 UTC"));
        assert_eq!((stats.gc_pause_total_ns, stats.gc_pause_ns), (Some(1_500_000), Some(17)));
        assert_eq!((stats.gc_cpu_fraction, stats.enable_gc), (Some(1.5e-5), Some(true)));
        assert_eq!((stats.heap_sys_bytes, stats.frees), (None, None));
        assert_eq!(MemStats::parse("last-gc: -\nnothing: 1\n"), None);
    }

    #[test]
    fn runtime_statistics() {
        let stats = Stats::parse("goroutines: 12\nOS threads: 7\nGOMAXPROCS: 2\nnum CPU: 4\n").unwrap();
        assert_eq!((stats.goroutines, stats.os_threads), (Some(12), Some(7)));
        assert_eq!((stats.gomaxprocs, stats.num_cpu), (Some(2), Some(4)));
        assert_eq!(Stats::parse("<html>"), None);
    }

    #[test]
    fn durations_of_go() {
        for (text, ns) in [
            ("0s", Some(0)),
            ("1ns", Some(1)),
            ("1.001µs", Some(1_001)),
            ("12.345678ms", Some(12_345_678)),
            ("1h2m3.000000004s", Some(3_723_000_000_004)),
            ("", None),
            ("5", None),
            ("1.2.3s", None),
            ("99999999999999999999s", None),
            ("1w", None),
        ] {
            assert_eq!(nanoseconds(text), ns, "{text}");
        }
    }
}
