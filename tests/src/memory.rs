//! What the memory fixture says about itself, held against what was seen from outside.

use inspector::runtime::histogram::Histogram;
use inspector::runtime::memstats::figures::MemStats;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fixture::Fixture;

/// A field that is not the same on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Unequal {
    /// Its name in Go.
    pub field: String,
    /// What the program says.
    pub theirs: Value,
    /// What was seen.
    pub ours: Value,
}

/// The fields of `runtime.MemStats` that differ.
#[must_use]
pub fn differences(theirs: &Value, ours: &MemStats) -> Vec<Unequal> {
    let ours = serde_json::to_value(ours).unwrap_or_default();
    let fields = theirs.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| ours.get(field.as_str()) != Some(value))
        .map(|(field, value)| Unequal {
            field: field.clone(),
            theirs: value.clone(),
            ours: ours.get(field).cloned().unwrap_or_default(),
        })
        .collect()
}

/// The size of a persistent chunk (`runtime.persistentChunkSize`).
const CHUNK: i64 = 256 << 10;
/// `runtime.spanSetInitSpineCap` pointers, and `runtime.spanSetBlock`: what flushing a cache may have to get.
const SPINE: i64 = 2048;
const BLOCK: i64 = 4120;

/// Takes those of the differences away that `runtime.ReadMemStats` itself causes: it pushes spans into sets, which take memory
/// that was counted as `OtherSys` before, in blocks of known sizes, and may need a new chunk of it from the system. That
/// moves a goal which follows from a memory limit (or would, without one), too.
#[must_use]
pub fn without_explained(mut unequal: Vec<Unequal>) -> Vec<Unequal> {
    let by = |unequal: &[Unequal], field: &str| {
        let found = unequal.iter().find(|u| u.field == field);
        found.map_or(0, |u| u.theirs.as_i64().unwrap_or(0) - u.ours.as_i64().unwrap_or(0))
    };
    let (gc, other, sys) = (by(&unequal, "GCSys"), by(&unequal, "OtherSys"), by(&unequal, "Sys"));
    let in_blocks = (0..=gc.max(0) / BLOCK).any(|blocks| (gc - blocks * BLOCK) % SPINE == 0);
    let chunks = sys / CHUNK;
    if gc < 0 || !in_blocks || sys < 0 || sys % CHUNK != 0 || chunks > 2 || other != sys - gc {
        return unequal;
    }
    unequal.retain(|u| match u.field.as_str() {
        "GCSys" | "OtherSys" | "Sys" => false,
        "NextGC" => chunks == 0 || by(std::slice::from_ref(u), "NextGC").abs() > 2 * chunks * CHUNK,
        _ => true,
    });
    unequal
}

/// What differs between a histogram that was seen and one of `runtime/metrics`, as pairs of an edge in nanoseconds and the
/// difference.
#[must_use]
pub fn histogram_differences(theirs: &Value, ours: &Histogram) -> Vec<(i64, i64)> {
    let mut counts: std::collections::BTreeMap<i64, i64> =
        ours.buckets.iter().map(|b| (b.from_ns as i64, b.count as i64)).collect();
    if ours.negative != 0 {
        counts.insert(-1, ours.negative as i64);
    }
    for pair in theirs.as_array().into_iter().flatten() {
        let number = |at: usize| pair.get(at).and_then(Value::as_f64).unwrap_or(f64::NAN).round() as i64;
        *counts.entry(number(0)).or_default() -= number(1);
    }
    counts.into_iter().filter(|&(_, difference)| difference != 0).collect()
}

impl Fixture {
    /// Has the memory fixture read its statistics and stand still; `command` is `park` or `measure`.
    ///
    /// # Errors
    /// Where it does not.
    pub fn park(&mut self, command: &str) -> Result<()> {
        self.send(command)?;
        let line = self.line(command)?;
        if line == "parked" { Ok(()) } else { Err(self.unexpected(command, &line)) }
    }

    /// Lets it go on, and returns what it has read.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn unpark(&mut self) -> Result<Value> {
        self.send("")?;
        self.own_numbers("unpark")
    }

    /// The numbers that it has read.
    ///
    /// # Errors
    /// Where it does not say them.
    pub fn own_numbers(&mut self, question: &str) -> Result<Value> {
        let line = self.line(question)?;
        serde_json::from_str(&line).map_err(|_| self.unexpected(question, &line))
    }

    fn unexpected(&self, question: &str, answer: &str) -> Error {
        Error::BadAnswer { pid: self.pid(), question: question.to_owned(), answer: answer.to_owned() }
    }
}
