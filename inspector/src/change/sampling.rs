//! Switching the runtime's sampling profilers on for a while.
//!
//! Each has a rate in a variable of its own, which the runtime reads at each event: `runtime.MemProfileRate` (bytes per
//! sample), `blockprofilerate` (ticks of the CPU's clock per sample) and `mutexprofilerate` (events per sample). A rate
//! that is not 0 is the program's own and is left alone: all that is recorded is counted with one rate.

use std::time::{Duration, Instant};

use super::guard::{Claim, GRACE, Guard, Times};
use super::journal::{Entry, Journal, Restored};
use super::verified::VerifiedRuntime;
use super::word::{Outcome, Word, Writer};
use super::{ChangeOptions, Turn, refused, stop_all, unverified};
use crate::Error;
use crate::clock;

/// A profiler that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profiler {
    /// Allocations: `runtime.MemProfileRate`.
    Heap,
    /// Waiting for channels and locks: `runtime.blockprofilerate`.
    Block,
    /// Holding locks that others wait for: `runtime.mutexprofilerate`.
    Mutex,
}

impl Profiler {
    fn variable(self) -> &'static str {
        match self {
            Profiler::Heap => "runtime.MemProfileRate",
            Profiler::Block => "runtime.blockprofilerate",
            Profiler::Mutex => "runtime.mutexprofilerate",
        }
    }
}

/// `runtime.MemProfileRate` as programs have it that link the profiler, in bytes.
pub const DEFAULT_HEAP_RATE: u64 = 512 << 10;
/// More than any rate is.
pub(super) const MAX_RATE: u64 = 1 << 40;
const STEP: Duration = Duration::from_millis(5);

/// A profiler's rate, or the window in which it has one.
#[derive(Debug)]
pub enum Opened<'a, 'p> {
    /// The program has switched it on, with this rate.
    AlreadyOn(u64),
    /// It is on until the window is closed.
    Enabled(Box<EnabledProfiler<'a, 'p>>),
}

/// The time in which a profiler is on because of us. Dropping it switches it off.
#[derive(Debug)]
pub struct EnabledProfiler<'a, 'p> {
    subject: &'a VerifiedRuntime<'p>,
    journal: Journal,
    guard: Option<Guard>,
    begun: Instant,
    /// [`EnabledProfiler::begun`] on CLOCK_MONOTONIC, in nanoseconds.
    begun_at: i64,
    rate: u64,
    stopped: Duration,
    written: Vec<Word>,
}

/// A window that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The rate that it had.
    pub rate: u64,
    /// How long it was open.
    pub duration: Duration,
    /// For how long all threads were stopped to switch it on.
    pub stopped: Duration,
    /// What was written when it was switched on.
    pub written: Vec<Word>,
    /// What became of it at the end: a rate that the program set meanwhile is left alone.
    pub restored: Vec<Restored>,
    /// Who has ended it.
    pub end: End,
}

/// Who has switched a profiler off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// We have.
    Ours,
    /// The [guard](super::guard), as the time was over while we were stopped or got no CPU. Nothing was written by us then.
    Guards,
    /// Somebody else, at a time that is not known: the program, or another gops-probe where the guard was stopped too.
    Others,
}

/// The present rate of a profiler; 0 is off.
///
/// # Errors
/// [`Error::Uncalibrated`] where it is not known, or makes no sense.
pub fn rate(subject: &VerifiedRuntime<'_>, profiler: Profiler) -> Result<u64, Error> {
    let rate = subject.read(profiler.variable(), "")?;
    if rate.cast_signed() < 0 {
        return Err(refused(
            subject.process,
            format!("the program itself has set {} to off", profiler.variable()),
        ));
    }
    if rate > MAX_RATE {
        return Err(unverified(subject.process, format!("{} would be {rate}", profiler.variable())));
    }
    Ok(rate)
}

