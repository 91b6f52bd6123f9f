//! Close reading: a goroutine and its stack are read so shortly one after the other that no unnoticed change
//! fits in between.
//!
//! `g.trackingSeq` reveals a goroutine that ran and waits at the same place again. It has only eight bits:
//! after 256 stops between two readings the goroutine seems unmoved, and the stack read in between may be of
//! another moment. Therefore one call reads the g, its stack and the g again, in less time than 256 stops
//! take.

use std::time::{Duration, Instant};

use super::copier::{Class, Copier};
use super::stacks::first_read;
use super::{Details, Frames};
use crate::clock;
use crate::memory::{MemoryError, Span};
use crate::runtime::goroutine::Goroutine;
use crate::runtime::unwind::Start;
use crate::stop;

/// Lower bound of the duration of 256 stops of a goroutine: 25 ns each, while `runtime.Gosched` takes at
/// least some 50 ns.
const LEAST_ROUND: Duration = Duration::from_nanos(256 * 25);
/// Number of goroutines read by one call. A call with more of them would take longer than [`LEAST_ROUND`].
const TOGETHER: usize = 4;
/// Maximum number of attempts for a goroutine that moves, or whose stack cannot be read fast enough.
const ATTEMPTS: usize = 6;

/// Maximum number of threads whose sleep state is checked. More would take too long.
const MAX_SLEEPERS: usize = 32;

/// State of a process in which nothing runs. During it no goroutine can return to the same place unnoticed,
/// so a reading only has to be unchanged afterwards.
pub(super) struct Calm {
    tids: Vec<i32>,
    used: Duration,
}

impl Calm {
    /// Begins the observation. Returns `None` if a thread runs, or if checking takes too long.
    pub(super) fn begin(pid: i32) -> Option<Self> {
        let tids = sleepers(pid)?;
        Some(Calm { tids, used: clock::used_by(pid)? })
    }

    /// Returns true if the process has been calm until now: all threads sleep again, and their total CPU
    /// time is less than 256 stops take. The kernel updates the CPU time of a thread when it goes to sleep.
    pub(super) fn lasted(&self, pid: i32) -> bool {
        sleepers(pid).is_some_and(|tids| tids == self.tids)
            && clock::used_by(pid).is_some_and(|used| used.saturating_sub(self.used) < LEAST_ROUND)
    }
}

/// Returns all threads of a process, if they are few and all sleep.
fn sleepers(pid: i32) -> Option<Vec<i32>> {
    let tids = stop::threads(pid).ok().filter(|tids| tids.len() <= MAX_SLEEPERS)?;
    tids.iter().all(|&tid| stop::state(tid) == Some('S')).then_some(tids)
}

/// Result of reading a goroutine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The frames belong to the g in the slot, at one moment.
    OfOnePiece,
    /// The goroutine is of this class and was not read.
    Other(Class),
    /// The goroutine moved in each attempt.
    Moving,
}

/// Result of one call for one goroutine.
enum Attempt {
    Proven,
    /// Equal before and after, but the call was too slow to exclude 256 stops.
    Slow,
    Changed,
}

/// Reads the stacks of the parked goroutines among `indices`; their gs were read just before. Returns the
/// goroutines whose stacks were not proven consistent.
pub(super) fn read_stacks(copier: &mut Copier<'_>, indices: &[usize]) -> Result<Vec<usize>, MemoryError> {
    let mut open = Vec::new();
    for chunk in indices.chunks(TOGETHER) {
        let starts = copier.starts(chunk);
        let attempts = attempt(copier, &starts)?;
        for ((index, _), attempt) in starts.into_iter().zip(attempts) {
            if !matches!(attempt, Attempt::Proven) && read(copier, index)? != Reading::OfOnePiece {
                open.push(index);
            }
        }
    }
    Ok(open)
}

