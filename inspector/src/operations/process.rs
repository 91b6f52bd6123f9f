//! One process: what /proc, its files and its Go runtime say of it.

use std::time::Duration;

use super::version;
use crate::Error;
use crate::agent::OwnPortFiles;
use crate::memory::Memory as _;
use crate::process::details::{self, Details};
use crate::process::find::{Detail, GoProcess};
use crate::process::{self, Process};
use crate::report::process::Live;
use crate::runtime::open::open_all;
use crate::runtime::settings;

/// What is known of a process.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What /proc and its files say.
    pub(crate) details: Details,
    /// What is known of the Go program in it while it runs.
    pub(crate) live: Live,
}

/// Looks at a process; over `period`, where that is not zero. Its memory is read for [`Detail::All`] only.
///
/// # Errors
/// That the process has ended, or executes another program. What else cannot be found out is in the answer.
pub(crate) fn look(process: &Process, period: Duration, detail: Detail) -> Result<Seen, Error> {
    let mut details = details::look(process, period, detail)?;
    let agent = go(&details).and_then(|go| OwnPortFiles::list().agent_of(process, &go.program));
    let live = Live { agent, ..live(process, &mut details)? };
    process.check()?;
    Ok(Seen { details, live })
}

impl Seen {
    /// The error of an answer in which something is missing or doubtful.
    ///
    /// # Errors
    /// As said.
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

/// What the runtime is set to, read from the memory of a Go process.
fn live(process: &Process, details: &mut Details) -> Result<Live, Error> {
    if go(details).is_none() {
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
    Ok(Live { cost: memory.cost(), ..live })
}
