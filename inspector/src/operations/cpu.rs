//! CPU profiles, made of samples.

use std::ops::ControlFlow;
use std::time::Duration;

use super::Interrupted;
use super::profile::Taken;
use crate::Error;
use crate::capture::cpu::mode::CaptureOptions;
use crate::capture::cpu::profile::profile;
use crate::capture::cpu::session::{self, Captured};
use crate::capture::cpu::work::Works;
use crate::native::Kernel;
use crate::process::Process;
use crate::profile::pprof;
use crate::report::sampling::Sampling;
use crate::report::stack::AnswerCost;

/// Takes samples for the time that `options` give, or until `goes_on` breaks. An empty list of processes
/// means the whole machine.
///
/// # Errors
/// Returns an error if no samples can be taken.
pub(crate) fn take(
    processes: &[Process],
    options: &CaptureOptions,
    goes_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Taken, Error> {
    Ok(taken(session::capture(processes, options, goes_on)?))
}

/// Returns a CPU profile as an agent would answer it, but with 99 samples per second. The profile is shorter
/// if `interrupted` returns true.
pub(crate) fn as_agent(
    process: &Process,
    duration: Duration,
    interrupted: Interrupted<'_>,
) -> Result<Vec<u8>, Error> {
    let options = CaptureOptions::lasting(duration);
    let mut goes_on = || if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    Ok(pprof::write(&take(std::slice::from_ref(process), &options, &mut goes_on)?.profile))
}

fn taken(mut captured: Captured) -> Taken {
    let kernel = Kernel::default();
    let profile = profile(&mut captured, &|address| kernel.function(address));
    let sampling = Sampling::of(&captured, Works::new(&profile).all());
    let mut cost =
        captured.known.iter().map(|known| AnswerCost::of_reading(known.cost())).reduce(AnswerCost::and);
    if let (Some(cost), Some(pauses)) = (&mut cost, captured.counts.pauses) {
        cost.stopped_us = u64::try_from(pauses.longest.as_micros()).unwrap_or(u64::MAX);
        cost.threads_stopped = usize::try_from(pauses.number).unwrap_or(usize::MAX);
    }
    let missing = sampling.missing();
    Taken { profile, cost, missing, notes: sampling.sentences(), ticks: None, sampling: Some(sampling) }
}
