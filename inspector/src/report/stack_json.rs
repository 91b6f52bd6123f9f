//! The JSON of `stack`, which is written goroutine by goroutine.

use std::borrow::Cow;

use serde::Serialize;

use super::stack::AnswerCost;
use crate::runtime::snapshot::Consistency;
use crate::runtime::view::Evidence;

/// What comes before the goroutines.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Head<'a> {
    /// Version of this format.
    pub(super) schema: u32,
    /// The process; absent where the agent at an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    /// The address of the agent that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<&'a str>,
    /// Who answered: `probe` or `agent`.
    pub(super) via: &'static str,
    /// As `runtime.Version()` returns it. Absent where only a range is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) go_version: Option<&'a str>,
    /// How the goroutines hold together.
    pub(super) consistency: Consistency,
    /// Why the threads were not stopped at once, though that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) too_many_threads: Option<TooManyThreads>,
    /// The program is being brought down, by a panic, a fatal error or a signal, and ends when it has written its
    /// traceback. Absent where that is not known; an agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) panicking: Option<bool>,
    /// What it took. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<&'a AnswerCost>,
    /// How the runtime's facts were found. An agent does not say.
    #[serde(skip_serializing_if = "<[Evidence]>::is_empty")]
    pub(super) evidence: &'a [Evidence],
    /// What could not be found, and costs only the answers that need it.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) unknown: &'a [String],
}

/// To stop so many threads at once would take longer than is allowed: each was stopped by itself.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TooManyThreads {
    /// How many there are.
    pub(super) threads: usize,
    /// How long a stop of all would take, as stops of some of them showed, in microseconds.
    pub(super) expected_us: u64,
}

/// A goroutine; also one that was read back from a dump, which says less.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Goroutine<'a> {
    /// Its number.
    pub id: u64,
    /// Its state or wait reason, in the runtime's words.
    pub state: &'a str,
    /// Address of its `g`, hexadecimal. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The goroutine that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// The function that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Cow<'a, str>>,
    /// How long it has waited, where that is known and at least a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_minutes: Option<i64>,
    /// Locked to its thread.
    pub locked_to_thread: bool,
    /// The thread that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<u64>,
    /// The synctest bubble that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bubble: Option<u64>,
    /// Profiler labels: key and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<[String; 2]>,
    /// Proven to be true at the instant of the snapshot.
    pub confirmed: bool,
    /// Why frames are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// How many physical frames in the middle of a very deep stack are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_left_out: Option<usize>,
    /// Its frames, innermost first.
    pub frames: Vec<Frame>,
}

/// A frame.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Frame {
    /// Its function.
    pub function: String,
    /// Source file.
    pub file: String,
    /// Line in the file.
    pub line: u32,
    /// Inlined into the frame below.
    pub inlined: bool,
    /// Program counter, hexadecimal. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pc: Option<String>,
}

/// The goroutines of a process, in the order of the runtime's `allgs`.
// Never made as a whole, for memory would not be bounded: this is what its parts add up to.
#[cfg(test)]
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(rename = "Stack")]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    /// The goroutines.
    goroutines: Vec<Goroutine<'a>>,
    /// How many there are, of each quality.
    counts: super::stack::Counts,
}
