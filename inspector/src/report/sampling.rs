//! Method of CPU sampling, and quality of the samples.

use std::fmt;

use serde::Serialize;

use crate::capture::cpu::collect::Quality;
use crate::capture::cpu::mode::Mode;
use crate::capture::cpu::session::Captured;
use crate::capture::cpu::work::Work;

/// Method of CPU sampling, and quality of the samples.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sampling {
    /// Source of the samples.
    pub mode: Mode,
    /// Reasons why no better source was used. Empty if there is no better one, or if it was not wanted.
    pub because: Vec<String>,
    /// Limits of the source, in sentences.
    pub notes: Vec<String>,
    /// Samples of each CPU per second: the rate that was asked for, or a lower one if it was not possible.
    pub rate_hz: u32,
    /// Duration of sampling, in nanoseconds.
    pub duration_ns: u64,
    /// Reason why sampling ended early. Absent if it lasted as long as wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early: Option<&'static str>,
    /// Number of samples that were lost.
    pub lost: u64,
    /// Quality of the samples.
    #[serde(flatten)]
    pub quality: Quality,
    /// Samples of work that the runtime and the kernel do.
    #[serde(flatten)]
    pub work: Work,
}

impl Sampling {
    /// Describes a capture whose samples were of this `work`.
    pub fn of(captured: &Captured, work: Work) -> Self {
        Sampling {
            mode: captured.mode,
            because: captured.because.clone(),
            notes: captured.notes.clone(),
            rate_hz: captured.rate,
            duration_ns: u64::try_from(captured.took.as_nanos()).unwrap_or(u64::MAX),
            early: captured.early,
            lost: captured.counts.lost,
            quality: captured.collected.quality(),
            work,
        }
    }

    /// Returns the facts that the user has to know about the samples, in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .because
            .iter()
            .map(|why| format!("samples are taken by {}, not by {why}", self.mode))
            .collect();
        notes.extend(self.notes.iter().map(|note| format!("{}: {note}", self.mode)));
        let Quality { samples, cut, unknown, .. } = self.quality;
        if let Some(why) = self.early {
            notes.push(format!("{:.1} s only: {why}", self.seconds()));
        }
        if self.lost > 0 && samples > 0 {
            notes.push(format!("{} samples were lost, and {samples} were not", self.lost));
        }
        if cut > 0 {
            notes.push(format!(
                "{cut} stacks were too deep to be walked to their end: their outermost frames are missing"
            ));
        }
        if unknown > 0 {
            notes.push(format!(
                "{unknown} samples have no names: their processes ended before their programs could be read"
            ));
        }
        if samples == 0 && self.lost == 0 {
            notes.push("there are no samples: nothing used a CPU in that time".to_owned());
        }
        notes
    }

    /// Returns the reason why there are no samples although CPUs were used. `None` if there are samples, or
    /// if no CPU was used. The sentence replaces an empty profile.
    pub fn missing(&self) -> Option<String> {
        (self.quality.samples == 0 && self.lost > 0).then(|| {
            format!(
                "there are no samples: all {} that the CPU time of that period stands for were lost{}",
                self.lost,
                match self.mode {
                    Mode::Ptrace =>
                        ", because no thread was found on a CPU: they run too briefly, or others have the CPUs",
                    Mode::Bpf | Mode::Perf => "",
                }
            )
        })
    }

    fn seconds(&self) -> f64 {
        self.duration_ns as f64 / 1e9
    }
}

/// Text for `-v`.
impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quality { samples, user, rooted, on_goroutine, .. } = self.quality;
        let Work { garbage_collection, scheduler, kernel } = self.work;
        let share = |count: u64| 100.0 * count as f64 / samples.max(1) as f64;
        let seconds = samples as f64 / f64::from(self.rate_hz.max(1));
        write!(
            f,
            "{samples} samples by {} ({seconds:.2} s of CPU time in {:.1} s, {} samples/s), {} lost; {rooted} of {user} stacks \
             whole, {on_goroutine} on goroutines; garbage collection {:.1} %, scheduler {:.1} %, kernel {:.1} %",
            self.mode,
            self.seconds(),
            self.rate_hz,
            self.lost,
            share(garbage_collection),
            share(scheduler),
            share(kernel),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_was_used() {
        let sampling = |samples, lost| Sampling {
            mode: Mode::Ptrace,
            because: Vec::new(),
            notes: vec!["180 ms of CPU time are of threads that no look found running".to_owned()],
            rate_hz: 100,
            duration_ns: 2_000_000_000,
            early: None,
            lost,
            quality: Quality { samples, user: samples, ..Quality::default() },
            work: Work::default(),
        };
        let none = sampling(0, 18);
        let said = none.sentences().join("\n");
        assert!(!said.contains("nothing used a CPU") && !said.contains("and 0 were not"), "{said}");
        let missing = none.missing().unwrap();
        assert!(missing.contains("all 18") && missing.contains("no thread was found on a CPU"), "{missing}");
        assert!(sampling(0, 0).sentences().join("\n").contains("nothing used a CPU"));
        let some = sampling(3, 18);
        assert!(some.sentences().join("\n").contains("18 samples were lost, and 3 were not"));
        assert_eq!((some.missing(), sampling(0, 0).missing()), (None, None));
    }
}
