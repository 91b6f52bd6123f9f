//! Who answers: we from outside, or the agent in the process.

use super::Listener;
use super::target::ResolvedTarget;
use crate::agent::{self, Connection, Signal};
use crate::process::Process;
use crate::{Error, ErrorKind};

/// Ways to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// From outside; if that is not possible, from the agent in the process.
    Auto,
    /// Only from outside.
    Probe,
    /// Only from the agent in the process.
    Agent,
}

/// An answer from outside, or a connection to the agent that is to give it.
#[derive(Debug)]
pub(crate) enum Chosen<T> {
    /// The answer from outside.
    Probe(T),
    /// The agent that is to answer.
    Agent(Connection),
}

/// Answers from outside if that is wanted and possible, else connects to the agent.
///
/// # Errors
/// Those of `probe`, where no agent may or can answer instead; those of connecting to the agent that is wanted.
pub(crate) fn choose<T>(
    target: &ResolvedTarget,
    via: Via,
    listener: &dyn Listener,
    probe: impl FnOnce(&Process) -> Result<T, Error>,
) -> Result<Chosen<T>, Error> {
    let process = match target {
        ResolvedTarget::Process(process) => process,
        ResolvedTarget::Agent(address) if via == Via::Probe => {
            return Err(Error::Usage(format!(
                "{address} is the address of an agent: --via probe needs a process of this machine"
            )));
        }
        ResolvedTarget::Agent(address) => return Ok(Chosen::Agent(Connection::to_address(address)?)),
    };
    if via == Via::Agent {
        return Ok(Chosen::Agent(Connection::to_process(process)?));
    }
    let error = match probe(process) {
        Ok(answer) => return Ok(Chosen::Probe(answer)),
        Err(error) => error,
    };
    // What is not there is not there for an agent either, and what broke is better said.
    let may_help = matches!(error.kind(), ErrorKind::Permission | ErrorKind::Unsupported | ErrorKind::NotGo);
    if via == Via::Probe || !may_help {
        return Err(error);
    }
    match Connection::to_process(process) {
        Ok(connection) => {
            listener.note(&format!("{} answers instead, because: {error}", connection.peer()));
            Ok(Chosen::Agent(connection))
        }
        Err(no_agent) => {
            tracing::info!("no agent instead: {no_agent}");
            Err(error)
        }
    }
}

/// Connects to the agent for what only an agent can answer.
///
/// # Errors
/// That only an agent can, and why there is none; those of connecting to it.
pub(crate) fn agent_only(target: &ResolvedTarget, via: Via, signal: Signal) -> Result<Connection, Error> {
    let command = signal.command();
    if via == Via::Probe {
        return Err(Error::NeedsAgent {
            command,
            because: "--via probe asks nobody else".to_owned(),
            hint: None,
        });
    }
    let connected = match target {
        ResolvedTarget::Agent(address) => Connection::to_address(address),
        ResolvedTarget::Process(process) => Connection::to_process(process),
    };
    connected.map_err(|error| match error {
        // That it has none is said as what the command would need.
        agent::Error::None { .. } | agent::Error::Stale { .. } | agent::Error::PortFile { .. }
            if !error.is_denied() =>
        {
            Error::NeedsAgent { command, because: error.to_string(), hint: error.hint() }
        }
        other => other.into(),
    })
}
