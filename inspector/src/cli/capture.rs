//! Commands `trace` and `binary`: their answers are files that are only copied.

use super::args::{CaptureArgs, Common, TraceArgs};
use super::command::{Patience, Run};
use super::confinement::{INSPECTING, Work};
use super::destination::{About, Content, Destination, Form};
use super::interrupt::Interrupt;
use super::opening::{Tool, show};
use super::transport::{copy_executable, copy_from_agent};
use super::via::{Chosen, agent_only, choose};
use crate::Error;
use crate::agent::Signal;
use crate::agent::payload::Payload;

impl Run for TraceArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        trace(&self.capture, self.open, common)
    }

    fn work(&self) -> Work {
        Work { opens: self.open, ..INSPECTING }
    }

    fn patience(&self) -> Patience {
        Patience::given(self.capture.way.timeout)
    }

    fn stops(&self) -> bool {
        false
    }
}

impl Run for CaptureArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        binary(self, common)
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }

    fn stops(&self) -> bool {
        false
    }
}

/// Runs `trace`.
fn trace(args: &CaptureArgs, open: bool, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    let asked = found.named().into();
    let payload = Payload::Trace;
    let content = Content { kind: "trace", extension: ".trace", form: Form::Binary(payload.name()) };
    let to = Destination::choose(content, &asked, common)?;
    if open && to.file().is_none() {
        return Err(Error::Usage("--open requires a file destination".to_owned()));
    }
    let interrupt = catch()?;
    let connection = agent_only(&found, &args.way, Signal::Trace)?;
    let about = About { asked: &asked, via: "agent", cost: None, sampling: None };
    to.deliver(&about, common, &interrupt, |out| {
        copy_from_agent(connection, Signal::Trace, payload, &args.way, &interrupt, out)
    })?;
    match to.file() {
        Some(path) if open => show(Tool::Trace, path, None),
        _ => Ok(()),
    }
}

/// Runs `binary`.
fn binary(args: &CaptureArgs, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    let asked = found.named().into();
    let payload = Payload::Program;
    let content = Content { kind: "binary", extension: "", form: Form::Binary(payload.name()) };
    let to = Destination::choose(content, &asked, common)?.of_program();
    let interrupt = catch()?;
    let chosen = choose(&found, &args.way, common, |process| Ok(process.executable()?))?;
    let via = if matches!(chosen, Chosen::Probe(_)) { "probe" } else { "agent" };
    let about = About { asked: &asked, via, cost: None, sampling: None };
    to.deliver(&about, common, &interrupt, |out| match chosen {
        Chosen::Probe(executable) => copy_executable(&executable, &interrupt, out),
        Chosen::Agent(connection) => {
            copy_from_agent(connection, Signal::BinaryDump, payload, &args.way, &interrupt, out)
        }
    })
}

/// Catches Ctrl-C from now on, so that a file being written ends in good order.
pub(super) fn catch() -> Result<Interrupt, Error> {
    Interrupt::catch().map_err(|e| Error::Failed(format!("cannot catch signals: {e}")))
}
