//! A capture from its beginning to its end: who takes the samples, of which processes, and for how long.

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

/// What was captured.
#[allow(missing_debug_implementations, reason = "some of what is known has none")]
pub struct Captured {
    /// The programs that were seen, as the samples name them.
    pub known: Vec<SampledProgram>,
    /// The files of their other code.
    pub files: Files,
    /// The samples.
    pub collected: Collected,
    /// What the source counted.
    pub counts: Counts,
    /// How it was done.
    pub mode: Mode,
    /// Why not in a better way.
    pub because: Vec<String>,
    /// What it cannot tell, in sentences.
    pub notes: Vec<String>,
    /// Samples of each CPU in a second: what was asked for, or what could be had of that.
    pub rate: u32,
    /// When it began.
    pub begun: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// It ended before its time.
    pub early: Option<&'static str>,
}

/// How long to wait for samples until the clock and the target are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How soon one that has just begun is looked at again.
const YOUNG: Duration = Duration::from_millis(2);

/// Captures samples of `processes`; `watch` is asked several times a second whether to go on.
///
/// # Errors
/// Where no sample can be taken in any way that is allowed.
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

/// A capture that goes on until it is ended.
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
    /// Begins to take samples of `processes`.
    ///
    /// # Errors
    /// Where no sample can be taken in any way that is allowed.
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

    /// Collects what there is, after up to `timeout`.
    ///
    /// # Errors
    /// Where it cannot go on.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), Error> {
        // What was found out about new processes is for the source, which is busy until it has told all.
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
            // It may have ended again.
            if let Err(error) = source.add(known.pid, &known.go_targets()) {
                tracing::info!("process {}: {error}", known.pid);
            }
        }
        Ok(())
    }

    /// Why no more samples will come, if that is so: children of the targets may still run.
    pub fn ended(&self) -> Option<&'static str> {
        let all = !self.processes.is_empty() && !self.options.children;
        (all && self.processes.iter().all(has_ended)).then_some(match self.processes {
            [_] => "the process ended",
            _ => "the processes ended",
        })
    }

    /// What was collected since it was last asked for, and the programs that the samples name.
    pub fn take(&mut self) -> (Collected, &mut [SampledProgram]) {
        (std::mem::take(&mut self.collected), &mut self.programs.known)
    }

    /// How samples are taken.
    pub fn mode(&self) -> Mode {
        self.chosen.mode
    }

    /// Why not in a better way.
    pub fn because(&self) -> &[String] {
        &self.chosen.because
    }

    /// Samples of each CPU in a second: what was asked for, or what could be had of that.
    pub fn rate(&self) -> u32 {
        self.chosen.rate
    }

    /// What is left out, in sentences.
    pub fn notes(&self) -> Vec<String> {
        self.programs.left_out()
    }

    /// What the source counted so far.
    pub fn counts(&self) -> Counts {
        self.chosen.source.counts()
    }

    /// Ends it, before its time where there is a reason.
    ///
    /// # Errors
    /// Where the last samples cannot be had.
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
    /// What is left out, in sentences. Of that, names are left out when a profile is made.
    pub fn left_out(&self) -> Vec<String> {
        left_out(&self.known, &self.files)
    }
}

/// A process that executes another program is still there.
fn has_ended(process: &Process) -> bool {
    matches!(process.check(), Err(process::Error::Exited(_) | process::Error::NoSuchProcess(_)))
}
