//! Text answers of an agent.

use std::ops::ControlFlow;

use serde::Serialize;

use super::args::{Common, WayArgs};
use super::output;
use super::progress::Progress;
use crate::Error;
use crate::agent::{self, Answer, Connection, Limits, Request, Signal};

/// Maximum length of the part of a wrong answer that a message shows, in characters.
const SHOWN: usize = 120;

/// Gets the agent's answer. With `--json` it is parsed, written as JSON and returned; otherwise the text is
/// passed on unchanged.
pub(super) fn answer<T: Serialize>(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
    common: &Common,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    if !common.json {
        pass_on(connection, request, way, common)?;
        return Ok(None);
    }
    let answer = read(connection, request, way, expected, parse)?;
    output::write_json(common, &answer)?;
    Ok(Some(answer))
}

/// Asks the agent, and parses the whole text. Not for long answers.
pub(super) fn read<T>(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    let peer = connection.peer().to_owned();
    let text = ask_for_text(connection, request, way)?;
    parse(&text).ok_or_else(|| garbage(peer, expected, &text))
}

pub(super) fn garbage(peer: String, expected: &'static str, text: &str) -> Error {
    let begins = text.chars().take(SHOWN).collect();
    agent::Error::Garbage { peer, expected, begins }.into()
}

/// Asks the agent, and returns the whole text. Not for long answers.
pub(super) fn ask_for_text(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
) -> Result<String, Error> {
    let peer = connection.peer().to_owned();
    let mut text = Vec::new();
    let answer = ask(connection, request, way, &mut text)?;
    match answer.end.reason() {
        Some(reason) => {
            let text = String::from_utf8_lossy(&text);
            let begins: String = text.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
            Err(Error::Failed(format!("the answer of {peer} is not whole ({reason}): {begins}")))
        }
        None => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

/// Asks the agent, and passes the text on unchanged. On a terminal, characters that could act on it are made
/// visible.
pub(super) fn pass_on(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
    common: &Common,
) -> Result<(), Error> {
    /// Size of a dump at which an agent stops without saying so, in bytes.
    const LONGEST_DUMP: u64 = 64 << 20;
    let peer = connection.peer().to_owned();
    let mut asked = None;
    output::write_foreign(common, |out| match ask(connection, request, way, out) {
        Err(Error::Agent(agent::Error::Sink(e))) => Err(e),
        other => {
            asked = Some(other);
            Ok(())
        }
    })?;
    let Some(answer) = asked.transpose()? else { return Ok(()) };
    let cut = (request.signal() == Signal::StackTrace && answer.bytes == LONGEST_DUMP)
        .then(|| "agents cut it off at 64 MiB".to_owned());
    match answer.end.reason().or(cut) {
        Some(reason) => Err(Error::Partial(format!("the answer of {peer} is not whole: {reason}"))),
        None => Ok(()),
    }
}

fn ask(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
    out: &mut dyn std::io::Write,
) -> Result<Answer, Error> {
    let signal = request.signal();
    let mut progress = Progress::new(signal.command(), signal.measures_for());
    let answer = connection.ask(request, &Limits::of(signal, way.timeout), out, &mut |bytes| {
        progress.tick(bytes);
        ControlFlow::Continue(())
    })?;
    Ok(answer)
}
