//! Statistics of allocations and garbage collections.

use super::error::{source_error, take_error};
use super::panicking;
use crate::Error;
use crate::agent::AgentTarget;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::memstats::MemStatsAnswer;
use crate::runtime::memstats::{Sources, Wanted, take};
use crate::runtime::open::Opened;

/// Reads the statistics of a process from outside.
pub(crate) fn look(process: &Process, opened: &Opened, wanted: Wanted) -> Result<MemStatsAnswer, Error> {
    let view = &opened.view;
    let sources = Sources::find(view).map_err(|e| source_error(process, e))?;
    let taken = take(process, view, &sources, wanted).map_err(|e| take_error(process, e))?;
    let panicking = panicking::look(process, view);
    process.check()?;
    let source = Source::new(&AgentTarget::Process(process.pid()), "probe");
    let answer = MemStatsAnswer::of_probe(source, taken, opened.cost, &process.time_zone());
    Ok(MemStatsAnswer { panicking, ..answer })
}
