//! Command `stats`.

use super::args::{Common, StatsArgs};
use super::command::{Patience, Run};
use super::via::{Chosen, choose};
use super::{agent, output, panicking, runtimes};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::operations::runtimes::ask;
use crate::operations::stats::{conclude, look};
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::stats::{SourcedStats, StatsAnswer};

impl Run for StatsArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }
}

fn run(args: &StatsArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let more = common.json || common.verbose > 0;
    let outside =
        |process: &Process| ask(process, args.runtime.chosen(), |opened| look(process, &opened, more));
    match choose(&target, &args.runtime.way(args.way)?, common, outside)? {
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
            answers.conclude()
        }
        Chosen::Agent(connection) => {
            let parse = |text: &str| {
                let source = Source::new(&target.named(), "agent");
                StatsAnswer::parse(text).map(|answer| SourcedStats { source, answer })
            };
            let request = Request::Plain(Signal::Stats);
            agent::answer(connection, &request, &args.way, common, "statistics", parse).map(drop)
        }
    }
}
