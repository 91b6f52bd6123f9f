//! How often something random is tried: in full, or a seeded twentieth of it, in a time that is printed.
//!
//! `GOPS_PROBE_SOAK=full` asks for the full counts, `GOPS_PROBE_SEED` repeats a run, `GOPS_PROBE_BUDGET` is the
//! time in seconds that one kind of repetition may take (by default two minutes, without limit in full).
//! What was done is appended as rows of a table to the file that `GOPS_PROBE_SOAK_REPORT` names.

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

/// Whether the full counts are asked for.
#[must_use]
pub fn full() -> bool {
    std::env::var("GOPS_PROBE_SOAK").is_ok_and(|value| value == "full")
}

impl Repetitions {
    /// `count` repetitions in full, else a twentieth; `what` names kind and target.
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

    /// Whether to go on, counting one more.
    pub fn another(&mut self) -> bool {
        if self.done >= self.planned || self.budget.is_some_and(|budget| self.begun.elapsed() > budget) {
            return false;
        }
        self.done += 1;
        true
    }

    /// How many were begun.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// The seed, for messages.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `limit` (xorshift).
    pub fn random(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % limit.max(1)
    }

    /// Reports what was done, with figures of the test's own.
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

/// `complete 12, marked 3 (its stack is being moved)`; lists of more than a few entries are left out.
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

/// Tells whoever runs the tests, even where a passing test's output is not shown.
pub fn say(text: &str) {
    // Not captured, unlike `eprintln!`.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
