//! Capture session from begin to end: source, processes and duration.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use super::choice::{Chosen, choose};
use super::collect::Collected;
use super::known::SampledProgram;
use super::mode::{CaptureOptions, Mode};
use super::programs::{Programs, left_out};
use super::source::{Counts, Event};
use crate::Error;
use crate::native::Files;
use crate::process::{self, Process};

/// Result of a capture.
#[allow(missing_debug_implementations, reason = "some of what is known has none")]
pub struct Captured {
    /// Programs that were seen; samples refer to them by index.
    pub known: Vec<SampledProgram>,
    /// Files of the other code of the programs.
    pub files: Files,
    /// Collected samples.
    pub collected: Collected,
    /// Counts of the source.
    pub counts: Counts,
    /// Way in which samples were taken.
    pub mode: Mode,
    /// Reasons why better ways were not used.
    pub because: Vec<String>,
    /// Limits of the samples, in sentences.
    pub notes: Vec<String>,
    /// Samples per second and CPU: the requested rate, or the possible part of it.
    pub rate: u32,
    /// Time of the start.
    pub begun: SystemTime,
    /// Duration of the capture.
    pub took: Duration,
    /// Reason for an early end; `None` if the full time was captured.
    pub early: Option<&'static str>,
}

/// Time to wait for samples between two checks of the clock and the target.
const TICK: Duration = Duration::from_millis(100);
/// Interval at which a process that has just begun is examined again.
const YOUNG: Duration = Duration::from_millis(2);

/// Captures samples of `processes`. Calls `watch` several times a second to ask whether to continue.
///
/// # Errors
/// Returns an error if no allowed way of sampling works.
pub fn capture(
    processes: &[Process],
    options: &CaptureOptions,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Captured, Error> {
    let mut capture = Capture::begin(processes, options)?;
    let mut early = None;
    while let Some(left) =
        options.duration.checked_sub(capture.start.elapsed()).filter(|left| !left.is_zero())
    {
        if watch().is_break() {
            early = Some("it was interrupted");
            break;
        }
        early = capture.ended();
        if early.is_some() {
            break;
        }
        capture.poll(left.min(TICK))?;
    }
    capture.end(early)
}

/// Capture that continues until it is ended.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub struct Capture<'o> {
    processes: &'o [Process],
    options: &'o CaptureOptions,
    programs: Programs,
    chosen: Chosen,
    collected: Collected,
    begun: SystemTime,
    start: Instant,
}

impl<'o> Capture<'o> {
    /// Starts sampling of `processes`.
    ///
    /// # Errors
    /// Returns an error if no allowed way of sampling works.
    pub fn begin(processes: &'o [Process], options: &'o CaptureOptions) -> Result<Self, Error> {
        let mut programs = Programs::default();
        for process in processes {
            let known = SampledProgram::open_wanted(process, &programs.files, &programs.known)?;
            programs.add(process.pid(), known);
        }
        let mut chosen = choose(options, &programs.known)?;
        if options.children {
            programs.add_descendants(processes, &mut *chosen.source)?;
        }
        let (begun, start) = (SystemTime::now(), Instant::now());
        Ok(Capture { processes, options, programs, chosen, collected: Collected::default(), begun, start })
    }

    /// Collects the samples that have arrived, after up to `timeout`.
    ///
    /// # Errors
    /// Returns an error if sampling cannot continue.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), Error> {
        // New processes are passed to the source after the poll: the source is busy until it has reported
        // everything.
        let mut found = HashSet::new();
        let by_thread = self.options.by_thread;
        let Capture { programs, chosen: Chosen { source, .. }, collected, .. } = self;
        let timeout = if programs.look_ahead() { timeout.min(YOUNG) } else { timeout };
        let polled = source.poll(timeout, &mut |event| match event {
            Event::Sample(sample) => {
                if let Some(index) = programs.known_of(&sample, &mut found) {
                    let known = programs.known.get_mut(index).map(|known| (index, known));
                    collected.add(&sample, known, by_thread);
                } else {
                    collected.add(&sample, None, by_thread);
                }
            }
            Event::Fork { pid, parent } => programs.began(pid, parent),
            Event::Executing(pid) => programs.executes(pid),
            Event::Exec(pid) => found.extend(programs.executed(pid)),
        });
        polled.map_err(|e| Error::Failed(format!("taking samples: {e}")))?;
        for known in found.into_iter().filter_map(|index| programs.known.get(index)) {
            // The process may have ended again.
            if let Err(error) = source.add(known.pid, &known.go_targets()) {
                tracing::info!("process {}: {error}", known.pid);
            }
        }
        Ok(())
    }

    /// Returns the reason why no more samples will come, if so. Children of the targets may still run.
    pub fn ended(&self) -> Option<&'static str> {
        let all = !self.processes.is_empty() && !self.options.children;
        (all && self.processes.iter().all(has_ended)).then_some(match self.processes {
            [_] => "the process ended",
            _ => "the processes ended",
        })
    }

    /// Takes the samples collected since the last call, with the programs that they refer to.
    pub fn take(&mut self) -> (Collected, &mut [SampledProgram]) {
        (std::mem::take(&mut self.collected), &mut self.programs.known)
    }

    /// Way in which samples are taken.
    pub fn mode(&self) -> Mode {
        self.chosen.mode
    }

    /// Reasons why better ways are not used.
    pub fn because(&self) -> &[String] {
        &self.chosen.because
    }

    /// Samples per second and CPU: the requested rate, or the possible part of it.
    pub fn rate(&self) -> u32 {
        self.chosen.rate
    }

    /// Describes in sentences what is left out.
    pub fn notes(&self) -> Vec<String> {
        self.programs.left_out()
    }

    /// Counts of the source so far.
    pub fn counts(&self) -> Counts {
        self.chosen.source.counts()
    }

    /// Ends the capture; `early` is the reason if it ends before its time.
    ///
    /// # Errors
    /// Returns an error if the last samples cannot be read.
    pub fn end(mut self, early: Option<&'static str>) -> Result<Captured, Error> {
        let took = self.start.elapsed();
        self.poll(Duration::ZERO)?;
        let Capture { options, programs, chosen, collected, begun, .. } = self;
        let Chosen { source, mode, rate, because } = chosen;
        let (counts, mut notes) = (source.counts(), source.notes());
        let wanted = options.rate;
        if rate != wanted {
            notes.push(format!("{rate} samples per second instead of {wanted}: {mode} cannot take more"));
        }
        let Programs { known, files, .. } = programs;
        notes.extend(collected.notes());
        Ok(Captured { known, files, collected, counts, mode, because, notes, rate, begun, took, early })
    }
}

impl Captured {
    /// Describes in sentences what is left out. Names are left out only when a profile is made.
    pub fn left_out(&self) -> Vec<String> {
        left_out(&self.known, &self.files)
    }
}

/// Returns true if the process has ended. A process that executes another program has not ended.
fn has_ended(process: &Process) -> bool {
    matches!(process.check(), Err(process::Error::Exited(_) | process::Error::NoSuchProcess(_)))
}
