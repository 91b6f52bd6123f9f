//! Who answers: we from outside, or the agent in the process.

use super::args::{Common, Via, WayArgs};
use super::notices::Notice;
use super::target::Found;
use crate::agent::{self, Connection, Signal};
use crate::process::Process;
use crate::{Error, Kind};

/// An answer from outside, or a connection to the agent that is to give it.
#[derive(Debug)]
pub(super) enum Chosen<T> {
    Probe(T),
    Agent(Connection),
}

/// Answers from outside if that is wanted and possible, else connects to the agent.
pub(super) fn choose<T>(
    target: &Found,
    way: &WayArgs,
    common: &Common,
    probe: impl FnOnce(&Process) -> Result<T, Error>,
) -> Result<Chosen<T>, Error> {
    let process = match target {
        Found::Process(process) => process,
        Found::Agent(address) if way.via == Via::Probe => {
            return Err(Error::Usage(format!(
                "{address} is the address of an agent: --via probe needs a process of this machine"
            )));
        }
        Found::Agent(address) => return Ok(Chosen::Agent(Connection::to_address(address)?)),
    };
    if way.via == Via::Agent {
        return Ok(Chosen::Agent(Connection::to_process(process)?));
    }
    let error = match probe(process) {
        Ok(answer) => return Ok(Chosen::Probe(answer)),
        Err(error) => error,
    };
    // What is not there is not there for an agent either, and what broke is better said.
    let may_help = matches!(error.kind(), Kind::Permission | Kind::Unsupported | Kind::NotGo);
    if way.via == Via::Probe || !may_help {
        return Err(error);
    }
    match Connection::to_process(process) {
        Ok(connection) => {
            Notice::Note
                .tell(common, format_args!("{} answers instead, because: {error}", connection.peer()));
            Ok(Chosen::Agent(connection))
        }
        Err(no_agent) => {
            tracing::info!("no agent instead: {no_agent}");
            Err(error)
        }
    }
}

/// Connects to the agent for what only an agent can answer.
pub(super) fn agent_only(target: &Found, way: &WayArgs, signal: Signal) -> Result<Connection, Error> {
    let command = signal.command();
    if way.via == Via::Probe {
        return Err(Error::NeedsAgent {
            command,
            because: "--via probe asks nobody else".to_owned(),
            hint: None,
        });
    }
    let connected = match target {
        Found::Agent(address) => Connection::to_address(address),
        Found::Process(process) => Connection::to_process(process),
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
