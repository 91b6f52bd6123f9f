//! Answer of `stats`. The text is that of gops; `-v` and JSON have more.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::answers::{Source, pairs};
use super::go_text;
use super::traceback::header_status;
use crate::printable::printable_str;
use crate::runtime::contradiction::Contradiction;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::histogram::{Bucket, Histogram};
use crate::runtime::stats::{Histograms, More, Stats};
use crate::runtime::view::View;

/// Answer of `stats --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatsAnswer {
    /// Number of the program's goroutines (`runtime.NumGoroutine`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goroutines: Option<u64>,
    /// Number of threads that the runtime created and still keeps a record of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_threads: Option<u64>,
    /// Value of GOMAXPROCS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gomaxprocs: Option<u64>,
    /// Number of CPUs that the process could use when it began (`runtime.NumCPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cpu: Option<u64>,
    /// Number of the runtime's own goroutines, which `goroutines` leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_goroutines: Option<u64>,
    /// Number of the program's goroutines by state, in the words of the target's Go release. States are
    /// counted one after another: the sum may differ from `goroutines`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub goroutines_by_state: BTreeMap<String, u64>,
    /// Number of idle Ps, of the GOMAXPROCS that exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ps: Option<u64>,
    /// Number of threads that the kernel knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// Phase of the garbage collector: `off`, `mark` or `mark termination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_phase: Option<&'static str>,
    /// Number of garbage collections that began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_cycles: Option<u64>,
    /// Histograms of scheduling latencies and of stop-the-world pauses since the start of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histograms: Option<Histograms>,
    /// True if a panic, a fatal error or a signal is ending the program: it exits once its traceback is
    /// written. Absent if unknown, and where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicking: Option<bool>,
    /// Contradictions: numbers that cannot be true together, however often they were read. The exit code is 7
    /// if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubtful: Vec<Contradiction>,
}

/// Answer of `stats` with its source.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourcedStats {
    /// Target that was asked, and who answered.
    #[serde(flatten)]
    pub source: Source,
    /// Runtime statistics.
    #[serde(flatten)]
    pub answer: StatsAnswer,
}

impl StatsAnswer {
    /// Makes the answer from data read from outside. `threads` is the kernel's number of threads.
    pub fn new(view: &View, stats: &Stats, more: Option<More>, threads: Option<u64>) -> Self {
        let mut answer = StatsAnswer {
            goroutines: Some(stats.goroutines),
            os_threads: Some(stats.threads),
            gomaxprocs: Some(stats.gomaxprocs),
            num_cpu: stats.num_cpu,
            ..StatsAnswer::default()
        };
        let Some(more) = more else { return answer };
        for ((status, wait_reason), count) in more.states {
            let g = Goroutine { raw_status: status, wait_reason, ..Goroutine::default() };
            *answer.goroutines_by_state.entry(header_status(view, &g).to_owned()).or_default() += count;
        }
        answer.system_goroutines = Some(stats.system_goroutines);
        answer.idle_ps = Some(stats.idle_procs);
        answer.threads = threads;
        answer.gc_phase = more.phase;
        answer.gc_cycles = more.cycles;
        answer.histograms = Some(more.histograms);
        answer
    }

    /// Returns the same answer with its contradictions.
    #[must_use]
    pub fn doubted(self, doubtful: Vec<Contradiction>) -> Self {
        StatsAnswer { doubtful, ..self }
    }

    /// Parses the lines of an agent. Unknown lines are skipped; returns `None` if no line is known.
    pub fn parse(text: &str) -> Option<Self> {
        let mut stats = StatsAnswer::default();
        for (key, value) in pairs(text) {
            match key {
                "goroutines" => stats.goroutines = value.parse().ok(),
                "OS threads" => stats.os_threads = value.parse().ok(),
                "GOMAXPROCS" => stats.gomaxprocs = value.parse().ok(),
                "num CPU" => stats.num_cpu = value.parse().ok(),
                _ => {}
            }
        }
        (stats != StatsAnswer::default()).then_some(stats)
    }

