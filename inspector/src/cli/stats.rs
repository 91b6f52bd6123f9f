//! `stats`.

use super::args::{Common, StatsArgs};
use super::via::{Chosen, choose};
use super::{agent, output, panicking, runtimes};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::operations::runtimes::ask;
use crate::operations::stats::look;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::stats::{SourcedStats, StatsAnswer};
use crate::runtime::contradiction::Contradiction;

pub(super) fn run(args: &StatsArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let more = common.json || common.verbose > 0;
    let outside =
        |process: &Process| ask(process, args.runtime.chosen(), |opened| look(process, &opened, more));
    let answer = match choose(&target, &args.runtime.way(args.way)?, common, outside)? {
        Chosen::Probe(answers) => {
            if common.json {
                let source = Source::new(&target.named(), "probe");
                answers.write_json(common, |answer, out| {
                    runtimes::pretty(&SourcedStats { source: source.clone(), answer: answer.clone() }, out)
                })?;
            } else {
                output::write(common, |out| answers.write_text(out, |answer, out| answer.write_text(out)))?;
            }
            answers.iter().for_each(|(_, answer)| panicking::tell(answer.panicking, common));
            answers.iter().try_for_each(|(_, answer)| conclude(&answer.doubtful))?;
            return answers.conclude();
        }
        Chosen::Agent(connection) => {
            let request = Request::Plain(Signal::Stats);
            if !common.json {
                return agent::pass_on(connection, &request, &args.way, common);
            }
            let peer = connection.peer().to_owned();
            let text = agent::ask_for_text(connection, &request, &args.way)?;
            StatsAnswer::parse(&text).ok_or_else(|| agent::garbage(peer, "statistics", &text))?
        }
    };
    let source = Source::new(&target.named(), "agent");
    output::write_json(common, &SourcedStats { source, answer })
}

/// The error of an answer that contradicts itself.
fn conclude(doubts: &[Contradiction]) -> Result<(), Error> {
    let Some(first) = doubts.first() else { return Ok(()) };
    let fields = first.fields.join(" and ");
    Err(Error::Partial(format!("{fields} are doubtful: {}", first.why)))
}
