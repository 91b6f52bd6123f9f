//! The shape of the answer of `stack`, which is written goroutine by goroutine and so has no type of its own. Real answers
//! are checked against the schema that comes from this.
#![allow(dead_code, reason = "only its schema is used")]

use schemars::JsonSchema;

/// The goroutines of a process, in the order of the runtime's `allgs`.
#[derive(JsonSchema)]
pub(super) struct Stack {
    /// Version of this format.
    schema: u32,
    /// The process; absent where the agent at an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// The address of the agent that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Who answered: `probe` or `agent`.
    via: String,
    /// As `runtime.Version()` returns it. Absent where only a range is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<String>,
    /// `instant`: all goroutines are of one instant. `instant-verified-afterwards`: those that were parked were verified
    /// after the pause. `each-by-itself`: each is true by itself.
    consistency: String,
    /// What it took. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<super::stack::Cost>,
    /// How the runtime's facts were found. An agent does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<Evidence>,
    /// What could not be found, and costs only the answers that need it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<String>,
    /// The goroutines.
    goroutines: Vec<Goroutine>,
    /// How many there are, of each quality.
    counts: super::stack::Counts,
}

/// How something was found out.
#[derive(JsonSchema)]
struct Evidence {
    /// What it is about.
    of: String,
    /// What was found.
    found: String,
    /// How, and how well it is confirmed.
    by: String,
}

/// A goroutine.
#[derive(JsonSchema)]
struct Goroutine {
    /// Its number.
    id: u64,
    /// Its state or wait reason, in the runtime's words.
    state: String,
    /// Address of its `g`, hexadecimal. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The goroutine that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u64>,
    /// The function that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    /// How long it has waited, where that is known and at least a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_minutes: Option<i64>,
    /// Locked to its thread.
    locked_to_thread: bool,
    /// The thread that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<u64>,
    /// The synctest bubble that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    bubble: Option<u64>,
    /// Profiler labels: key and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<[String; 2]>,
    /// Proven to be true at the instant of the snapshot.
    confirmed: bool,
    /// Why frames are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
    /// How many physical frames in the middle of a very deep stack are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_left_out: Option<usize>,
    /// Its frames, innermost first.
    frames: Vec<Frame>,
}

/// A frame.
#[derive(JsonSchema)]
struct Frame {
    /// Its function.
    function: String,
    /// Source file.
    file: String,
    /// Line in the file.
    line: u32,
    /// Inlined into the frame below.
    inlined: bool,
    /// Program counter, hexadecimal. An agent does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pc: Option<String>,
}
