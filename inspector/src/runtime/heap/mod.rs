//! Memory use of a process: every span of the heap by size class, and every stack.
//!
//! The list of all spans grows with the heap. Reading takes about a millisecond per 10,000 spans, which is
//! 80 MB of small objects. The list is first read while the process runs, and the duration is measured. If
//! the duration is within the allowed pause, the list is read again in a stop of all threads, together with
//! the runtime's statistics; both must then agree. Otherwise the first result is returned, labelled
//! approximate.

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

/// Memory use of a heap and of all stacks.
#[derive(Debug)]
pub struct HeapReading {
    /// Spans by size class.
    pub spans: Spans,
    /// Stacks of goroutines, read while the process ran.
    pub stacks: Stacks,
    /// Runtime statistics of the same instant as the spans.
    pub statistics: Reading,
    /// True if the process was not stopped because the stop would have exceeded the allowed pause.
    pub too_large_to_stop: bool,
}

impl HeapReading {
    /// Returns true if the objects in spans equal those in the statistics.
    pub fn adds_up(&self) -> bool {
        let stats = &self.statistics.memstats;
        stats.heap_alloc == Some(self.spans.bytes()) && stats.heap_objects == Some(self.spans.objects())
    }
}

/// Permission to stop the process, and the maximum duration of the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeapPause {
    /// Approximate maximum duration of the stop.
    AtMost(Duration),
    /// No stop allowed.
    No,
}

/// Reads the heap of a runtime of `process`. Lists the `top` largest stacks and large objects individually.
///
/// # Errors
/// Returns a [`TakeError`] if the heap cannot be read or is not credible.
pub fn take(
    process: &Process,
    view: &View,
    sources: &Sources,
    pause: HeapPause,
    top: usize,
) -> Result<Taken<HeapReading>, TakeError> {
    let memory = process.memory();
    let stacks = Stacks::read(view, &memory, top)?;
    // Measures the duration of a reading, and leaves as little as possible to do in a stop.
    let list = SpanList::read(sources, &memory)?;
    let begun = Instant::now();
    list.walk(&memory, top)?;
    let took = begun.elapsed();
    let (wanted, too_large_to_stop) = match pause {
        HeapPause::No => (Wanted::Approximate, false),
        HeapPause::AtMost(most) if took > most => (Wanted::Approximate, true),
        HeapPause::AtMost(_) => (Wanted::Instant, false),
    };
    // The list moves to the thread that stops the process, and remains there between attempts.
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

/// Reads the spans and statistics of a process that does not run.
///
/// # Errors
/// Returns a [`SourceError`] if they cannot be read or are not credible.
pub fn read_spans(
    view: &View,
    sources: &Sources,
    memory: &dyn Memory,
) -> Result<(Spans, Reading), SourceError> {
    let list = SpanList::read(sources, memory)?;
    Ok((list.walk(memory, TOP)?, read(view, sources, memory)?))
}

/// Default number of largest stacks and large objects listed individually.
pub const TOP: usize = 10;
