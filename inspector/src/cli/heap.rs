//! `heap`.

use std::io::Write as _;

use super::args::{Common, HeapArgs};
use super::memstats::{source_error, take_error};
use super::style::Style;
use super::{output, panicking, runtimes};
use crate::Error;
use crate::agent::AgentTarget;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::heap::HeapAnswer;
use crate::runtime::heap::{HeapPause, take};
use crate::runtime::memstats::{Consistency, Sources};
use crate::runtime::open::Opened;

pub(super) fn run(args: &HeapArgs, common: &Common) -> Result<(), Error> {
    let process = args.target.process("heap", common)?;
    let pause = if args.no_pause { HeapPause::No } else { HeapPause::AtMost(args.max_pause) };
    let look = |opened| look(&process, &opened, pause, args.top);
    let answers = runtimes::ask(&process, args.runtime.chosen(), look)?;
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

fn look(process: &Process, opened: &Opened, pause: HeapPause, top: usize) -> Result<HeapAnswer, Error> {
    let view = &opened.view;
    let sources = Sources::find(view).map_err(|e| source_error(process, e))?;
    let taken = take(view, &sources, pause, top).map_err(|e| take_error(process, e))?;
    let panicking = panicking::look(view);
    process.check()?;
    let source = Source::new(&AgentTarget::Process(process.pid()), "probe");
    let answer = HeapAnswer::new(source, view, taken, opened.cost);
    Ok(HeapAnswer { panicking, ..answer })
}

/// How far it can be believed, on standard error.
fn tell(answer: &HeapAnswer, common: &Common) {
    let style = Style::for_stderr(common.color);
    let mut err = std::io::stderr().lock();
    let note = match answer.consistency {
        Consistency::Instant => None,
        Consistency::InstantInChange => {
            Some("in each stop a thread was changing the heap: sums may differ from each other a little")
        }
        Consistency::Approximate if answer.too_large_to_stop => {
            Some("approximate: to read this heap in a stop would take longer than --max-pause allows")
        }
        Consistency::Approximate => {
            Some("approximate: the process ran on, so that the numbers are not all of one instant")
        }
    };
    // A hint that cannot be written is no failure of the answer.
    if let Some(note) = note {
        let _ = writeln!(err, "{} {note}", style.hint("note:"));
    }
    if common.verbose > 0 {
        let _ = writeln!(err, "{} {}", style.hint("cost:"), answer.cost);
    }
}
