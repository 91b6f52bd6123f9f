//! Command `process`.

use std::time::Duration;

use super::args::{Common, ProcessArgs};
use super::command::Run;
use super::duration::Period;
use super::notices::Notice;
use super::output;
use crate::Error;
use crate::operations::process::look;
use crate::operations::version;
use crate::process::details::Details;
use crate::process::{Pid, Process};
use crate::report::process::{ProcessInfo, write_text};

impl Run for ProcessArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn stops(&self) -> bool {
        false
    }
}

fn run(args: &ProcessArgs, common: &Common) -> Result<(), Error> {
    let period = args.period.unwrap_or_default();
    refuse_second_process(period)?;
    let process = args.target.process("process", common)?;
    tell_progress(period.duration(), common);
    let seen = look(&process, period.duration(), common.detail())?;
    if common.json {
        output::write_json(common, &ProcessInfo::new(&seen.details, &seen.live))?;
    } else {
        let period = period.to_string();
        let verbose = common.verbose > 0;
        output::write(common, |out| write_text(&seen.details, &seen.live, &period, verbose, out))?;
    }
    tell_unknown(&seen.details, common);
    seen.conclude()
}

/// Refuses a period that is the pid of a process: a user who gives two pids does not want to measure for an
/// hour. Short periods, such as 1, may be pids by accident; they are refused only if the process is a Go
/// process.
fn refuse_second_process(period: Period) -> Result<(), Error> {
    const SHORT: u64 = 300;
    let Some(seconds) = period.plain_seconds() else { return Ok(()) };
    let is_meant = |process: &Process| seconds > SHORT || version::look(process).is_ok();
    match Pid::try_from(seconds).ok().and_then(|pid| Process::pin(pid).ok()).filter(is_meant) {
        Some(process) => Err(Error::Usage(format!(
            "{seconds} is taken as a period, but is also the pid of {}: write {seconds}s for a period, or give one process \
             at a time",
            process.name()
        ))),
        None => Ok(()),
    }
}

fn tell_progress(period: Duration, common: &Common) {
    if period > Duration::from_secs(1) {
        Notice::Hint.tell_on_terminal(common, format_args!("measuring for {} s", period.as_secs_f64()));
    }
}

/// Names the facts that could not be determined.
fn tell_unknown(details: &Details, common: &Common) {
    if let Some(not_go) = details.more.as_ref().and_then(|more| more.not_go.as_ref()) {
        Notice::Hint.tell(common, not_go);
    }
    if let (None, Some(uids)) = (&details.user, details.status.uids) {
        Notice::Unknown.tell(common, format_args!("the name of user {}", uids[0]));
    }
    for unknown in &details.unknown {
        Notice::Unknown.tell(common, unknown);
    }
    if let Some(hint) = details.unknown.first().and_then(|first| first.hint()) {
        Notice::Hint.tell(common, hint);
    }
}
