//! Progress display on a terminal, for work that takes longer than a second.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const SHORT: Duration = Duration::from_secs(1);

/// Progress display on standard error. It is hidden if that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    expected: Duration,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Makes a display for work that takes `expected`, or an unknown time if that is zero.
    pub(super) fn new(what: &'static str, expected: Duration) -> Self {
        Progress { what, expected, begun: Instant::now(), bar: None }
    }

    /// Updates the display; `bytes` of the answer have arrived.
    pub(super) fn tick(&mut self, bytes: u64) {
        let elapsed = self.begun.elapsed();
        if elapsed < SHORT {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(self.what, self.expected));
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        bar.set_position(milliseconds.min(bar.length().unwrap_or(u64::MAX)));
        if bytes > 0 {
            bar.set_message(format!("{} received", indicatif::HumanBytes(bytes)));
        }
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, expected: Duration) -> ProgressBar {
    let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
    let (bar, template) = if expected.is_zero() {
        (ProgressBar::no_length(), "{prefix} {spinner} {elapsed} {msg}")
    } else {
        (ProgressBar::new(milliseconds), "{prefix} [{bar:30}] {elapsed} {msg}")
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}
