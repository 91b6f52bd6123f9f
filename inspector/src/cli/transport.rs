//! The bytes of an answer that is a file: from an agent, or from the file that a process executes.

use std::io::Write;
use std::ops::ControlFlow;

use symbols::image::Source as _;

use super::args::WayArgs;
use super::destination::{Failed, Written};
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::sink::Sink;
use crate::agent::payload::{Checked, Payload};
use crate::agent::{self, Connection, End, Limits, Request, Signal};
use crate::process::executable::Executable;

const BUFFER: usize = 1 << 20;

/// Copies what an agent answers; says how many bytes there were, and why that is not all.
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
        // What was interrupted before it began is no garbage.
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
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < executable.len() {
        let data = executable.data(at).unwrap_or(executable.len()..executable.len());
        out.hole(data.start.saturating_sub(at)).map_err(Failed::Output)?;
        at = at.max(data.start);
        while at < data.end {
            progress.tick(at);
            if interrupt.is_pending() {
                return Ok((at, End::Stopped.reason()));
            }
            let size = usize::try_from(data.end - at).map_or(BUFFER, |left| left.min(BUFFER));
            let part = buffer.get_mut(..size).unwrap_or_default();
            if !executable.read_at(at, part) {
                return Ok((at, Some("the executable cannot be read to its end".to_owned())));
            }
            out.write_all(part).map_err(Failed::Output)?;
            at += size as u64;
        }
    }
    out.flush().map_err(Failed::Output)?;
    Ok((at, None))
}
