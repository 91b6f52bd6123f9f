//! What runs on the CPUs, over the last intervals.

use std::time::{Duration, Instant};

use crate::Error;
use crate::capture::cpu::mode::CaptureOptions;
use crate::capture::cpu::profile::named;
use crate::capture::cpu::session::Capture;
use crate::native::Kernel;
use crate::process::Process;
use crate::report::top::{Interval, Top, Window};

/// The longest wait for samples at once, so that whoever asks can look in between what else there is to do. No interval is shorter.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Samples of some processes, or of all of the machine, that are taken until it is dropped.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub(crate) struct Session<'o> {
    capture: Capture<'o>,
    kernel: Kernel,
    window: Window,
    interval: Duration,
    /// The only process that samples can be of: its pid and name.
    alone: Option<(u64, String)>,
    /// When the present interval began.
    since: Instant,
    /// How many notes were given.
    said: usize,
}

/// The end of an interval.
#[derive(Debug)]
pub(crate) struct Round {
    /// What ran in the last intervals.
    pub(crate) top: Top,
    /// What the user has to know of it, where that is more than before.
    pub(crate) notes: Vec<String>,
    /// Why it is the last one, if it is.
    pub(crate) ended: Option<&'static str>,
}

impl<'o> Session<'o> {
    /// Begins to take samples. Each answer is of `window`, or of one interval where that is longer.
    ///
    /// # Errors
    /// Where no sample can be taken in any way that is allowed.
    pub(crate) fn begin(
        processes: &'o [Process],
        options: &'o CaptureOptions,
        interval: Duration,
        window: Duration,
    ) -> Result<Self, Error> {
        // With children there are more of them soon.
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

    /// The only process that samples can be of: its pid and name. `None` where there may be others.
    pub(crate) fn alone(&self) -> Option<&(u64, String)> {
        self.alone.as_ref()
    }

    /// Why samples are not taken in a better way.
    pub(crate) fn because(&self) -> Vec<String> {
        let mode = self.capture.mode();
        let because = self.capture.because().iter();
        because.map(|why| format!("samples are taken by {mode}, not by {why}")).collect()
    }

    /// Collects samples until the interval is over, but for no longer than [`TICK`].
    ///
    /// # Errors
    /// Where it cannot go on.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        let left = self.interval.saturating_sub(self.since.elapsed());
        self.capture.poll(left.min(TICK))
    }

    /// Forgets the intervals before this one.
    pub(crate) fn forget(&mut self) {
        self.window.clear();
    }

    /// Ends the interval, if it is over or no more samples will come.
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
        // Once: there may be more of the same later.
        if notes.len() > self.said {
            self.said = notes.len();
        } else {
            notes.clear();
        }
        let top = self.window.top(self.capture.mode(), rate, self.capture.counts().lost);
        Some(Round { top, notes, ended })
    }
}
