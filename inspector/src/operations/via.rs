//! Choice of who answers: gops-probe from outside, or the agent in the process.

use super::Listener;
use super::target::ResolvedTarget;
use crate::agent::{self, Connection, Signal};
use crate::process::Process;
use crate::{Error, ErrorKind};

/// Choice of who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Answer from outside or, if that is not possible, from the agent in the process.
    Auto,
    /// Answer from outside only.
    Probe,
    /// Answer from the agent in the process only.
    Agent,
}

/// Answer from outside, or connection to the agent that is to give it.
#[derive(Debug)]
pub(crate) enum Chosen<T> {
    /// Answer from outside.
    Probe(T),
    /// Connection to the agent that is to answer.
    Agent(Connection),
}

/// Answers from outside if wanted and possible; connects to the agent otherwise.
///
/// # Errors
/// Returns the error of `probe` if no agent may or can answer instead, and an error if the wanted agent
/// cannot be reached.
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
    // An agent does not have what does not exist; and a failure is better reported.
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

/// Connects to the agent for an answer that only an agent has.
///
/// # Errors
/// Returns [`Error::NeedsAgent`] with the reason if there is no agent, and an error if connecting to it
/// fails.
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
        // A missing agent is reported as a need of the command.
        agent::Error::None { .. } | agent::Error::Stale { .. } | agent::Error::PortFile { .. }
            if !error.is_denied() =>
        {
            Error::NeedsAgent { command, because: error.to_string(), hint: error.hint() }
        }
        other => other.into(),
    })
}
