//! Profile of a period for which gops-probe switched a profiler on.

use std::path::Path;
use std::time::Duration;

use super::Interrupted;
use super::error::buckets_error;
use super::profile::{ProfileKind, Taken};
use super::reading::Reading;
use super::waiters::Waiters;
use crate::Error;
use crate::change::sampling::{self, Closed, End, Opened, Profiler};
use crate::change::verified::VerifiedRuntime;
use crate::change::{ChangeOptions, guard};
use crate::memory::Memory;
use crate::process::Process;
use crate::profile::mappings;
use crate::report::stack::AnswerCost;
use crate::runtime::buckets::{self, Tables};

/// Maximum time for threads to stop, where they have to.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Request to switch a profiler on: rate and duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Sampling rate.
    pub(crate) rate: Rate,
    /// Time for which the profiler is on.
    pub(crate) duration: Duration,
}

/// Sampling rate, as the user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// One sample per this number of allocated bytes.
    Bytes(u64),
    /// One sample per wait of this length.
    Wait(Duration),
    /// One sample per this number of events.
    OneIn(u64),
}

/// Makes the profile. Also returns the writes, if a profiler was switched on.
///
/// # Errors
/// Returns an error if the process cannot be read or written, and [`Error::Interrupted`] if `interrupted`
/// returns true.
pub(crate) fn profile(
    kind: ProfileKind,
    process: &Process,
    runtime: Option<&str>,
    request: Request,
    interrupted: Interrupted<'_>,
) -> Result<(Taken, Option<Closed>), Error> {
    let mapped = mappings::of(process)?;
    let subject = VerifiedRuntime::verify_chosen(process, runtime)?;
    let memory = process.memory();
    let tables = Tables::locate(&subject.view);
    let failed = |e| buckets_error(process, e);
    let (profiler, rate) = match request.rate {
        Rate::Bytes(bytes) => (Profiler::Heap, bytes),
        Rate::Wait(wait) => {
            let ticks = buckets::ticks_per_second(&tables, &memory).map_err(failed)?.value();
            let ticks = u128::from(ticks.unsigned_abs()) * wait.as_nanos() / 1_000_000_000;
            (Profiler::Block, u64::try_from(ticks).unwrap_or(u64::MAX).max(1))
        }
        Rate::OneIn(events) => (Profiler::Mutex, events),
    };
    let before = Reading::take(kind, &tables, &memory).map_err(failed)?;
    let guard = Path::new(guard::OURSELVES);
    let options = ChangeOptions { timeout: TIMEOUT, dry_run: false, interrupted, guard };
    let waiting = Waiters::look(kind, process, &subject.view);
    let opened = sampling::open(&subject, profiler, rate, request.duration, &options)?;
    let (reading, notes, closed) = match opened {
        Opened::AlreadyOn(on) => {
            let reading = Reading::take(kind, &tables, &memory).map_err(failed)?;
            // The linker decides for allocations: the rate is 0 only if nothing in the program reads their
            // profile.
            let why = match profiler {
                Profiler::Heap => {
                    "as in every program that links runtime/pprof, unless it sets MemProfileRate"
                }
                Profiler::Block | Profiler::Mutex => "by the program itself",
            };
            let note = format!(
                "this profiler is on already ({why}; rate {on}), and was left as it is: the profile is of all the time since"
            );
            (reading, vec![note], None)
        }
        Opened::Enabled(window) => {
            window.wait(request.duration, interrupted)?;
            // The profile is scaled with the rate: it is read while the rate is in force.
            let mut after = Reading::take(kind, &tables, &memory).map_err(failed)?;
            let closed = window.close()?;
            after.was_sampled_with(closed.rate);
            let note = without_us(&closed, request.duration).unwrap_or_else(|| format!(
                "this is of {:.1} s only, for which the profiler was switched on (rate {rate}): what was there before is \
                 not in it",
                closed.duration.as_secs_f64()
            ));
            let mut notes = vec![note];
            notes.extend(waiting.into_iter().flat_map(|w| w.notes(kind, &subject.view, process)));
            (after.since(&before), notes, Some(closed))
        }
    };
    process.check()?;
    let mut profile = reading.profile(kind, &tables, mapped);
    profile.comments.extend(notes.iter().cloned());
    let mut cost = AnswerCost::of_reading(memory.cost());
    if let Some(closed) = &closed {
        profile.duration = Some(closed.duration);
        let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let words = closed.written.iter().map(|word| word.width.bytes() as u64).sum::<u64>();
        let again = closed.restored.iter().filter(|r| r.written).count() as u64;
        cost = AnswerCost { stopped_us: us(closed.stopped), bytes_written: words * (1 + again), ..cost };
    }
    Ok((Taken { profile, cost: Some(cost), missing: None, notes, ticks: None, sampling: None }, closed))
}

/// Returns the note for a window that was ended by another than gops-probe itself. `None` if gops-probe ended
/// it.
fn without_us(closed: &Closed, wanted: Duration) -> Option<String> {
    let (wanted, open) = (wanted.as_secs_f64(), closed.duration.as_secs_f64());
    match closed.end {
        End::Ours => None,
        End::Guards => Some(format!(
            "gops-probe was stopped, or got no CPU, when the {wanted:.1} s were over; its guard switched the profiler off after \
             {open:.1} s (rate {}), and this is of that time only",
            closed.rate
        )),
        End::Others => Some(format!(
            "the profiler was switched on (rate {}) and somebody else has switched it off before {open:.1} s were over: this is of a \
             part of that time, and how long that was is not known",
            closed.rate
        )),
    }
}
