//! JSON of `stack`, which is written goroutine by goroutine.

use std::borrow::Cow;

use serde::Serialize;

use super::stack::AnswerCost;
use crate::runtime::snapshot::Consistency;
use crate::runtime::view::Evidence;

/// Fields before the goroutines.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Head<'a> {
    /// Version of the JSON format.
    pub(super) schema: u32,
    /// Process id in our pid namespace. Absent if the agent at an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    /// Address of the agent that was asked. Absent if a process was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<&'a str>,
    /// Source of the answer: `probe` (read from outside) or `agent`.
    pub(super) via: &'static str,
    /// Go version as `runtime.Version()` returns it. Absent if only a range is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) go_version: Option<&'a str>,
    /// Consistency of the goroutines with each other.
    pub(super) consistency: Consistency,
    /// Reason why the threads were not stopped together, though that was asked for. Absent if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) too_many_threads: Option<TooManyThreads>,
    /// True if a panic, a fatal error or a signal is ending the program: it exits once its traceback is
    /// written. Absent if unknown, and where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) panicking: Option<bool>,
    /// Cost of the answer. Absent where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<&'a AnswerCost>,
    /// Evidence for the facts about the runtime. Absent where an agent answered.
    #[serde(skip_serializing_if = "<[Evidence]>::is_empty")]
    pub(super) evidence: &'a [Evidence],
    /// Facts that could not be found. Only answers that need them are affected.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) unknown: &'a [String],
}

/// Refusal to stop all threads at once, because that would take longer than allowed. Each thread was stopped
/// by itself instead.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TooManyThreads {
    /// Number of threads.
    pub(super) threads: usize,
    /// Expected duration of a stop of all threads, in microseconds; estimated from stops of some of them.
    pub(super) expected_us: u64,
}

/// Goroutine, read from outside or parsed from a dump. A dump has fewer facts.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Goroutine<'a> {
    /// Number of the goroutine.
    pub id: u64,
    /// State or wait reason, in the runtime's words.
    pub state: &'a str,
    /// Address of the goroutine's `g` structure in the target, hexadecimal. Absent where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Number of the goroutine that created this goroutine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// Function that created this goroutine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Cow<'a, str>>,
    /// Waiting time in minutes. Absent if unknown or less than a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_minutes: Option<i64>,
    /// True if the goroutine is locked to its thread.
    pub locked_to_thread: bool,
    /// Id of the thread that runs the goroutine, in the pid namespace of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<u64>,
    /// Number of the synctest bubble that the goroutine is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bubble: Option<u64>,
    /// Profiler labels, each with key and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<[String; 2]>,
    /// True if the goroutine is proven to have been in this state at the instant of the snapshot.
    pub confirmed: bool,
    /// Reason why frames are missing. Absent if all are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Number of physical frames left out in the middle of a very deep stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_left_out: Option<usize>,
    /// Stack frames, innermost first.
    pub frames: Vec<Frame>,
}

/// Stack frame.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Frame {
    /// Name of the function.
    pub function: String,
    /// Path of the source file.
    pub file: String,
    /// Line number in the source file.
    pub line: u32,
    /// True if the call was inlined into the next frame of the list.
    pub inlined: bool,
    /// Program counter, hexadecimal. Absent where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pc: Option<String>,
}

/// Goroutines of a process, in the order of the runtime's `allgs`.
// Never built as a whole: memory would not be bounded. The type describes the sum of the written parts.
#[cfg(test)]
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(rename = "Stack")]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    /// Goroutines.
    goroutines: Vec<Goroutine<'a>>,
    /// Numbers of goroutines written, unconfirmed, unavailable and incomplete.
    counts: super::stack::Counts,
}
