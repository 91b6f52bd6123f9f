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
        .filter(|(field, value)| !equal(value, ours.get(field.as_str()).unwrap_or(&Value::Null)))
        .map(|(field, value)| Unequal {
            field: field.clone(),
            theirs: value.clone(),
            ours: ours.get(field).cloned().unwrap_or_default(),
        })
        .collect()
}

/// Go writes a fraction that is 0 without a point, and others with so many digits that reading them may end at the next
/// number beside.
fn equal(one: &Value, other: &Value) -> bool {
    let fraction = |value: &Value| value.as_f64().filter(|f| (0.0..1.0).contains(f)).map(f64::to_bits);
    one == other || fraction(one).zip(fraction(other)).is_some_and(|(a, b)| a.abs_diff(b) <= 1)
}

/// The size of a persistent chunk (`runtime.persistentChunkSize`).
const CHUNK: i64 = 256 << 10;
/// `runtime.spanSetInitSpineCap` pointers: with blocks, what flushing a cache may have to get.
const SPINE: i64 = 2048;

/// The size of `runtime.spanSetBlock`: 512 pointers, and a header that is aligned to 512 from Go 1.25 on.
fn block(minor: u32) -> i64 {
    if minor >= 25 { 4608 } else { 4120 }
}

/// Of which program the numbers are.
#[derive(Debug, Clone, Copy)]
pub struct Flushed {
    /// Its minor release.
    pub minor: u32,
    /// Spans of stacks that were to be given back.
    pub stack_spans: usize,
    /// Bytes of the structure of a span.
    pub span_size: u64,
}

/// Takes those of the differences away that `runtime.ReadMemStats` itself causes: it pushes spans into sets, which take memory
/// that was counted as `OtherSys` before, in blocks of known sizes, and may need a new chunk of it from the system. That
/// moves a goal which follows from a memory limit (or would, without one), too. And of the spans of stacks that it gives back the
/// structures go to a P as long as that has room for them.
#[must_use]
pub fn without_explained(mut unequal: Vec<Unequal>, flushed: Flushed) -> Vec<Unequal> {
    let Flushed { minor, stack_spans, span_size } = flushed;
    let size = block(minor);
    let by = |unequal: &[Unequal], field: &str| {
        let found = unequal.iter().find(|u| u.field == field);
        found.map_or(0, |u| u.theirs.as_i64().unwrap_or(0) - u.ours.as_i64().unwrap_or(0))
    };
    unequal.retain(|u| {
        let fewer = u.ours.as_u64().unwrap_or(0).wrapping_sub(u.theirs.as_u64().unwrap_or(0));
        let in_structures = fewer % span_size == 0 && fewer / span_size <= stack_spans as u64;
        u.field != "MSpanInuse" || !in_structures
    });
    let (gc, other, sys) = (by(&unequal, "GCSys"), by(&unequal, "OtherSys"), by(&unequal, "Sys"));
    let in_blocks = (0..=gc.max(0) / size).any(|blocks| (gc - blocks * size) % SPINE == 0);
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
