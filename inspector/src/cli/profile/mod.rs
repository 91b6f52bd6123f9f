//! Profile commands: profiles are read from outside or from an agent, and written in any format.

pub(in crate::cli) mod cpu;
mod job;

use crate::cli::command::{Patience, Run};
use crate::cli::confinement::{GUARDING, Work};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::job::Job;
use super::args::{Common, RuntimeProfileArgs, Via, WayArgs};
use super::enable;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::via::{Chosen, choose};
use crate::Error;
use crate::operations;
use crate::operations::profile::{ProfileKind, reading};
use crate::operations::target::ResolvedTarget;
use crate::process::Process;

/// Command for a profile that the runtime keeps, with its arguments.
pub(in crate::cli) struct ProfileCommand<'a>(
    pub(in crate::cli) ProfileKind,
    pub(in crate::cli) &'a RuntimeProfileArgs,
);

impl Run for ProfileCommand<'_> {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self.0, self.1, common)
    }

    fn work(&self) -> Work {
        Work { opens: self.1.format.open, ..GUARDING }
    }

    fn patience(&self) -> Patience {
        Patience::given(self.1.way.timeout)
    }
}

/// Runs `pprof-heap` and similar commands.
fn run(kind: ProfileKind, args: &RuntimeProfileArgs, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    if kind.signal().is_none() {
        only_from_outside(kind, &found, &args.way)?;
    }
    let duration = args.duration.map(|period| period.duration());
    if duration.is_some() && !args.diff && args.enable.is_none() {
        return Err(Error::Usage("--duration requires --diff or --enable".to_owned()));
    }
    let apart = duration.filter(|_| args.diff);
    let rate = args.enable.as_deref().zip(duration);
    let window = rate.map(|(rate, duration)| enable::request(kind, rate, duration)).transpose()?;
    // An agent switches no profiler on.
    let way = args.runtime.way(args.way.without_agent(window.map(|_| "--enable"))?)?;
    let job = Job::begin(kind.name(), &args.format, found.named().into(), &found.titled(), common)?;
    let outside = |process: &Process| {
        let runtime = args.runtime.chosen();
        let Some(window) = window else {
            return reading(kind, process, runtime, apart, |apart| wait(kind.name(), apart, &job.interrupt));
        };
        let interrupted = || job.interrupt.is_pending();
        let (taken, closed) = operations::enable::profile(kind, process, runtime, window, &interrupted)?;
        closed.iter().for_each(|closed| enable::tell(closed, common));
        Ok(taken)
    };
    match choose(&found, &way, common, outside)? {
        Chosen::Probe(taken) => job.write(taken, "probe"),
        Chosen::Agent(connection) => {
            let Some(signal) = kind.signal() else { return Err(no_agent(kind)) };
            job.of_agent(&found, connection, signal, &args.way, apart)
        }
    }
}

fn only_from_outside(kind: ProfileKind, found: &ResolvedTarget, way: &WayArgs) -> Result<(), Error> {
    match found {
        ResolvedTarget::Process(_) if way.via != Via::Agent => Ok(()),
        _ => Err(no_agent(kind)),
    }
}

fn no_agent(kind: ProfileKind) -> Error {
    Error::Usage(format!(
        "agents cannot answer pprof-{}: give a process of this machine, without --via agent",
        kind.name()
    ))
}

/// Waits for `time`, or until the user interrupts.
fn wait(what: &'static str, time: Duration, interrupt: &Interrupt) {
    const STEP: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    let mut progress = Progress::new(what, time);
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        if interrupt.is_pending() {
            return;
        }
        sleep(rest.min(STEP));
        progress.tick(0);
    }
}
