//! Target of an operation: a process of this machine, or the agent at an address.

use std::time::Duration;

use super::Listener;
use crate::Error;
use crate::agent::{Address, AgentTarget};
use crate::change;
use crate::process::Process;
use crate::process::select::Selector;

/// Target after resolution.
#[derive(Debug)]
pub(crate) enum ResolvedTarget {
    /// Process of this machine.
    Process(Process),
    /// Agent of which only the address is known.
    Agent(Address),
}

impl ResolvedTarget {
    /// Returns the process, if the target is one.
    pub(crate) fn process(&self) -> Option<&Process> {
        match self {
            ResolvedTarget::Process(process) => Some(process),
            ResolvedTarget::Agent(_) => None,
        }
    }

    /// Returns the target's text for a title, with the name of a process.
    pub(crate) fn titled(&self) -> String {
        match self {
            ResolvedTarget::Process(process) => format!("{}, process {}", process.name(), process.pid()),
            ResolvedTarget::Agent(address) => address.to_string(),
        }
    }

    /// Returns the target for messages and answers.
    pub(crate) fn named(&self) -> AgentTarget {
        match self {
            ResolvedTarget::Process(process) => AgentTarget::Process(process.pid()),
            ResolvedTarget::Agent(address) => AgentTarget::Address(address.clone()),
        }
    }
}

/// Pins the selected process, and restores changes that an earlier run left in it. `wait` is the maximum time
/// to wait for the process.
///
/// # Errors
/// Returns an error if no process matches, or if several do.
pub(crate) fn find(
    selector: &Selector,
    wait: Option<Duration>,
    listener: &dyn Listener,
) -> Result<Process, Error> {
    let process = match wait {
        None => selector.pin()?,
        Some(limit) => selector.wait(limit)?,
    };
    if let Some(text) = restore(&process) {
        listener.note(&text);
    }
    Ok(process)
}

/// Restores changes that an earlier run left in a process. Returns a sentence about it, or `None` if there
/// were none.
fn restore(process: &Process) -> Option<String> {
    match change::restore_left_over(process) {
        Ok(words) if words.is_empty() => None,
        Ok(words) => {
            let names: Vec<_> = words.iter().filter(|w| w.written).map(|w| w.name.as_str()).collect();
            let what = if names.is_empty() {
                "nothing had to be restored any more".to_owned()
            } else {
                names.join(", ")
            };
            Some(format!("an earlier gops-probe was killed; what it had changed was restored: {what}"))
        }
        Err(error) => Some(format!(
            "an earlier gops-probe was killed, and what it had changed cannot be restored: {error}"
        )),
    }
}
