//! Live CPU use over the last intervals.

use std::time::{Duration, Instant};

use crate::Error;
use crate::capture::cpu::mode::CaptureOptions;
use crate::capture::cpu::profile::named;
use crate::capture::cpu::session::Capture;
use crate::native::Kernel;
use crate::process::Process;
use crate::report::top::{Interval, Top, Window};

/// Maximum time of one wait for samples, so that the caller can do other work in between. Intervals are not
/// shorter.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Sampling of some processes, or of the whole machine. Dropping the value ends it.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub(crate) struct Session<'o> {
    capture: Capture<'o>,
    kernel: Kernel,
    window: Window,
    interval: Duration,
    /// Pid and name of the only process that samples can be of. `None` if there may be others.
    alone: Option<(u64, String)>,
    /// Start of the present interval.
    since: Instant,
    /// Number of notes already returned.
    said: usize,
}

/// Result at the end of an interval.
#[derive(Debug)]
pub(crate) struct Round {
    /// CPU use of the last intervals.
    pub(crate) top: Top,
    /// Notes that the user has to know. Empty unless there are more than before.
    pub(crate) notes: Vec<String>,
    /// Reason why this round is the last one. `None` if it is not.
    pub(crate) ended: Option<&'static str>,
}

impl<'o> Session<'o> {
    /// Begins sampling. Each answer covers `window`, or one interval if that is longer.
    ///
    /// # Errors
    /// Returns an error if no allowed way of sampling works.
    pub(crate) fn begin(
        processes: &'o [Process],
        options: &'o CaptureOptions,
        interval: Duration,
        window: Duration,
    ) -> Result<Self, Error> {
        // Children will add further processes soon.
        let alone = match processes {
            [one] if !options.children => {
                Some((u64::from(one.pid().as_raw().unsigned_abs()), one.name().to_owned()))
            }
            _ => None,
        };
        let intervals = window.as_secs_f64() / interval.as_secs_f64();
        Ok(Session {
            capture: Capture::begin(processes, options)?,
            kernel: Kernel::default(),
            window: Window::new(intervals.round() as usize),
            interval,
            alone,
            since: Instant::now(),
            said: 0,
        })
    }

    /// Returns pid and name of the only process that samples can be of. `None` if there may be others.
    pub(crate) fn alone(&self) -> Option<&(u64, String)> {
        self.alone.as_ref()
    }

    /// Returns the reasons why no better way of sampling is used, as sentences.
    pub(crate) fn because(&self) -> Vec<String> {
        let mode = self.capture.mode();
        let because = self.capture.because().iter();
        because.map(|why| format!("samples are taken by {mode}, not by {why}")).collect()
    }

    /// Collects samples until the interval is over, for at most [`TICK`].
    ///
    /// # Errors
    /// Returns an error if sampling cannot continue.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        let left = self.interval.saturating_sub(self.since.elapsed());
        self.capture.poll(left.min(TICK))
    }

    /// Removes the previous intervals.
    pub(crate) fn forget(&mut self) {
        self.window.clear();
    }

    /// Ends the interval and returns its result, if it is over or no more samples will come.
    pub(crate) fn round(&mut self) -> Option<Round> {
        let ended = self.capture.ended();
        if self.since.elapsed() < self.interval && ended.is_none() {
            return None;
        }
        let (took, rate) = (self.since.elapsed(), self.capture.rate());
        self.since = Instant::now();
        let (collected, known) = self.capture.take();
        let profile = named(known, &collected, rate, &|address| self.kernel.function(address));
        self.window.push(Interval::new(&profile, took, self.alone.as_ref()));
        let mut notes = [collected.notes(), self.capture.notes()].concat();
        // Notes are returned once; there may be more of the same later.
        if notes.len() > self.said {
            self.said = notes.len();
        } else {
            notes.clear();
        }
        let top = self.window.top(self.capture.mode(), rate, self.capture.counts().lost);
        Some(Round { top, notes, ended })
    }
}
