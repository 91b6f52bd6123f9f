//! What an operation is asked about: a process of this machine, or the agent at an address.

use std::time::Duration;

use super::Listener;
use crate::Error;
use crate::agent::{Address, AgentTarget};
use crate::change;
use crate::process::Process;
use crate::process::select::Selector;

/// What a target turned out to be.
#[derive(Debug)]
pub(crate) enum ResolvedTarget {
    /// A process of this machine.
    Process(Process),
    /// An agent, of which only the address is known.
    Agent(Address),
}

impl ResolvedTarget {
    /// The process, if it is one.
    pub(crate) fn process(&self) -> Option<&Process> {
        match self {
            ResolvedTarget::Process(process) => Some(process),
            ResolvedTarget::Agent(_) => None,
        }
    }

    /// For what is shown to people beside many others: also by its name.
    pub(crate) fn titled(&self) -> String {
        match self {
            ResolvedTarget::Process(process) => format!("{}, process {}", process.name(), process.pid()),
            ResolvedTarget::Agent(address) => address.to_string(),
        }
    }

    /// For messages and answers.
    pub(crate) fn named(&self) -> AgentTarget {
        match self {
            ResolvedTarget::Process(process) => AgentTarget::Process(process.pid()),
            ResolvedTarget::Agent(address) => AgentTarget::Address(address.clone()),
        }
    }
}

/// Pins the process that is meant, waits for it up to `wait` where that is given, and puts back what an earlier run left in it.
///
/// # Errors
/// That there is no such process, or that there are several.
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

/// Puts back what an earlier run left in a process, and says so.
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
