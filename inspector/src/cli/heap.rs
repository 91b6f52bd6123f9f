//! Command `heap`.

use super::args::{Common, HeapArgs};
use super::command::Run;
use super::notices::Notice;
use super::{output, panicking, runtimes};
use crate::Error;
use crate::operations::{self, runtimes::ask};
use crate::report::heap::HeapAnswer;
use crate::runtime::heap::HeapPause;
use crate::runtime::memstats::Consistency;

impl Run for HeapArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn unpaused(&self) -> Option<&'static str> {
        (!self.no_pause).then_some("heap")
    }
}

fn run(args: &HeapArgs, common: &Common) -> Result<(), Error> {
    let process = args.target.process("heap", common)?;
    let pause = if args.no_pause { HeapPause::No } else { HeapPause::AtMost(args.max_pause) };
    let look = |opened| operations::heap::look(&process, &opened, pause, args.top);
    let answers = ask(&process, args.runtime.chosen(), look)?;
    if common.json {
        answers.write_json(common, runtimes::pretty)?;
    } else {
        output::write(common, |out| answers.write_text(out, |answer, out| answer.write_text(out)))?;
    }
    for (_, answer) in answers.iter() {
        tell(answer, common);
        panicking::tell(answer.panicking, common);
    }
    answers.conclude()
}

/// Reports on standard error how exact the numbers are.
fn tell(answer: &HeapAnswer, common: &Common) {
    let note = match answer.consistency {
        Consistency::Instant => None,
        Consistency::InstantInChange => {
            Some("a thread was changing the heap in every pause: sums may not add up exactly")
        }
        Consistency::Approximate if answer.too_large_to_stop => {
            Some("approximate: reading this heap in a pause would take longer than --max-pause allows")
        }
        Consistency::Approximate => {
            Some("approximate: the process was running, so the numbers were not all read at one instant")
        }
    };
    if let Some(note) = note {
        Notice::Note.tell(common, note);
    }
    if common.verbose > 0 {
        Notice::Cost.tell(common, answer.cost);
    }
}
