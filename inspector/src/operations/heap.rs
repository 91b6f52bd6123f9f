//! Heap of a process: objects, spans and stacks that hold its memory now.

use super::error::{source_error, take_error};
use super::panicking;
use crate::Error;
use crate::agent::AgentTarget;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::heap::HeapAnswer;
use crate::runtime::heap::{HeapPause, take};
use crate::runtime::memstats::Sources;
use crate::runtime::open::Opened;

/// Reads the heap from outside, with the `top` largest objects.
pub(crate) fn look(
    process: &Process,
    opened: &Opened,
    pause: HeapPause,
    top: usize,
) -> Result<HeapAnswer, Error> {
    let view = &opened.view;
    let sources = Sources::find(view).map_err(|e| source_error(process, e))?;
    let taken = take(process, view, &sources, pause, top).map_err(|e| take_error(process, e))?;
    let panicking = panicking::look(process, view);
    process.check()?;
    let source = Source::new(&AgentTarget::Process(process.pid()), "probe");
    let answer = HeapAnswer::new(source, view, taken, opened.cost);
    Ok(HeapAnswer { panicking, ..answer })
}
