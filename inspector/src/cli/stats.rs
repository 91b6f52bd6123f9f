//! `stats`.

use std::time::Duration;

use super::args::{Common, StatsArgs};
use super::memstats::{source_error, take_error};
use super::via::{Chosen, choose};
use super::{agent, output, panicking, runtimes};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::memory::LiveMemory;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::stats::{SourcedStats, StatsAnswer};
use crate::runtime::contradiction::{self, Contradiction};
use crate::runtime::memstats::{Wanted, take_with};
use crate::runtime::open::Opened;
use crate::runtime::stats::Counters;

pub(super) fn run(args: &StatsArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let more = common.json || common.verbose > 0;
    let outside = |process: &Process| {
        runtimes::ask(process, args.runtime.chosen(), |opened| look(process, &opened, more))
    };
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

/// How often numbers that contradict each other are read again.
const TRIES: u32 = 6;
/// What changes sides does so in less.
const BETWEEN: Duration = Duration::from_millis(10);

/// Counts from outside, while the process runs; `more` than what gops says where that is wanted.
pub(super) fn look(process: &Process, opened: &Opened, more: bool) -> Result<StatsAnswer, Error> {
    let view = &opened.view;
    let counters = Counters::find(view).map_err(|e| source_error(process, e))?;
    let read = |memory: &LiveMemory| {
        let before = counters.read(memory)?;
        let more = more.then(|| counters.more(memory)).transpose()?;
        Ok((before, counters.read(memory)?, more))
    };
    let mut tries = 0;
    let (stats, more, doubts) = loop {
        tries += 1;
        let taken = take_with(view, Wanted::Approximate, Duration::ZERO, |_| true, read, Ok);
        let (before, after, more) = taken.map_err(|e| take_error(process, e))?.answer;
        let doubts = contradiction::of_stats(&before, &after, more.as_ref());
        if doubts.is_empty() || tries >= TRIES {
            break (after, more, doubts);
        }
        std::thread::sleep(BETWEEN);
    };
    let panicking = panicking::look(view);
    let threads = process.stat()?.threads;
    process.check()?;
    let answer = StatsAnswer::new(view, &stats, more, Some(threads)).doubted(doubts);
    Ok(StatsAnswer { panicking, ..answer })
}

/// The error of an answer that contradicts itself.
fn conclude(doubts: &[Contradiction]) -> Result<(), Error> {
    let Some(first) = doubts.first() else { return Ok(()) };
    let fields = first.fields.join(" and ");
    Err(Error::Partial(format!("{fields} are doubtful: {}", first.why)))
}