/// Reads a goroutine again. On [`Reading::OfOnePiece`] the contents of its slot are consistent.
pub(super) fn read(copier: &mut Copier<'_>, index: usize) -> Result<Reading, MemoryError> {
    // Two equal readings suffice if one reading is too slow: deep stack, slow machine.
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let addr = copier.list.addr(index);
        let Some(g) = copier.view.read_g(copier.memory, addr) else { break };
        copier.put(index, g);
        match copier.class(&g) {
            Class::Parked => {}
            other => return Ok(Reading::Other(other)),
        }
        let Some(start) = copier.start(index, &g) else { continue };
        match attempt(copier, &[(index, start)])?.first() {
            Some(Attempt::Proven) => return Ok(Reading::OfOnePiece),
            Some(Attempt::Slow) => {
                let read = copier.slots.get(index).map(|slot| (slot.g.epoch(), slot.frames.clone()));
                if read.is_some() && read == before {
                    return Ok(Reading::OfOnePiece);
                }
                before = read;
            }
            Some(Attempt::Changed) | None => before = None,
        }
    }
    Ok(Reading::Moving)
}

/// Reads each of `starts` once: the gs, their stacks, and the gs again.
fn attempt(copier: &mut Copier<'_>, starts: &[(usize, Start)]) -> Result<Vec<Attempt>, MemoryError> {
    let (view, memory) = (copier.view, copier.memory);
    let g_size = view.g.size;
    let g_spans = starts.iter().map(|(index, _)| Span { addr: copier.list.addr(*index), len: g_size });
    let g_spans: Vec<Span> = g_spans.collect();
    let stack_spans = starts.iter().map(|(_, start)| Span { addr: start.sp, len: first_read(start) });
    let spans: Vec<Span> =
        g_spans.iter().copied().chain(stack_spans).chain(g_spans.iter().copied()).collect();
    let mut buffer = std::mem::take(&mut copier.buffer);
    let total: usize = spans.iter().map(|span| span.len).sum();
    buffer.resize(total.max(buffer.len()), 0);
    let mut failed = Vec::new();
    let begun = Instant::now();
    memory.read_spans(&spans, buffer.get_mut(..total).unwrap_or_default(), &mut failed)?;
    let is_short = begun.elapsed() < LEAST_ROUND;
    let number = starts.len();
    let mut at = 0;
    let pieces: Vec<&[u8]> = spans
        .iter()
        .map(|span| {
            let piece = buffer.get(at..at + span.len).unwrap_or_default();
            at += span.len;
            piece
        })
        .collect();
    let mut attempts = Vec::with_capacity(number);
    for (i, &(index, start)) in starts.iter().enumerate() {
        let was_read = [i, number + i, 2 * number + i].iter().all(|i| !failed.contains(i));
        let (Some(first), Some(stack), Some(second)) =
            (pieces.get(i), pieces.get(number + i), pieces.get(2 * number + i))
        else {
            continue;
        };
        let same = was_read
            && copier
                .epochs
                .get(index)
                .is_some_and(|epoch| epoch.holds(&view.g, first) && epoch.holds(&view.g, second));
        attempts.push(if !same {
            Attempt::Changed
        } else {
            let g = Goroutine::parse(&view.g, copier.list.addr(index), second);
            let whole = is_short && stack.len() as u64 == start.hi.saturating_sub(start.sp);
            let walked = copier.walker.walk_window(memory, start, stack);
            // Data that the g refers to is read afterwards.
            let details = Details::read(view, memory, &g);
            let still = !Details::has_any(&g)
                || view.read_g(memory, g.addr).is_some_and(|now| now.epoch() == g.epoch());
            if let Some(slot) = copier.slots.get_mut(index) {
                slot.g = g;
                slot.frames = Frames::Walked(walked);
                slot.details = details;
            }
            match (still, whole) {
                (false, _) => Attempt::Changed,
                (true, true) => Attempt::Proven,
                (true, false) => Attempt::Slow,
            }
        });
    }
    copier.buffer = buffer;
    Ok(attempts)
}
