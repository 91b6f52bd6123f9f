//! Answer of `top`: CPU use of the last seconds by function, goroutine and process.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::capture::cpu::mode::Mode;
use crate::capture::cpu::work::{Work, Works};
use crate::printable::printable_str;
use crate::profile::sums::sums;
use crate::profile::{LabelValue, Profile, Sample};

/// Maximum number of functions, goroutines or processes distinguished in an interval.
const MAX_ROWS: usize = 1 << 16;

/// Samples of an interval, by name.
#[derive(Debug, Default)]
pub struct Interval {
    took: Duration,
    samples: u64,
    work: Work,
    functions: HashMap<String, (u64, u64)>,
    goroutines: HashMap<(u64, u64), (u64, String)>,
    processes: HashMap<u64, (u64, String)>,
}

impl Interval {
    /// Makes the interval from a profile that lasted `took`. The first value of each sample is its count. Samples
    /// of several processes are labelled with their process; without such labels, all samples are of `alone`.
    pub fn new(profile: &Profile, took: Duration, alone: Option<&(u64, String)>) -> Self {
        let count = |sample: &Sample| sample.values.first().copied().unwrap_or(0).max(0);
        let works = Works::new(profile);
        let mut interval = Interval { took, work: works.all(), ..Interval::default() };
        for function in sums(profile, count).into_iter().take(MAX_ROWS) {
            let sums = interval.functions.entry(function.frame.name().into_owned()).or_default();
            sums.0 += function.flat.unsigned_abs();
            sums.1 += function.cumulative.unsigned_abs();
        }
        for sample in &profile.samples {
            let count = count(sample).unsigned_abs();
            interval.samples += count;
            let number = |key: &str| {
                sample.labels.iter().find(|label| label.key == key).and_then(|label| match label.value {
                    LabelValue::Number(number, _) => u64::try_from(number).ok(),
                    LabelValue::Text(_) => None,
                })
            };
            let pid = number("pid");
            if let Some(goid) = number("goroutine")
                && interval.goroutines.len() < MAX_ROWS
            {
                let begins = || profile.frames(&sample.stack).last().map(|frame| frame.name().into_owned());
                let row = interval.goroutines.entry((pid.unwrap_or(0), goid));
                row.or_insert_with(|| (0, begins().unwrap_or_default())).0 += count;
            }
            if let (None, Some((pid, name))) = (pid, alone) {
                interval.processes.entry(*pid).or_insert_with(|| (0, name.clone())).0 += count;
            }
            if let Some(pid) = pid {
                let name = sample.labels.iter().find_map(|label| match &label.value {
                    LabelValue::Text(name) if label.key == "process" => Some(name.clone()),
                    _ => None,
                });
                interval.processes.entry(pid).or_insert_with(|| (0, name.unwrap_or_default())).0 += count;
            }
        }
        interval
    }
}

/// Sliding window of the last intervals.
#[derive(Debug)]
pub struct Window {
    most: usize,
    intervals: VecDeque<Interval>,
}

impl Window {
    /// Makes a window of `most` intervals, at least one.
    pub fn new(most: usize) -> Self {
        Window { most: most.max(1), intervals: VecDeque::new() }
    }

    /// Adds an interval, and drops those that are too old.
    pub fn push(&mut self, interval: Interval) {
        self.intervals.push_back(interval);
        while self.intervals.len() > self.most {
            self.intervals.pop_front();
        }
    }

    /// Removes all intervals.
    pub fn clear(&mut self) {
        self.intervals.clear();
    }

