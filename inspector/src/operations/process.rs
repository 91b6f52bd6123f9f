//! Facts about one process from /proc, its files and its Go runtime.

use std::time::Duration;

use super::version;
use crate::Error;
use crate::agent::OwnPortFiles;
use crate::memory::Memory as _;
use crate::process::details::{self, Details};
use crate::process::find::{Detail, GoProcess};
use crate::process::{self, Process};
use crate::report::process::Live;
use crate::runtime::open::{OpenError, open_all};
use crate::runtime::settings;

/// Facts about a process.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Facts from /proc and from files.
    pub(crate) details: Details,
    /// Facts about the running Go program.
    pub(crate) live: Live,
}

/// Reads the facts about a process, and measures CPU usage over `period` unless that is zero. Memory is read
/// only for [`Detail::All`].
///
/// # Errors
/// Returns an error if the process has ended, or executes another program. Other facts that cannot be
/// determined are listed in the answer.
pub(crate) fn look(process: &Process, period: Duration, detail: Detail) -> Result<Seen, Error> {
    let mut details = details::look(process, period, detail)?;
    let agent = go(&details).and_then(|go| OwnPortFiles::list().agent_of(process, &go.program));
    let live = Live { agent, ..live(process, &mut details)? };
    process.check()?;
    Ok(Seen { details, live })
}

impl Seen {
    /// Checks that the answer is complete and not doubtful.
    ///
    /// # Errors
    /// Returns an error if facts are missing or doubtful.
    pub(crate) fn conclude(&self) -> Result<(), Error> {
        if self.details.unknown.is_empty() {
            return version::conclude(go(&self.details));
        }
        Err(Error::Partial(format!("some facts about process {} could not be read", self.details.pid)))
    }
}

fn go(details: &Details) -> Option<&GoProcess> {
    details.more.as_ref()?.go.as_ref()
}

/// Reads the settings of the runtime from the memory of a Go process.
fn live(process: &Process, details: &mut Details) -> Result<Live, Error> {
    if go(details).is_none() {
        return Ok(Live::default());
    }
    let runtimes = match open_all(process) {
        Ok(opened) => opened,
        Err(OpenError::Process(gone @ (process::Error::Exited(_) | process::Error::Executed(_)))) => {
            return Err(gone.into());
        }
        Err(OpenError::Process(other)) => {
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
    Ok(Live { cost: memory.cost(), ..live })
}
