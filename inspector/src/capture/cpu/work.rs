//! Purpose of CPU time, by the functions of a stack: the program's own work, or that of the runtime.

use std::collections::HashMap;

use crate::profile::{Profile, Sample};

/// Numbers of samples by kind of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Work {
    /// Samples of Go's garbage collector: its workers, assists by goroutines that allocate, sweeping and
    /// scavenging.
    pub garbage_collection: u64,
    /// Samples of Go's scheduler: the search for a goroutine to run, and the monitor thread.
    pub scheduler: u64,
    /// Samples in the kernel.
    pub kernel: u64,
}

impl Work {
    /// Adds the numbers of other samples.
    pub fn add(&mut self, other: Work) {
        self.garbage_collection += other.garbage_collection;
        self.scheduler += other.scheduler;
        self.kernel += other.kernel;
    }
}

/// Functions that only collect garbage, with all functions that they call (`runtime/mgc.go`, `mgcmark.go`,
/// `mgcsweep.go`, `mgcscavenge.go`, `mwbbuf.go`; Go 1.18 to 1.27).
const COLLECTOR: &[&str] = &[
    "runtime.gcBgMarkWorker",
    "runtime.gcAssistAlloc",
    "runtime.gcAssistAlloc1",
    "runtime.gcStart",
    "runtime.gcMarkDone",
    "runtime.gcMarkTermination",
    "runtime.gcDrain",
    "runtime.gcDrainN",
    "runtime.bgsweep",
    "runtime.sweepone",
    "runtime.deductSweepCredit",
    "runtime.(*sweepLocked).sweep",
    "runtime.bgscavenge",
    "runtime.wbBufFlush",
];

/// Functions that search for a goroutine to run (`runtime/proc.go`; `findrunnable` until Go 1.18).
const SCHEDULER: &[&str] = &[
    "runtime.schedule",
    "runtime.findRunnable",
    "runtime.findrunnable",
    "runtime.sysmon",
    "runtime.park_m",
    "runtime.goschedImpl",
    "runtime.exitsyscall0",
    "runtime.templateThread",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Collector,
    Scheduler,
}

/// Classifier of the samples of a profile by kind of work.
#[derive(Debug)]
pub struct Works<'p> {
    profile: &'p Profile,
    functions: HashMap<usize, Of>,
    kernel: Vec<bool>,
}

impl<'p> Works<'p> {
    /// Creates a classifier for the samples of this profile.
    pub fn new(profile: &'p Profile) -> Self {
        let of = |name: &str| match name {
            name if COLLECTOR.contains(&name) => Some(Of::Collector),
            name if SCHEDULER.contains(&name) => Some(Of::Scheduler),
            _ => None,
        };
        let functions = profile.functions.iter().enumerate();
        Works {
            profile,
            functions: functions.filter_map(|(index, f)| Some((index, of(&f.name)?))).collect(),
            kernel: profile.mappings.iter().map(|m| m.start >> 63 != 0).collect(),
        }
    }

    /// Classifies one sample. The first value of the sample is its count.
    pub fn of(&self, sample: &Sample) -> Work {
        let count = sample.values.first().map_or(0, |count| u64::try_from(*count).unwrap_or(0));
        let locations = || sample.stack.iter().filter_map(|&index| self.profile.locations.get(index));
        let in_kernel = locations().next().and_then(|location| location.mapping);
        let functions = locations().flat_map(|location| &location.lines);
        let mut found = functions.filter_map(|line| self.functions.get(&line.function));
        // The scheduler calls the collector's workers, never the other way round.
        let first = found.next();
        let collects = first == Some(&Of::Collector) || found.any(|of| *of == Of::Collector);
        Work {
            garbage_collection: if collects { count } else { 0 },
            scheduler: if first.is_some() && !collects { count } else { 0 },
            kernel: if in_kernel.and_then(|m| self.kernel.get(m)) == Some(&true) { count } else { 0 },
        }
    }

    /// Classifies all samples.
    pub fn all(&self) -> Work {
        let mut all = Work::default();
        self.profile.samples.iter().for_each(|sample| all.add(self.of(sample)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Function, Line, Location, Mapping};
    use std::time::UNIX_EPOCH;

    #[test]
    fn by_the_functions_of_the_stack() {
        let names =
            ["main.main", "runtime.gcAssistAlloc", "runtime.schedule", "runtime.mallocgc", "do_syscall_64"];
        let function = |name: &&str| Function { name: (*name).to_owned(), ..Function::default() };
        let location = |function| Location {
            mapping: Some(usize::from(function == 4)),
            address: 1,
            lines: vec![Line { function, line: 0 }],
        };
        let mapping = |start| Mapping {
            start,
            end: start + 1,
            offset: 0,
            file: String::new(),
            build_id: String::new(),
            symbolized: true,
        };
        let sample = |stack: &[usize]| Sample { stack: stack.to_vec(), values: vec![3], labels: Vec::new() };
        let profile = Profile {
            sample_types: Vec::new(),
            default_sample_type: 0,
            period: None,
            time: UNIX_EPOCH,
            duration: None,
            mappings: vec![mapping(4096), mapping(1 << 63)],
            locations: (0..names.len()).map(location).collect(),
            functions: names.iter().map(function).collect(),
            samples: [[0].as_slice(), &[1, 3, 0], &[2], &[4, 3, 0], &[4, 1, 2]].map(sample).into(),
            comments: Vec::new(),
        };
        assert_eq!(Works::new(&profile).all(), Work { garbage_collection: 6, scheduler: 3, kernel: 6 });
    }
}