    /// Writes the lines of gops, and further values in the same format.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let doubtful = |field| self.doubtful.iter().any(|doubt| doubt.fields.contains(&field));
        let mark = |field| if doubtful(field) { " (doubtful)" } else { "" };
        if let Some(goroutines) = self.goroutines {
            writeln!(out, "goroutines: {goroutines}{}", mark("goroutines"))?;
        }
        let mut line = |name: &str, value: Option<u64>| match value {
            Some(value) => writeln!(out, "{name}: {value}"),
            None => Ok(()),
        };
        line("OS threads", self.os_threads)?;
        line("GOMAXPROCS", self.gomaxprocs)?;
        line("num CPU", self.num_cpu)?;
        let of_runtime = format!("system goroutines{}", mark("system_goroutines"));
        line(&of_runtime, self.system_goroutines)?;
        let mut states: Vec<(&String, &u64)> = self.goroutines_by_state.iter().collect();
        states.sort_by_key(|&(name, count)| (std::cmp::Reverse(*count), name));
        for (name, count) in states {
            let mark = mark("goroutines_by_state");
            line(&format!("goroutines [{}]{mark}", printable_str(name)), Some(*count))?;
        }
        line("idle Ps", self.idle_ps)?;
        line("threads now", self.threads)?;
        if let Some(phase) = self.gc_phase {
            writeln!(out, "GC phase: {phase}")?;
        }
        if let Some(cycles) = self.gc_cycles {
            writeln!(out, "GC cycles: {cycles}")?;
        }
        let Some(h) = &self.histograms else { return Ok(()) };
        for (name, histogram) in [
            ("scheduling latency", &h.scheduling_latency),
            ("GC pauses", &h.gc_pause),
            ("stopping for GC", &h.gc_stopping),
            ("other pauses", &h.other_pause),
            ("stopping for others", &h.other_stopping),
        ] {
            if let Some(histogram) = histogram {
                writeln!(out, "{name}: {}", summary(histogram))?;
            }
        }
        Ok(())
    }
}

fn summary(histogram: &Histogram) -> String {
    let total = histogram.total();
    let below = |bucket: Option<Bucket>| match bucket {
        Some(Bucket { below_ns: Some(ns), .. }) => format!("< {}", go_text::duration(ns)),
        Some(Bucket { from_ns, .. }) => format!(">= {}", go_text::duration(from_ns)),
        None => "none".to_owned(),
    };
    if total == 0 {
        return "none".to_owned();
    }
    let [half, most, all] = [50, 99, 100].map(|percent| below(histogram.percentile(percent)));
    format!("{total}, half {half}, 99% {most}, longest {all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_agent() {
        let text = "goroutines: 12\nOS threads: 7\nGOMAXPROCS: 2\nnum CPU: 4\n";
        let stats = StatsAnswer::parse(text).unwrap();
        assert_eq!((stats.goroutines, stats.os_threads), (Some(12), Some(7)));
        assert_eq!((stats.gomaxprocs, stats.num_cpu), (Some(2), Some(4)));
        let mut again = Vec::new();
        stats.write_text(&mut again).unwrap();
        assert_eq!(again, text.as_bytes());
        assert_eq!(StatsAnswer::parse("<html>"), None);
    }

    #[test]
    fn summaries() {
        let bucket = |from_ns, below_ns, count| Bucket { from_ns, below_ns, count };
        let buckets =
            vec![bucket(0, Some(64), 98), bucket(1 << 20, Some(5 << 18), 1), bucket(1 << 47, None, 1)];
        let histogram = Histogram { buckets, negative: 0 };
        assert_eq!(summary(&histogram), "100, half < 64ns, 99% < 1.31072ms, longest >= 39h5m37.488355328s");
        assert_eq!(summary(&Histogram::default()), "none");
    }
}
