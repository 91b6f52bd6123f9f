//! Command `memstats`.

use super::args::{Common, MemstatsArgs};
use super::command::{Patience, Run};
use super::notices::Notice;
use super::via::{Chosen, choose};
use super::{agent, output, panicking, runtimes};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::operations::memstats::look;
use crate::operations::runtimes::ask;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::memstats::MemStatsAnswer;
use crate::runtime::memstats::{Consistency, Wanted};

impl Run for MemstatsArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }

    fn unpaused(&self) -> Option<&'static str> {
        (!self.no_pause).then_some("memstats")
    }
}

fn run(args: &MemstatsArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let wanted = if args.no_pause { Wanted::Approximate } else { Wanted::Instant };
    // An agent stops the world for every request.
    let way = args.runtime.way(args.way)?.without_agent(args.no_pause.then_some("--no-pause"))?;
    let outside =
        |process: &Process| ask(process, args.runtime.chosen(), |opened| look(process, &opened, wanted));
    match choose(&target, &way, common, outside)? {
        Chosen::Probe(answers) => {
            if common.json {
                answers.write_json(common, runtimes::pretty)?;
            } else {
                output::write(common, |out| {
                    answers.write_text(out, |answer, out| {
                        answer.write_text(out)?;
                        if common.verbose > 0 { answer.write_more(out) } else { Ok(()) }
                    })
                })?;
            }
            for (_, answer) in answers.iter() {
                tell(answer, common);
                panicking::tell(answer.panicking, common);
            }
            answers.conclude()
        }
        Chosen::Agent(connection) => {
            let parse = |text: &str| MemStatsAnswer::of_agent(Source::new(&target.named(), "agent"), text);
            let request = Request::Plain(Signal::MemStats);
            let answer = agent::answer(connection, &request, &args.way, common, "memory statistics", parse)?;
            answer.iter().for_each(|answer| tell(answer, common));
            Ok(())
        }
    }
}

/// Reports on standard error how exact the numbers are.
fn tell(answer: &MemStatsAnswer, common: &Common) {
    match answer.consistency {
        Consistency::Instant => {}
        Consistency::InstantInChange => Notice::Note
            .tell(common, "a thread was changing the heap in every pause: sizes may not add up exactly"),
        Consistency::Approximate => Notice::Note.tell(
            common,
            "approximate: the process was running, so the numbers were not all read at one instant",
        ),
    }
    if answer.stale_spans > 0 {
        Notice::Note.tell(
            common,
            format_args!(
                "a collection has just ended: {} cached spans are not swept yet, so free objects in them are counted",
                answer.stale_spans,
            ),
        );
    }
    if let Some(cost) = answer.cost.filter(|_| common.verbose > 0) {
        Notice::Cost.tell(common, cost);
    }
}
