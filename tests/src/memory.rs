//! Comparison of the memory fixture's own statistics with those read from outside.

use inspector::runtime::histogram::Histogram;
use inspector::runtime::memstats::figures::MemStats;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fixture::Fixture;

/// Field with different values on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Unequal {
    /// Name of the field in Go.
    pub field: String,
    /// Value that the program reports.
    pub theirs: Value,
    /// Value that was read from outside.
    pub ours: Value,
}

/// Returns the fields of `runtime.MemStats` that differ.
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

/// Compares two values. Go writes a fraction of 0 without a point, and other fractions with so many digits
/// that parsing may give the next number beside.
fn equal(one: &Value, other: &Value) -> bool {
    let fraction = |value: &Value| value.as_f64().filter(|f| (0.0..1.0).contains(f)).map(f64::to_bits);
    one == other || fraction(one).zip(fraction(other)).is_some_and(|(a, b)| a.abs_diff(b) <= 1)
}

/// Size of a persistent chunk in bytes (`runtime.persistentChunkSize`).
const CHUNK: i64 = 256 << 10;
/// Size of `runtime.spanSetInitSpineCap` pointers in bytes. Flushing a cache may allocate them, and blocks.
const SPINE: i64 = 2048;

/// Returns the size of `runtime.spanSetBlock` in bytes: 512 pointers and a header, which is aligned to 512
/// bytes from Go 1.25 on.
fn block(minor: u32) -> i64 {
    if minor >= 25 { 4608 } else { 4120 }
}

/// Properties of the program whose statistics are compared.
#[derive(Debug, Clone, Copy)]
pub struct Flushed {
    /// Minor Go release of the program.
    pub minor: u32,
    /// Number of stack spans that were to be freed.
    pub stack_spans: usize,
    /// Size of the structure of a span in bytes.
    pub span_size: u64,
}

/// Removes the differences that `runtime.ReadMemStats` itself causes.
///
/// The function pushes spans into sets. The sets take memory that was counted as `OtherSys` before, in blocks
/// of known sizes, and may need a new chunk of it from the system. This also moves a goal that follows from a
/// memory limit (or would, without one). The function also frees stack spans: their structures go to a P as
/// long as it has room for them.
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

/// Returns the differences between a histogram read from outside and one of `runtime/metrics`, as pairs of an
/// edge in nanoseconds and the difference.
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
    /// Makes the memory fixture read its statistics and stand still; `command` is `park` or `measure`.
    ///
    /// # Errors
    /// Returns an error if the fixture does not report that it is parked.
    pub fn park(&mut self, command: &str) -> Result<()> {
        self.send(command)?;
        let line = self.line(command)?;
        if line == "parked" { Ok(()) } else { Err(self.unexpected(command, &line)) }
    }

    /// Lets the fixture continue, and returns the statistics that it has read.
    ///
    /// # Errors
    /// Returns an error if the fixture does not answer.
    pub fn unpark(&mut self) -> Result<Value> {
        self.send("")?;
        self.own_numbers("unpark")
    }

    /// Returns the statistics that the fixture has read.
    ///
    /// # Errors
    /// Returns an error if the fixture does not send them.
    pub fn own_numbers(&mut self, question: &str) -> Result<Value> {
        let line = self.line(question)?;
        serde_json::from_str(&line).map_err(|_| self.unexpected(question, &line))
    }

    fn unexpected(&self, question: &str, answer: &str) -> Error {
        Error::BadAnswer { pid: self.pid(), question: question.to_owned(), answer: answer.to_owned() }
    }
}