    /// Sums up the samples of all intervals. `mode`, `rate` and `lost` describe the sampling.
    pub fn top(&self, mode: Mode, rate: u32, lost: u64) -> Top {
        let mut sum = Interval::default();
        for interval in &self.intervals {
            sum.took += interval.took;
            sum.samples += interval.samples;
            sum.work.add(interval.work);
            for (name, (flat, cumulative)) in &interval.functions {
                let entry = sum.functions.entry(name.clone()).or_default();
                entry.0 += flat;
                entry.1 += cumulative;
            }
            for (key, (count, begins)) in &interval.goroutines {
                sum.goroutines.entry(*key).or_insert_with(|| (0, begins.clone())).0 += count;
            }
            for (pid, (count, name)) in &interval.processes {
                sum.processes.entry(*pid).or_insert_with(|| (0, name.clone())).0 += count;
            }
        }
        let seconds = sum.took.as_secs_f64();
        let share = |count: u64| count as f64 / sum.samples.max(1) as f64;
        let mut functions: Vec<FunctionShare> = sum
            .functions
            .iter()
            .map(|(name, &(flat, cumulative))| FunctionShare {
                name: name.clone(),
                flat: share(flat),
                cumulative: share(cumulative),
            })
            .collect();
        functions.sort_by(|a, b| Sort::Flat.compare(a, b));
        let mut goroutines: Vec<GoroutineShare> = sum
            .goroutines
            .iter()
            .map(|(&(pid, goid), (count, begins))| GoroutineShare {
                pid: Some(pid).filter(|&pid| pid != 0),
                goid,
                begins: begins.clone(),
                share: share(*count),
            })
            .collect();
        goroutines.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.goid.cmp(&b.goid)));
        let mut processes: Vec<ProcessShare> = sum
            .processes
            .iter()
            .map(|(&pid, (count, name))| ProcessShare { pid, name: name.clone(), share: share(*count) })
            .collect();
        processes.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.pid.cmp(&b.pid)));
        Top {
            mode,
            rate_hz: rate,
            seconds,
            samples: sum.samples,
            lost,
            cpus: sum.samples as f64 / f64::from(rate.max(1)) / seconds.max(1e-9),
            garbage_collection: share(sum.work.garbage_collection),
            scheduler: share(sum.work.scheduler),
            kernel: share(sum.work.kernel),
            goroutines_ran: sum.goroutines.len(),
            functions,
            goroutines,
            processes,
        }
    }
}

/// CPU use by function, goroutine and process. Shares are of all samples, from 0 to 1.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Top {
    /// Source of the samples.
    pub mode: Mode,
    /// Samples of each CPU per second.
    pub rate_hz: u32,
    /// Length of the measured time in seconds.
    pub seconds: f64,
    /// Number of samples in the measured time.
    pub samples: u64,
    /// Number of samples lost since the start of `top`.
    pub lost: u64,
    /// Average number of CPUs used.
    pub cpus: f64,
    /// Share of Go's garbage collector, from 0 to 1.
    pub garbage_collection: f64,
    /// Share of Go's scheduler, from 0 to 1.
    pub scheduler: f64,
    /// Share of the kernel, from 0 to 1.
    pub kernel: f64,
    /// Number of goroutines that were seen running.
    pub goroutines_ran: usize,
    /// Functions, in descending order of `flat`.
    pub functions: Vec<FunctionShare>,
    /// Goroutines, in descending order of their share. Empty if it is unknown which goroutine ran.
    pub goroutines: Vec<GoroutineShare>,
    /// Processes, in descending order of their share.
    pub processes: Vec<ProcessShare>,
}

/// Share of a function.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FunctionShare {
    /// Name of the function, or its address if it has no name.
    pub name: String,
    /// Share of the function itself, from 0 to 1.
    pub flat: f64,
    /// Share of the function with all functions that it calls, from 0 to 1.
    pub cumulative: f64,
}

/// Share of a goroutine.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GoroutineShare {
    /// Process id. Absent unless several processes are sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
    /// Number of the goroutine.
    pub goid: u64,
    /// Function with which the goroutine began.
    pub begins: String,
    /// Share of the goroutine, from 0 to 1.
    pub share: f64,
}

