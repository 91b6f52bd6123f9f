//! Command `pprof-cpu`: samples of the code that runs on the CPUs.

use std::ops::ControlFlow;
use std::time::Duration;

use super::job::Job;
use crate::Error;
use crate::agent::Signal;
use crate::capture::cpu::mode::{CaptureOptions, Loader};
use crate::cli::args::{Common, CpuProfileArgs, SampledArgs, Via};
use crate::cli::command::{Patience, Run};
use crate::cli::confinement::{INSPECTING, Work};
use crate::cli::interrupt::Interrupt;
use crate::cli::notices::Notice;
use crate::cli::progress::Progress;
use crate::cli::via::{Chosen, choose};
use crate::operations::cpu;
use crate::operations::profile::Taken;
use crate::operations::target::ResolvedTarget;
use crate::process::Process;
use crate::report::answers::Asked;

impl Run for CpuProfileArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn work(&self) -> Work {
        Work { samples: true, opens: self.format.open, ..INSPECTING }
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }
}

/// Runs `pprof-cpu`.
fn run(args: &CpuProfileArgs, common: &Common) -> Result<(), Error> {
    let found = args.sampled.find(common)?;
    let duration = args.duration.duration();
    if duration.is_zero() {
        return Err(Error::Usage("--duration must be longer than 0".to_owned()));
    }
    let asked = asked(&found);
    let title = match found.as_slice() {
        [one] => one.titled(),
        _ => asked.to_string(),
    };
    let job = Job::begin("cpu", &args.format, asked, &title, common)?;
    let take = |processes: &[Process]| -> Result<Taken, Error> {
        let mut progress = Progress::new("cpu", duration);
        cpu::take(processes, &options(&args.sampled, duration), &mut || {
            progress.tick(0);
            goes_on(&job.interrupt)
        })
    };
    let [one] = found.as_slice() else {
        if args.way.via == Via::Agent {
            return Err(Error::Usage("an agent samples only its own process: give one target".to_owned()));
        }
        let taken = take(&processes(found)?)?;
        return job.write(taken, "probe");
    };
    match choose(one, &args.way, common, |process| take(std::slice::from_ref(process)))? {
        Chosen::Probe(taken) => job.write(taken, "probe"),
        Chosen::Agent(connection) => {
            if duration != Signal::CpuProfile.measures_for() || args.sampled.is_special() {
                Notice::Note.tell(common, "the agent always samples its process for 30 s at 100 Hz");
            }
            job.of_agent(one, connection, Signal::CpuProfile, &args.way, None)
        }
    }
}

impl SampledArgs {
    /// Finds the targets to sample. An empty list means the whole machine.
    pub(in crate::cli) fn find(&self, common: &Common) -> Result<Vec<ResolvedTarget>, Error> {
        self.targets.iter().map(|target| target.find(self.wait, common)).collect()
    }

    /// Returns true if an option is set that no agent supports.
    fn is_special(&self) -> bool {
        self.threads || self.children || self.mode.is_some()
    }
}

/// Names the targets that were asked about. An empty list means the whole machine.
pub(in crate::cli) fn asked(found: &[ResolvedTarget]) -> Asked {
    match found {
        [] => Asked::Machine,
        [one] => one.named().into(),
        several => {
            Asked::Several(several.iter().filter_map(ResolvedTarget::process).map(Process::pid).collect())
        }
    }
}

/// Returns the processes that were found. An agent among them is an error.
pub(in crate::cli) fn processes(found: Vec<ResolvedTarget>) -> Result<Vec<Process>, Error> {
    let process = |found| match found {
        ResolvedTarget::Process(process) => Ok(process),
        ResolvedTarget::Agent(address) => Err(Error::Usage(format!(
            "{address} is the address of an agent, which samples only its own process: give it as the only target"
        ))),
    };
    found.into_iter().map(process).collect()
}

/// Makes the options of the capture.
pub(in crate::cli) fn options(args: &SampledArgs, duration: Duration) -> CaptureOptions {
    CaptureOptions {
        rate: args.rate,
        duration,
        whole_system: args.system,
        children: args.children,
        by_thread: args.threads,
        kernel_frames: true,
        mode: args.mode.map(Into::into),
        loader: Loader::default(),
    }
}

/// Breaks once the user has interrupted.
pub(in crate::cli) fn goes_on(interrupt: &Interrupt) -> ControlFlow<()> {
    if interrupt.is_pending() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
