//! What holds the memory of a process: every span of its heap, by size class, and every stack.
//!
//! The list of all spans grows with the heap: reading them takes about a millisecond for each 10,000, which is 80 MB of
//! small objects. So the list is first read while the process runs, which also shows how long that takes. Where that is
//! within the allowed pause, it is read again in a stop of all threads together with the statistics of the runtime, whose
//! sums it then has to meet. Else what was read stands, and is labelled approximate.

mod stacks;
mod walk;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use stacks::{Creator, GoroutineStack, Stacks};
pub use walk::{Class, Half, LargeObject, Spans};

use super::memstats::{Raw, Reading, Sources, TakeError, Taken, Wanted, compute, read, take_with};
use super::source::SourceError;
use super::view::View;
use crate::memory::Memory;
use crate::process::Process;
use walk::SpanList;

/// All of it.
#[derive(Debug)]
pub struct HeapReading {
    /// The spans.
    pub spans: Spans,
    /// The stacks of goroutines, read while the process ran.
    pub stacks: Stacks,
    /// The statistics of the same instant.
    pub statistics: Reading,
    /// Whether the process was not stopped because that would have taken longer than allowed.
    pub too_large_to_stop: bool,
}

impl HeapReading {
    /// Whether the objects in spans are those that the statistics count.
    pub fn adds_up(&self) -> bool {
        let stats = &self.statistics.memstats;
        stats.heap_alloc == Some(self.spans.bytes()) && stats.heap_objects == Some(self.spans.objects())
    }
}

/// Whether and for how long the process may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeapPause {
    /// About so long at most.
    AtMost(Duration),
    /// Not at all.
    No,
}

/// Reads the heap of a runtime of `process`; of stacks and large objects the `top` largest by themselves.
///
/// # Errors
/// Where it cannot be read, or not be believed.
pub fn take(
    process: &Process,
    view: &View,
    sources: &Sources,
    pause: HeapPause,
    top: usize,
) -> Result<Taken<HeapReading>, TakeError> {
    let memory = process.memory();
    let stacks = Stacks::read(view, &memory, top)?;
    // Read for how long it takes, and so that as little as possible is left to do in a stop.
    let list = SpanList::read(sources, &memory)?;
    let begun = Instant::now();
    list.walk(&memory, top)?;
    let took = begun.elapsed();
    let (wanted, too_large_to_stop) = match pause {
        HeapPause::No => (Wanted::Approximate, false),
        HeapPause::AtMost(most) if took > most => (Wanted::Approximate, true),
        HeapPause::AtMost(_) => (Wanted::Instant, false),
    };
    // The list is moved to the thread that stops, and stays there from one try to the next.
    let list = Mutex::new(list);
    let exact = |(spans, reading): &(Spans, Reading)| match wanted {
        Wanted::Instant => {
            let stats = &reading.memstats;
            reading.is_exact()
                && stats.heap_alloc == Some(spans.bytes())
                && stats.heap_objects == Some(spans.objects())
        }
        Wanted::Approximate => !reading.generation_changed && reading.is_plausible(),
    };
    let look = |memory: &dyn Memory| {
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        list.refresh(sources, memory)?;
        let raw = sources.read(memory)?;
        Ok((list.walk(memory, top)?, raw))
    };
    let finish = |(spans, raw): (Spans, Raw)| Ok((spans, compute(&view.table, view.release, sources, &raw)?));
    let taken = take_with(process, wanted, took * 2, exact, look, finish)?;
    let Taken { answer: (spans, statistics), consistency, stopped, stops, mut cost } = taken;
    if !statistics.is_plausible() {
        return Err(SourceError::implausible("its statistics do not fit together").into());
    }
    cost.bytes += memory.cost().bytes;
    cost.calls += memory.cost().calls;
    let answer = HeapReading { spans, stacks, statistics, too_large_to_stop };
    Ok(Taken { answer, consistency, stopped, stops, cost })
}

/// The spans and statistics of a process that does not run.
///
/// # Errors
/// Where they cannot be read, or not be believed.
pub fn read_spans(
    view: &View,
    sources: &Sources,
    memory: &dyn Memory,
) -> Result<(Spans, Reading), SourceError> {
    let list = SpanList::read(sources, memory)?;
    Ok((list.walk(memory, TOP)?, read(view, sources, memory)?))
}

/// How many of the largest are shown by themselves where nobody says.
pub const TOP: usize = 10;