/// Share of a process.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessShare {
    /// Process id in our pid namespace.
    pub pid: u64,
    /// Name of the process.
    pub name: String,
    /// Share of the process, from 0 to 1.
    pub share: f64,
}

/// Order of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Descending order of the share of the function itself.
    Flat,
    /// Descending order of the share including called functions.
    Cumulative,
    /// Alphabetical order of names.
    Name,
}

impl Sort {
    /// Compares two functions: the smaller comes first.
    pub fn compare(self, a: &FunctionShare, b: &FunctionShare) -> std::cmp::Ordering {
        let flat = b.flat.total_cmp(&a.flat);
        let cumulative = b.cumulative.total_cmp(&a.cumulative);
        let name = a.name.cmp(&b.name);
        match self {
            Sort::Flat => flat.then(cumulative).then(name),
            Sort::Cumulative => cumulative.then(flat).then(name),
            Sort::Name => name,
        }
    }
}

impl Top {
    /// Sorts the functions.
    pub fn sort(&mut self, sort: Sort) {
        self.functions.sort_by(|a, b| sort.compare(a, b));
    }

    /// Formats the line above the tables.
    pub fn summary(&self) -> String {
        let lost = if self.lost > 0 { format!(", {} lost", self.lost) } else { String::new() };
        let ran = match (self.mode, self.goroutines_ran) {
            (Mode::Perf, _) => String::new(),
            (_, 1) => ", 1 goroutine ran".to_owned(),
            (_, ran) => format!(", {ran} goroutines ran"),
        };
        format!(
            "{:.2} CPUs, garbage collection {}, scheduler {}, kernel {}{ran} ({} samples in {:.0} s by {}{lost})",
            self.cpus,
            percent(self.garbage_collection),
            percent(self.scheduler),
            percent(self.kernel),
            self.samples,
            self.seconds,
            self.mode,
        )
    }

    /// Writes text: the summary, and the first `rows` rows of the tables.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub fn write(&self, rows: usize, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}\n", self.summary())?;
        writeln!(out, "{:>7} {:>7}  function", "flat", "cum")?;
        for function in self.functions.iter().take(rows) {
            let (flat, cumulative) = (percent(function.flat), percent(function.cumulative));
            writeln!(out, "{flat:>7} {cumulative:>7}  {}", printable_str(&function.name))?;
        }
        for process in self.processes.iter().take(rows).enumerate().map(|(index, process)| {
            let head = if index == 0 { "\n  share      pid  process\n" } else { "" };
            format!(
                "{head}{:>7} {:>8}  {}",
                percent(process.share),
                process.pid,
                printable_str(&process.name)
            )
        }) {
            writeln!(out, "{process}")?;
        }
        Ok(())
    }
}

/// Formats a share in percent for people.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(functions: &[(&str, u64, u64)], samples: u64) -> Interval {
        Interval {
            took: Duration::from_secs(1),
            samples,
            functions: functions.iter().map(|&(name, a, b)| (name.to_owned(), (a, b))).collect(),
            goroutines: HashMap::from([((0, samples), (samples, "main.main".to_owned()))]),
            ..Interval::default()
        }
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut window = Window::new(2);
        window.push(interval(&[("old", 10, 10)], 10));
        window.push(interval(&[("a", 30, 40), ("b", 10, 40)], 40));
        window.push(interval(&[("b", 60, 60)], 60));
        let mut top = window.top(Mode::Bpf, 100, 0);
        let names = |top: &Top| top.functions.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!((names(&top), top.samples, top.cpus, top.goroutines_ran), ("b a".into(), 100, 0.5, 2));
        assert_eq!((top.functions[0].flat, top.functions[0].cumulative), (0.7, 1.0));
        top.sort(Sort::Name);
        assert_eq!(names(&top), "a b");
        let mut text = Vec::new();
        top.write(1, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("0.50 CPUs, ") && text.contains(" 30.0 %  40.0 %  a\n"), "{text}");
    }
}
