//! Common model of all profiles: sampled stacks with values, with names, so that no program is
//! needed to read them.
//!
//! The sources (the runtime's tables, goroutines, samples of the kernel) and the output formats
//! (pprof, folded stacks, flame graph, speedscope, text, JSON) do not depend on each other.

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

/// Kind and unit of a sample's value: `alloc_objects` in `count`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// Kind of the counted thing.
    pub kind: String,
    /// Unit: `count`, `bytes`, `nanoseconds`.
    pub unit: String,
}

impl ValueType {
    /// Makes a value type of this kind and unit.
    pub fn new(kind: &str, unit: &str) -> Self {
        ValueType { kind: kind.to_owned(), unit: unit.to_owned() }
    }
}

/// Profile. Indices in it refer to its own lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Types of the values of each sample, in order.
    pub sample_types: Vec<ValueType>,
    /// Index of the sample type that is shown by default.
    pub default_sample_type: usize,
    /// Type and number that a sample stands for: 524288 bytes of allocations.
    pub period: Option<(ValueType, i64)>,
    /// Time at which the profile was taken, or at which taking it began.
    pub time: SystemTime,
    /// Time for which the profile was taken; `None` if it shows one instant.
    pub duration: Option<Duration>,
    /// Mapped files.
    pub mappings: Vec<Mapping>,
    /// Places in code.
    pub locations: Vec<Location>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Stacks with their values.
    pub samples: Vec<Sample>,
    /// Remarks for the reader: what the profile covers and what it does not.
    pub comments: Vec<String>,
}

impl Profile {
    /// Adds a label to each sample.
    pub fn add_label(&mut self, key: &str, value: &str) {
        for sample in &mut self.samples {
            sample.labels.push(Label { key: key.to_owned(), value: LabelValue::Text(value.to_owned()) });
        }
    }
}

/// Stack with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Indices of locations, the innermost first.
    pub stack: Vec<usize>,
    /// Values, one for each of the profile's sample types.
    pub values: Vec<i64>,
    /// Further facts about the sample.
    pub labels: Vec<Label>,
}

/// Label of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// Key of the label.
    pub key: String,
    /// Value of the label.
    pub value: LabelValue,
}

/// Value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelValue {
    /// Text.
    Text(String),
    /// Number and its unit, which may be empty.
    Number(i64, String),
}

/// Place in code, with the functions that were inlined there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Index of the mapping that contains the place.
    pub mapping: Option<usize>,
    /// Runtime address of an instruction; an address inside the instruction if that is a call.
    pub address: u64,
    /// Frames, the innermost inlined one first. Empty if nothing is known.
    pub lines: Vec<Line>,
}

/// Frame of a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Index of the function.
    pub function: usize,
    /// Line in the source file; 0 if unknown.
    pub line: u32,
}

/// Function of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name as `runtime/pprof` writes it, so that profiles of both can be compared. For Go it is
    /// the linker's name, which has type arguments in full from Go 1.21 on and as `[...]` before.
    pub name: String,
    /// Name in the linker's form.
    pub system_name: String,
    /// Source file.
    pub file: String,
    /// Line of the `func` keyword; 0 if unknown.
    pub start_line: u32,
}

/// Mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Runtime address of the first byte.
    pub start: u64,
    /// Runtime address one past the last byte.
    pub end: u64,
    /// Offset of the start in the file.
    pub offset: u64,
    /// Path of the file in the target.
    pub file: String,
    /// GNU build id in hexadecimal; empty if there is none.
    pub build_id: String,
    /// True if all locations in the mapping have functions, files and lines.
    pub symbolized: bool,
}
