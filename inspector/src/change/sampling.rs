//! Temporary sampling: switches the runtime's sampling profilers on for a while.
//!
//! Each profiler has a rate in its own variable, which the runtime reads at each event:
//! `runtime.MemProfileRate` (bytes per sample), `blockprofilerate` (ticks of the CPU's clock per sample) and
//! `mutexprofilerate` (events per sample). A rate other than 0 was set by the program and is left alone: all
//! records are scaled with one rate.

use std::time::{Duration, Instant};

use super::guard::{Claim, GRACE, Guard, Times};
use super::journal::{Entry, Journal, Restored};
use super::verified::VerifiedRuntime;
use super::word::{Outcome, Word, Writer};
use super::{ChangeOptions, Turn, refused, stop_all, unverified};
use crate::Error;
use crate::clock;

/// Profiler that can be switched on.
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

/// Default of `runtime.MemProfileRate` in programs that link the profiler, in bytes.
pub const DEFAULT_HEAP_RATE: u64 = 512 << 10;
/// Upper limit of a rate; larger than any real one.
pub(super) const MAX_RATE: u64 = 1 << 40;
const STEP: Duration = Duration::from_millis(5);

/// Result of [`open`]: the rate set by the program, or the window in which a profiler is on.
#[derive(Debug)]
pub enum Opened<'a, 'p> {
    /// Profiler was switched on by the program itself, with this rate.
    AlreadyOn(u64),
    /// Profiler is on until the window is closed.
    Enabled(Box<EnabledProfiler<'a, 'p>>),
}

/// Window in which gops-probe keeps a profiler on. Dropping it switches the profiler off.
#[derive(Debug)]
pub struct EnabledProfiler<'a, 'p> {
    subject: &'a VerifiedRuntime<'p>,
    journal: Journal,
    guard: Option<Guard>,
    begun: Instant,
    /// Time of [`EnabledProfiler::begun`] on CLOCK_MONOTONIC, in nanoseconds.
    begun_at: i64,
    rate: u64,
    stopped: Duration,
    written: Vec<Word>,
}

/// Result of a closed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Rate during the window.
    pub rate: u64,
    /// Time for which the window was open.
    pub duration: Duration,
    /// Time for which all threads were stopped to switch the profiler on.
    pub stopped: Duration,
    /// Words written to switch the profiler on.
    pub written: Vec<Word>,
    /// Restored words; a rate that the program set meanwhile is left alone.
    pub restored: Vec<Restored>,
    /// Party that ended the window.
    pub end: End,
}

/// Party that switched a profiler off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Gops-probe switched the profiler off.
    Ours,
    /// Guard ([`guard`](super::guard)) switched the profiler off: the time was over while gops-probe was
    /// stopped or got no CPU. Gops-probe wrote nothing then.
    Guards,
    /// Other party switched the profiler off at an unknown time: the program, or another gops-probe if the
    /// guard was stopped too.
    Others,
}

/// Reads the present rate of a profiler; 0 is off.
///
/// # Errors
/// Returns [`Error::Uncalibrated`] if the rate is unknown or implausible.
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

/// Switches a profiler on, if it is off, for `duration` at most. The [guard](super::guard) switches it off
/// then, if nobody else has. `new_rate` is in the unit of the profiler.
///
/// # Errors
/// Returns [`Error::Uncalibrated`] or [`Error::Refused`]; nothing is written then.
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
    // The default differs from 0 in a single byte: no reader can see a part of it. Any other rate is written
    // while no thread runs.
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
            // Nothing was written, so nothing is left to restore.
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
    /// Rate of the profiler.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Start of the window.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits until the window has been open for `duration`, until interrupted, or until the process ends.
    /// Returns true if the time is over.
    ///
    /// # Errors
    /// Returns an error if the process ended.
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
    /// Returns an error if that fails; the guard and the next run try again.
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

    /// Restores the words. Returns the words that we restored, and the time if the guard restored them
    /// before.
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
            // If it fails, the guard tries when it hears nothing more of us.
            let _ = self.restore();
        }
    }
}
