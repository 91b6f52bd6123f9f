//! One model of every profile: sampled stacks with values, named so far that no program is needed to read them.
//!
//! What it is made from (the runtime's tables, goroutines, samples of the kernel) and what it is written as (pprof,
//! folded stacks, flame graph, speedscope, text, JSON) know nothing of each other.

mod diff;
pub mod flamegraph;
pub mod folded;
pub mod json;
pub mod mappings;
pub mod pprof;
pub mod speedscope;
pub(crate) mod sums;
#[cfg(test)]
mod tests;
pub mod text;
mod write;

use std::time::{Duration, SystemTime};

pub use diff::{DifferentTypes, diff, merge};
pub use write::{Frame, MAX_WRITTEN, WriteError};

/// What a value of a sample is: `alloc_objects` in `count`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// What is counted.
    pub kind: String,
    /// `count`, `bytes`, `nanoseconds`.
    pub unit: String,
}

impl ValueType {
    /// Values of this kind and unit.
    pub fn new(kind: &str, unit: &str) -> Self {
        ValueType { kind: kind.to_owned(), unit: unit.to_owned() }
    }
}

/// A profile. Indices in it are of its own lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What the values of each sample are, in their order.
    pub sample_types: Vec<ValueType>,
    /// Index of the one that is shown unless another is asked for.
    pub default_sample_type: usize,
    /// What a sample stands for, and how many of that: 524288 bytes of allocations.
    pub period: Option<(ValueType, i64)>,
    /// When it was taken, or its taking began.
    pub time: SystemTime,
    /// How long it was taken for; `None` where it is of one instant.
    pub duration: Option<Duration>,
    /// What is mapped where.
    pub mappings: Vec<Mapping>,
    /// Places in code.
    pub locations: Vec<Location>,
    /// Functions.
    pub functions: Vec<Function>,
    /// The samples.
    pub samples: Vec<Sample>,
    /// For the reader: what the profile does and does not cover.
    pub comments: Vec<String>,
}

impl Profile {
    /// Gives each sample one more label.
    pub fn add_label(&mut self, key: &str, value: &str) {
        for sample in &mut self.samples {
            sample.labels.push(Label { key: key.to_owned(), value: LabelValue::Text(value.to_owned()) });
        }
    }
}

/// A stack and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Indices of locations, the innermost first.
    pub stack: Vec<usize>,
    /// One for each of the profile's sample types.
    pub values: Vec<i64>,
    /// What else is known of it.
    pub labels: Vec<Label>,
}

/// A label of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: LabelValue,
}

/// The value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelValue {
    /// A text.
    Text(String),
    /// A number, and its unit (may be empty).
    Number(i64, String),
}

/// A place in code, with what was inlined there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Index of the mapping that it is in.
    pub mapping: Option<usize>,
    /// Runtime address of an instruction, inside of a call where it is one.
    pub address: u64,
    /// Its frames, what was inlined first. Empty where nothing is known of it.
    pub lines: Vec<Line>,
}

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Index of the function.
    pub function: usize,
    /// Line in its file; 0 where unknown.
    pub line: u32,
}

/// A function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// As `runtime/pprof` writes it, so that profiles of both can be compared: for Go the linker's name, which has
    /// type arguments in full from Go 1.21 on and as `[...]` before.
    pub name: String,
    /// As the linker has it.
    pub system_name: String,
    /// Its source file.
    pub file: String,
    /// The line of its `func` keyword; 0 where unknown.
    pub start_line: u32,
}

/// A mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Runtime address of its first byte.
    pub start: u64,
    /// One past its last.
    pub end: u64,
    /// Offset of its start in the file.
    pub offset: u64,
    /// Path of the file in the target.
    pub file: String,
    /// The GNU build id in hexadecimal; empty where there is none.
    pub build_id: String,
    /// All locations in it have functions, files and lines.
    pub symbolized: bool,
}
