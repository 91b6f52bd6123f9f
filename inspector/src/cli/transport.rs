//! Bytes of an answer that is a file, from an agent or from the executable of a process.

use std::io::Write;
use std::ops::ControlFlow;

use super::args::WayArgs;
use super::destination::{Failed, Written};
use super::interrupt::Interrupt;
use super::progress::Progress;
use crate::agent::payload::{Checked, Payload};
use crate::agent::{self, Connection, End, Limits, Request, Signal};
use crate::operations::binary::{self, Copied, Sink};
use crate::process::executable::Executable;

/// Copies the answer of an agent. Returns the number of bytes, and the reason if these are not all.
pub(super) fn copy_from_agent(
    connection: Connection,
    signal: Signal,
    payload: Payload,
    way: &WayArgs,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> Result<Written, Failed> {
    let mut progress = Progress::new(signal.command(), signal.measures_for());
    let mut watch = |bytes| {
        progress.tick(bytes);
        if interrupt.is_pending() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let peer = connection.peer().to_owned();
    let mut checked = Checked::new(payload, out);
    let limits = Limits::of(signal, way.timeout);
    let answer = connection.ask(&Request::Plain(signal), &limits, &mut checked, &mut watch);
    let answer = answer.and_then(|answer| {
        // An answer that was interrupted before it began is not garbage.
        let none = matches!(answer.end, End::Stopped) && answer.bytes < 16;
        let damage = if none { None } else { checked.finish().map_err(agent::Error::Sink)? };
        Ok((if none { 0 } else { answer.bytes }, answer.end.reason().or(damage)))
    });
    answer.map_err(|error| match (error, checked.refused()) {
        (_, Some(begins)) => {
            Failed::Other(agent::Error::Garbage { peer, expected: payload.name(), begins }.into())
        }
        (agent::Error::Sink(e), None) => Failed::Output(e),
        (error, None) => Failed::Other(error.into()),
    })
}

/// Copies an executable, with its holes.
pub(super) fn copy_executable(
    executable: &Executable,
    interrupt: &Interrupt,
    out: &mut dyn Sink,
) -> Result<Written, Failed> {
    let mut progress = Progress::new("binary", std::time::Duration::ZERO);
    let copied = binary::copy(executable, out, &mut |bytes| {
        progress.tick(bytes);
        if interrupt.is_pending() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    Ok(match copied.map_err(Failed::Output)? {
        Copied::Whole(bytes) => (bytes, None),
        Copied::Stopped(bytes) => (bytes, End::Stopped.reason()),
        Copied::Unreadable(bytes) => (bytes, Some("the executable cannot be read to its end".to_owned())),
    })
}