/// Switches a profiler on, if it is off, for `duration` at most: then the [guard](super::guard) switches it off, if nobody else
/// has. `rate` is in its own unit.
///
/// # Errors
/// [`Error::Uncalibrated`] and [`Error::Refused`]; nothing is written then.
pub fn open<'a, 'p>(
    subject: &'a VerifiedRuntime<'p>,
    profiler: Profiler,
    new_rate: u64,
    duration: Duration,
    options: &ChangeOptions<'_>,
) -> Result<Opened<'a, 'p>, Error> {
    let process = subject.process;
    if !(1..=MAX_RATE).contains(&new_rate) {
        return Err(refused(process, format!("{new_rate} is no rate to sample with")));
    }
    match rate(subject, profiler)? {
        0 => {}
        on => return Ok(Opened::AlreadyOn(on)),
    }
    // The default differs from 0 in a single byte: no reader can see a part of it. All others are written while none is
    // running.
    let stop = profiler == Profiler::Heap && new_rate != DEFAULT_HEAP_RATE;
    let word = subject.word(profiler.variable(), "", 0, new_rate)?;
    let mut writer = Writer::new(process, options.dry_run)?;
    writer.check_place(word.at, word.width, &word.name)?;
    let mut journal = Journal::open(process)?;
    let times = Times { opening: options.timeout + GRACE, open: duration.saturating_add(GRACE) };
    journal.note(process, &[Entry::undo(&word, stop)], times.total())?;
    let mut guard = match Guard::start(options.guard, process, &journal, times) {
        Ok(guard) => guard,
        Err(error) => {
            // Nothing was written, so that nothing is left to anybody.
            journal.restore(process)?;
            return Err(error);
        }
    };
    let turn = Turn { deadline: Instant::now() + options.timeout, interrupted: options.interrupted };
    let held = match stop.then(|| stop_all(process, &turn)).transpose() {
        Ok(held) => held,
        Err(error) => {
            journal.restore(process)?;
            guard.dismiss();
            return Err(error);
        }
    };
    let outcome = if guard.is_in_time() {
        writer.write(std::slice::from_ref(&word))
    } else {
        Err(refused(process, "gops-probe was stopped, or got no CPU, for longer than this may take"))
    };
    let stopped = held.map_or(Duration::ZERO, |held| held.thaw());
    let (begun, begun_at) = (Instant::now(), clock::monotonic());
    guard.written();
    let written = writer.written().to_vec();
    let guard = Some(guard);
    let window =
        EnabledProfiler { subject, journal, guard, begun, begun_at, rate: new_rate, stopped, written };
    match outcome? {
        Outcome::Written => Ok(Opened::Enabled(Box::new(window))),
        Outcome::Changed(changed) => Ok(Opened::AlreadyOn(changed.found)),
    }
}

impl EnabledProfiler<'_, '_> {
    /// The rate.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Since when it is open.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits until it has been open for so long, somebody interrupts, or the process ends. Whether the time is full.
    ///
    /// # Errors
    /// Where the process ended.
    pub fn wait(&self, duration: Duration, interrupted: &dyn Fn() -> bool) -> Result<bool, Error> {
        while self.begun.elapsed() < duration {
            if interrupted() {
                return Ok(false);
            }
            self.subject.process.check()?;
            std::thread::sleep(STEP.min(duration.saturating_sub(self.begun.elapsed())));
        }
        Ok(true)
    }

    /// Switches the profiler off again.
    ///
    /// # Errors
    /// Where that cannot be done; the guard and the next run try again.
    pub fn close(mut self) -> Result<Closed, Error> {
        let (restored, ended) = self.restore()?;
        let duration = match ended {
            None => self.begun.elapsed(),
            Some(at) => Duration::from_nanos(u64::try_from(at.saturating_sub(self.begun_at)).unwrap_or(0)),
        };
        let end = match ended {
            Some(_) => End::Guards,
            None if restored.iter().any(|word| !word.written && word.value == 0) => End::Others,
            None => End::Ours,
        };
        Ok(Closed {
            rate: self.rate,
            duration,
            stopped: self.stopped,
            written: std::mem::take(&mut self.written),
            restored,
            end,
        })
    }

    /// What was put back by us, and when the guard had done it before.
    fn restore(&mut self) -> Result<(Vec<Restored>, Option<i64>), Error> {
        let claim = self.guard.as_mut().map_or(Claim::Ours, Guard::claim);
        let (restored, ended) = match claim {
            Claim::Ours => (self.journal.restore(self.subject.process)?, None),
            Claim::Ended { at } => {
                self.journal.was_restored();
                (Vec::new(), Some(at))
            }
        };
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        Ok((restored, ended))
    }
}

impl Drop for EnabledProfiler<'_, '_> {
    fn drop(&mut self) {
        if !self.journal.is_empty() {
            // Where it fails, the guard tries when it hears nothing more of us.
            let _ = self.restore();
        }
    }
}
