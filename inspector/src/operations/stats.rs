//! Numbers of goroutines, threads and CPUs.

use std::time::Duration;

use super::error::{source_error, take_error};
use super::panicking;
use crate::Error;
use crate::memory::Memory;
use crate::process::Process;
use crate::report::stats::StatsAnswer;
use crate::runtime::contradiction::{self, Contradiction};
use crate::runtime::memstats::{Wanted, take_with};
use crate::runtime::open::Opened;
use crate::runtime::stats::Counters;

/// Maximum number of readings while numbers contradict each other.
const TRIES: u32 = 6;
/// Time between two readings. Changes that are in progress finish in less.
const BETWEEN: Duration = Duration::from_millis(10);

/// Counts from outside while the process runs. `more` adds numbers that gops does not have.
pub(crate) fn look(process: &Process, opened: &Opened, more: bool) -> Result<StatsAnswer, Error> {
    let view = &opened.view;
    let counters = Counters::find(view).map_err(|e| source_error(process, e))?;
    let read = |memory: &dyn Memory| {
        let before = counters.read(memory)?;
        let more = more.then(|| counters.more(memory)).transpose()?;
        Ok((before, counters.read(memory)?, more))
    };
    let mut tries = 0;
    let (stats, more, doubts) = loop {
        tries += 1;
        let taken = take_with(process, Wanted::Approximate, Duration::ZERO, |_| true, read, Ok);
        let (before, after, more) = taken.map_err(|e| take_error(process, e))?.answer;
        let doubts = contradiction::of_stats(&before, &after, more.as_ref());
        if doubts.is_empty() || tries >= TRIES {
            break (after, more, doubts);
        }
        std::thread::sleep(BETWEEN);
    };
    let panicking = panicking::look(process, view);
    let threads = process.stat()?.threads;
    process.check()?;
    let answer = StatsAnswer::new(view, &stats, more, Some(threads)).doubted(doubts);
    Ok(StatsAnswer { panicking, ..answer })
}

/// Returns an error if the answer contradicts itself.
pub(crate) fn conclude(doubts: &[Contradiction]) -> Result<(), Error> {
    let Some(first) = doubts.first() else { return Ok(()) };
    let fields = first.fields.join(" and ");
    Err(Error::Partial(format!("{fields} are doubtful: {}", first.why)))
}
