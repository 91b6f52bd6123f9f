//! `--enable`: a profile of a time in which a profiler is on because of us.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::args::Common;
use super::args::MemoryLimit;
use super::duration::parse_duration;
use super::interrupt::Interrupt;
use super::style::Style;
use crate::Error;
use crate::change::sampling::{self, Closed, DEFAULT_HEAP_RATE, End, Opened, Profiler};
use crate::change::subject::Subject;
use crate::change::{Options, guard};
use crate::memory::LiveMemory;
use crate::operations::error::buckets_error;
use crate::operations::profile::{Kind, Taken};
use crate::operations::reading::Reading;
use crate::operations::waiters::Waiters;
use crate::process::Process;
use crate::profile::mappings;
use crate::report::changes::Written;
use crate::report::printable::printable_str;
use crate::report::stack::Cost;
use crate::runtime::buckets::{self, Tables};

/// How long threads may take to stop, where they have to.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A wait as long as this is sampled for certain, unless the user wants another rate.
const BLOCK_RATE: Duration = Duration::from_micros(10);
/// One in so many contended locks is sampled, unless the user wants another rate.
const MUTEX_RATE: u64 = 10;

/// What is to be switched on, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    rate: Rate,
    duration: Duration,
}

/// As the user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rate {
    /// A sample each so many bytes.
    Bytes(u64),
    /// A sample of each wait that takes so long.
    Wait(Duration),
    /// A sample of one in so many events.
    OneIn(u64),
}

impl Request {
    /// Reads what `--enable` says for a profile; empty text is the default.
    pub(super) fn new(kind: Kind, rate: &str, duration: Duration) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Usage(format!("--enable={rate}: {rate:?} is not {what}"));
        let rate = match kind {
            Kind::Heap | Kind::Allocs if rate.is_empty() => Rate::Bytes(DEFAULT_HEAP_RATE),
            Kind::Heap | Kind::Allocs => {
                let bytes = rate.parse::<MemoryLimit>().ok().and_then(|bytes| u64::try_from(bytes.0).ok());
                let bytes = bytes.filter(|&bytes| (1..=1 << 40).contains(&bytes));
                Rate::Bytes(bytes.ok_or_else(|| wrong("a number of bytes such as 64KiB"))?)
            }
            Kind::Block if rate.is_empty() => Rate::Wait(BLOCK_RATE),
            Kind::Block => {
                let wait = parse_duration(rate).ok().filter(|wait| !wait.is_zero());
                Rate::Wait(wait.ok_or_else(|| wrong("a duration such as 100us"))?)
            }
            Kind::Mutex if rate.is_empty() => Rate::OneIn(MUTEX_RATE),
            Kind::Mutex => {
                let events = rate.parse().ok().filter(|&events| events > 0);
                Rate::OneIn(events.ok_or_else(|| wrong("a number of events such as 5"))?)
            }
            Kind::Goroutine | Kind::ThreadCreate => {
                return Err(Error::Usage(
                    "--enable: there is nothing to be switched on for this profile".to_owned(),
                ));
            }
        };
        Ok(Request { rate, duration })
    }
}

/// Makes the profile.
pub(super) fn profile(
    kind: Kind,
    process: &Process,
    runtime: Option<&str>,
    request: Request,
    interrupt: &Interrupt,
    common: &Common,
) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let subject = Subject::verify_chosen(process, runtime)?;
    let memory = LiveMemory::new(process.pid().as_raw());
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
    let interrupted = || interrupt.is_pending();
    let guard = Path::new(guard::OURSELVES);
    let options = Options { timeout: TIMEOUT, dry_run: false, interrupted: &interrupted, guard };
    let waiting = Waiters::look(kind, &subject.view);
    let opened = sampling::open(&subject, profiler, rate, request.duration, &options)?;
    let (reading, notes, closed) = match opened {
        Opened::AlreadyOn(on) => {
            let reading = Reading::take(kind, &tables, &memory).map_err(failed)?;
            // The linker decides for allocations: the rate is 0 only where nothing in the program reads their profile.
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
        Opened::Window(window) => {
            window.wait(request.duration, &interrupted)?;
            // The profile is scaled with the rate, and so is read while it is in force.
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
    let mut cost = Cost::of_reading(memory.cost());
    if let Some(closed) = &closed {
        profile.duration = Some(closed.duration);
        tell(closed, common);
        let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let words = closed.written.iter().map(|word| word.width.bytes() as u64).sum::<u64>();
        let again = closed.restored.iter().filter(|r| r.written).count() as u64;
        cost = Cost { stopped_us: us(closed.stopped), bytes_written: words * (1 + again), ..cost };
    }
    Ok(Taken { profile, cost: Some(cost), missing: None, notes, ticks: None, sampling: None })
}

/// What there is to say where the window was ended without us.
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

/// With `-v`, says what was written.
fn tell(closed: &Closed, common: &Common) {
    if common.verbose == 0 {
        return;
    }
    let style = Style::for_stderr(common.color);
    let mut err = std::io::stderr().lock();
    // What cannot be said is no failure of the answer.
    for word in &closed.written {
        let text = Written::from(word).to_string();
        let _ = writeln!(err, "{} {}", style.hint("wrote:"), printable_str(&text));
    }
    for restored in &closed.restored {
        let what = if restored.written { "put back" } else { "left as the program has set it" };
        let _ = writeln!(
            err,
            "{} {} is {} again ({what})",
            style.hint("wrote:"),
            printable_str(&restored.name),
            restored.value
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = |kind, text: &str| Request::new(kind, text, Duration::ZERO).map(|r| r.rate).ok();
        assert_eq!(rate(Kind::Heap, ""), Some(Rate::Bytes(512 << 10)));
        assert_eq!(rate(Kind::Allocs, "64KiB"), Some(Rate::Bytes(64 << 10)));
        assert_eq!(rate(Kind::Heap, "1"), Some(Rate::Bytes(1)));
        assert_eq!(rate(Kind::Block, ""), Some(Rate::Wait(Duration::from_micros(10))));
        assert_eq!(rate(Kind::Block, "1ms"), Some(Rate::Wait(Duration::from_millis(1))));
        assert_eq!(rate(Kind::Mutex, "7"), Some(Rate::OneIn(7)));
        for (kind, text) in [
            (Kind::Heap, "0"),
            (Kind::Heap, "off"),
            (Kind::Heap, "2TiB"),
            (Kind::Block, "0"),
            (Kind::Block, "x"),
            (Kind::Mutex, "0"),
            (Kind::Mutex, "-1"),
            (Kind::Goroutine, ""),
            (Kind::ThreadCreate, "1"),
        ] {
            assert_eq!(rate(kind, text), None, "{kind:?} {text}");
        }
    }
}
