//! Repetition of random tests: in full, or a seeded twentieth of it. The time is printed.
//!
//! `GOPS_PROBE_SOAK=full` selects the full counts. `GOPS_PROBE_SEED` repeats a run. `GOPS_PROBE_BUDGET` is
//! the maximum time in seconds of one kind of repetition (default: two minutes; no limit in full). Results
//! are appended as table rows to the file that `GOPS_PROBE_SOAK_REPORT` names.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Repetitions of one kind on one target.
#[derive(Debug)]
pub struct Repetitions {
    test: &'static str,
    what: String,
    planned: usize,
    done: usize,
    begun: Instant,
    budget: Option<Duration>,
    seed: u64,
    state: u64,
}

/// Returns true if the full counts are selected.
#[must_use]
pub fn full() -> bool {
    std::env::var("GOPS_PROBE_SOAK").is_ok_and(|value| value == "full")
}

impl Repetitions {
    /// Plans `count` repetitions in full, otherwise a twentieth; `what` names kind and target.
    #[must_use]
    pub fn new(test: &'static str, what: impl Into<String>, count: usize) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seed = number("GOPS_PROBE_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |time| time.as_micros() as u64) | 1
        });
        let budget = number("GOPS_PROBE_BUDGET").or((!full()).then_some(120)).map(Duration::from_secs);
        let planned = if full() { count } else { count.div_ceil(20) };
        let what = what.into();
        say(&format!(
            "{test}: {what}: {planned} of {count} repetitions, seed {seed}, at most {}",
            budget.map_or("as long as it takes".to_owned(), |time| format!("{time:?}"))
        ));
        Self { test, what, planned, done: 0, begun: Instant::now(), budget, seed, state: seed | 1 }
    }

    /// Counts one more repetition. Returns false if no more are planned or the time is over.
    pub fn another(&mut self) -> bool {
        if self.done >= self.planned || self.budget.is_some_and(|budget| self.begun.elapsed() > budget) {
            return false;
        }
        self.done += 1;
        true
    }

    /// Number of repetitions begun.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Seed of the run, for messages.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns a random number below `limit` (xorshift).
    pub fn random(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % limit.max(1)
    }

    /// Reports the repetitions done, with the test's own figures.
    pub fn report(&self, figures: &Value) {
        let seconds = (self.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let short = if self.done < self.planned { ", cut short by the time budget" } else { "" };
        say(&format!("{}: {}: {} done in {seconds} s{short}: {figures}", self.test, self.what, self.done));
        let line = format!(
            "| {} | {} | {} of {} | {seconds} | {} |",
            self.test,
            self.what,
            self.done,
            self.planned,
            in_words(figures)
        );
        let Some(path) = std::env::var_os("GOPS_PROBE_SOAK_REPORT") else { return };
        let file = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
            say(&format!("the report cannot be written: {error}"));
        }
    }
}

/// Formats figures as `complete 12, marked 3 (its stack is being moved)`; objects of more than four entries
/// are left out.
fn in_words(figures: &Value) -> String {
    let Some(figures) = figures.as_object() else { return figures.to_string() };
    let word = |name: &String| name.replace('_', " ");
    let texts = figures.iter().filter_map(|(name, value)| match value {
        Value::Object(parts) if parts.is_empty() => Some(format!("{} 0", word(name))),
        Value::Object(parts) if parts.len() > 4 => None,
        Value::Object(parts) => {
            let parts: Vec<String> = parts.iter().map(|(part, count)| format!("{count} {part}")).collect();
            Some(format!("{}: {}", word(name), parts.join("; ")))
        }
        value => Some(format!("{} {value}", word(name))),
    });
    texts.collect::<Vec<String>>().join(", ")
}

/// Prints a message to the person who runs the tests, even if the output of a passing test is hidden.
pub fn say(text: &str) {
    // Test harnesses do not capture this, unlike `eprintln!`.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
