//! Option `--via`: chooses who answers.

use super::args::{Common, Via, WayArgs};
use super::notices::Notice;
use crate::Error;
use crate::agent::{Connection, Signal};
use crate::operations::target::ResolvedTarget;
pub(super) use crate::operations::via::Chosen;
use crate::operations::{Listener, via};
use crate::process::Process;

/// Notes go to standard error.
impl Listener for Common {
    fn note(&self, text: &str) {
        Notice::Note.tell(self, text);
    }
}

impl From<Via> for via::Via {
    fn from(via: Via) -> Self {
        match via {
            Via::Auto => via::Via::Auto,
            Via::Probe => via::Via::Probe,
            Via::Agent => via::Via::Agent,
        }
    }
}

/// Answers from outside if wanted and possible; connects to the agent otherwise.
pub(super) fn choose<T>(
    target: &ResolvedTarget,
    way: &WayArgs,
    common: &Common,
    probe: impl FnOnce(&Process) -> Result<T, Error>,
) -> Result<Chosen<T>, Error> {
    via::choose(target, way.via.into(), common, probe)
}

/// Connects to the agent for an answer that only an agent has.
pub(super) fn agent_only(
    target: &ResolvedTarget,
    way: &WayArgs,
    signal: Signal,
) -> Result<Connection, Error> {
    via::agent_only(target, way.via.into(), signal)
}
