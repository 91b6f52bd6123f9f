//! JSON form of a profile, as for all answers (`docs/schema/profile.json`).

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::{LabelValue, Profile, ValueType};

/// A profile. Indices are of its own lists, from 0.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileAnswer {
    /// What the values of each sample are, in their order.
    pub sample_types: Vec<Kind>,
    /// Which of them is meant where one is.
    pub default_sample_type: String,
    /// What a sample stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_type: Option<Kind>,
    /// How many of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<i64>,
    /// When it was taken, or its taking began, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_unix_ns: Option<i64>,
    /// How long it was taken for, in nanoseconds; absent where it is of one instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// What it does and does not cover.
    pub comments: Vec<String>,
    /// What is mapped where.
    pub mappings: Vec<MappingAnswer>,
    /// Functions.
    pub functions: Vec<FunctionAnswer>,
    /// Places in code.
    pub locations: Vec<LocationAnswer>,
    /// Stacks and their values.
    pub samples: Vec<SampleAnswer>,
}

/// What a value is.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kind {
    /// What is counted: `alloc_space`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `count`, `bytes`, `nanoseconds`.
    pub unit: String,
}

/// A mapped file.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MappingAnswer {
    /// Its first address.
    pub start: String,
    /// One past its last.
    pub end: String,
    /// Where its start is in the file.
    pub offset: String,
    /// The file, as the process names it.
    pub file: String,
    /// Its GNU build id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_id: String,
}

/// A function.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FunctionAnswer {
    /// Its name.
    pub name: String,
    /// As the linker has it, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_name: Option<String>,
    /// Its source file.
    pub file: String,
    /// The line of its `func` keyword.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_line: Option<u32>,
}

/// A place in code.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LocationAnswer {
    /// The address of an instruction.
    pub address: String,
    /// Its mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<usize>,
    /// Its frames, what was inlined first. Empty where nothing is known.
    pub lines: Vec<LineAnswer>,
}

/// A frame.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LineAnswer {
    /// Its function.
    pub function: usize,
    /// The line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// A stack and its values.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SampleAnswer {
    /// Locations, the innermost first.
    pub stack: Vec<usize>,
    /// One for each sample type.
    pub values: Vec<i64>,
    /// Labels that are text, each key with all its values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Vec<String>>,
    /// Labels that are numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, Vec<i64>>,
}

impl From<&ValueType> for Kind {
    fn from(of: &ValueType) -> Self {
        Kind { kind: of.kind.clone(), unit: of.unit.clone() }
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

impl From<&Profile> for ProfileAnswer {
    fn from(profile: &Profile) -> Self {
        let known = |line: u32| (line != 0).then_some(line);
        let nanoseconds = |d: std::time::Duration| i64::try_from(d.as_nanos()).ok();
        let samples = profile.samples.iter().map(|sample| {
            let (mut labels, mut numbers) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
            for label in &sample.labels {
                match &label.value {
                    LabelValue::Text(text) => {
                        labels.entry(label.key.clone()).or_default().push(text.clone());
                    }
                    LabelValue::Number(number, _) => {
                        numbers.entry(label.key.clone()).or_default().push(*number);
                    }
                }
            }
            SampleAnswer { stack: sample.stack.clone(), values: sample.values.clone(), labels, numbers }
        });
        ProfileAnswer {
            sample_types: profile.sample_types.iter().map(Kind::from).collect(),
            default_sample_type: profile
                .sample_types
                .get(profile.default_sample_type)
                .map(|t| t.kind.clone())
                .unwrap_or_default(),
            period_type: profile.period.as_ref().map(|(of, _)| of.into()),
            period: profile.period.as_ref().map(|(_, period)| *period),
            time_unix_ns: profile.time.duration_since(UNIX_EPOCH).ok().and_then(nanoseconds),
            duration_ns: profile.duration.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
            comments: profile.comments.clone(),
            mappings: profile
                .mappings
                .iter()
                .map(|m| MappingAnswer {
                    start: hex(m.start),
                    end: hex(m.end),
                    offset: hex(m.offset),
                    file: m.file.clone(),
                    build_id: m.build_id.clone(),
                })
                .collect(),
            functions: profile
                .functions
                .iter()
                .map(|f| FunctionAnswer {
                    name: f.name.clone(),
                    system_name: (f.system_name != f.name).then(|| f.system_name.clone()),
                    file: f.file.clone(),
                    start_line: known(f.start_line),
                })
                .collect(),
            locations: profile
                .locations
                .iter()
                .map(|l| LocationAnswer {
                    address: hex(l.address),
                    mapping: l.mapping,
                    lines: l
                        .lines
                        .iter()
                        .map(|line| LineAnswer { function: line.function, line: known(line.line) })
                        .collect(),
                })
                .collect(),
            samples: samples.collect(),
        }
    }
}
