//! `process`.

use std::time::Duration;

use super::args::{Common, ProcessArgs};
use super::duration::Period;
use super::notices::Notice;
use super::{list, output};
use crate::Error;
use crate::memory::Memory as _;
use crate::process::details::{self, Details};
use crate::process::find::{self, Detail};
use crate::process::{self, Pid, Process};
use crate::report::process::{Live, ProcessInfo, write_text};
use crate::runtime::open::open_all;
use crate::runtime::settings;

pub(super) fn run(args: &ProcessArgs, common: &Common) -> Result<(), Error> {
    let period = args.period.unwrap_or_default();
    refuse_second_process(period)?;
    let process = args.target.process("process", common)?;
    tell_progress(period.duration(), common);
    let everything = common.json || common.verbose > 0;
    let detail = if everything { Detail::All } else { Detail::Text };
    let mut details = details::look(&process, period.duration(), detail)?;
    let live = live(&process, &mut details)?;
    if common.json {
        output::write_json(common, &ProcessInfo::new(&details, &live))?;
    } else {
        let period = period.to_string();
        output::write(common, |out| write_text(&details, &live, &period, common.verbose > 0, out))?;
    }
    conclude(&details, common)
}

/// Fails where the period is the pid of a process: who writes two pids wants no measurement of an hour. Short periods may be
/// pids of processes that nobody means, such as 1; these have to be Go processes.
fn refuse_second_process(period: Period) -> Result<(), Error> {
    const SHORT: u64 = 300;
    let Some(seconds) = period.plain_seconds() else { return Ok(()) };
    let is_meant = |process: &Process| seconds > SHORT || find::one(process).is_ok();
    match Pid::try_from(seconds).ok().and_then(|pid| Process::pin(pid).ok()).filter(is_meant) {
        Some(process) => Err(Error::Usage(format!(
            "{seconds} is taken as a period, but is also the pid of {}: write {seconds}s for a period, or give one process \
             at a time",
            process.name()
        ))),
        None => Ok(()),
    }
}

/// What the runtime is set to, read from the memory of a Go process.
fn live(process: &Process, details: &mut Details) -> Result<Live, Error> {
    if details.more.as_ref().is_none_or(|more| more.go.is_none()) {
        return Ok(Live::default());
    }
    let runtimes = match open_all(process).map_err(Error::from) {
        Ok(opened) => opened,
        Err(Error::Process(gone @ (process::Error::Exited(_) | process::Error::Executed(_)))) => {
            return Err(gone.into());
        }
        Err(Error::Process(other)) => {
            details.unknown.push(other);
            return Ok(Live::default());
        }
        Err(other) => {
            let source = std::io::Error::other(other.to_string());
            let action = "read the settings of the runtime";
            details.unknown.push(process::Error::Io { pid: process.pid(), action, source });
            return Ok(Live::default());
        }
    };
    let several = runtimes.are_several();
    let memory = process.memory();
    let mut live = Live::default();
    for opened in runtimes.opened {
        memory.add_cost(opened.cost);
        let settings = settings::read(&opened.view, &memory);
        if several {
            live.runtimes.push((opened.name, settings));
        } else {
            live.settings = settings;
        }
    }
    for (name, error) in runtimes.failed {
        let source = std::io::Error::other(format!("{name}: {error}"));
        let action = "read the settings of a Go runtime";
        details.unknown.push(process::Error::Io { pid: process.pid(), action, source });
    }
    process.check()?;
    Ok(Live { cost: memory.cost(), ..live })
}

fn tell_progress(period: Duration, common: &Common) {
    if period > Duration::from_secs(1) {
        Notice::Hint.tell_on_terminal(common, format_args!("measuring for {} s", period.as_secs_f64()));
    }
}

/// Names what could not be found out.
fn conclude(details: &Details, common: &Common) -> Result<(), Error> {
    if let Some(not_go) = details.more.as_ref().and_then(|more| more.not_go.as_ref()) {
        Notice::Hint.tell(common, not_go);
    }
    if let (None, Some(uids)) = (&details.user, details.status.uids) {
        Notice::Unknown.tell(common, format_args!("the name of user {}", uids[0]));
    }
    for unknown in &details.unknown {
        Notice::Unknown.tell(common, unknown);
    }
    let go = details.more.as_ref().and_then(|more| more.go.as_ref());
    let Some(first) = details.unknown.first() else { return list::conclude(go) };
    if let Some(hint) = first.hint() {
        Notice::Hint.tell(common, hint);
    }
    Err(Error::Partial(format!("some facts about process {} could not be read", details.pid)))
}
