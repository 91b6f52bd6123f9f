//! `gc`, `setgc`, and the text of an agent in general.

use std::io::Write as _;
use std::ops::ControlFlow;

use serde::Serialize;

use super::args::{AgentArgs, Common, SetGcArgs, WayArgs};
use super::output;
use super::progress::Progress;
use super::style::Style;
use super::via::agent_only;
use crate::Error;
use crate::agent::{self, Answer, Connection, Limits, Request, Signal};
use crate::report::answers::{Gc, SetGc, Source, Sourced};

/// How much of a wrong answer a message shows.
const SHOWN: usize = 120;

pub(super) fn gc(args: &AgentArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let connection = agent_only(&target, &args.way, Signal::Gc)?;
    let peer = connection.peer().to_owned();
    let text = ask_for_text(connection, &Request::Plain(Signal::Gc), &args.way)?;
    if text != "ok" {
        return Err(garbage(peer, "ok", &text));
    }
    if common.json {
        let answer = Gc { collected: true };
        return output::write_json(
            common,
            &Sourced { source: Source::new(&target.named(), "agent"), answer },
        );
    }
    // As gops, it is silent where all went well.
    if common.verbose > 0 {
        let style = Style::for_stderr(common.color);
        let _ = writeln!(std::io::stderr().lock(), "{} collected", style.hint("done:"));
    }
    Ok(())
}

pub(super) fn set_gc(args: &SetGcArgs, common: &Common) -> Result<(), Error> {
    let request = Request::SetGc(args.percent);
    text(&request, &args.agent, common, "what setgc did", SetGc::parse)
}

/// Passes the text of an agent on, or what it means.
fn text<T: Serialize>(
    request: &Request,
    args: &AgentArgs,
    common: &Common,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let connection = agent_only(&target, &args.way, request.signal())?;
    if !common.json {
        return pass_on(connection, request, &args.way, common);
    }
    let peer = connection.peer().to_owned();
    let text = ask_for_text(connection, request, &args.way)?;
    let answer = parse(&text).ok_or_else(|| garbage(peer, expected, &text))?;
    output::write_json(common, &Sourced { source: Source::new(&target.named(), "agent"), answer })
}

pub(super) fn garbage(peer: String, expected: &'static str, text: &str) -> Error {
    let begins = text.chars().take(SHOWN).collect();
    agent::Error::Garbage { peer, expected, begins }.into()
}

/// Asks, and gives the whole text. Not for what may be long.
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

/// Asks, and passes the text on unchanged; only a terminal is spared what could act on it.
pub(super) fn pass_on(
    connection: Connection,
    request: &Request,
    way: &WayArgs,
    common: &Common,
) -> Result<(), Error> {
    /// An agent stops there, without a word about it.
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
