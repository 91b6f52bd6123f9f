//! Answers that a gops agent gives as lines of text, parsed into values.

use std::fmt;

use serde::Serialize;

use super::SCHEMA;
use super::sampling::Sampling;
use super::stack::AnswerCost;
use crate::agent::AgentTarget;
use crate::process::Pid;
use crate::profile::json::ProfileAnswer;

/// Targets that a command was asked about: one or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Process or agent.
    One(AgentTarget),
    /// Several processes.
    Several(Vec<Pid>),
    /// All processes of the machine.
    Machine,
}

impl From<AgentTarget> for Asked {
    fn from(target: AgentTarget) -> Self {
        Asked::One(target)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::One(target) => target.fmt(f),
            Asked::Several(pids) => {
                f.write_str("processes")?;
                pids.iter()
                    .enumerate()
                    .try_for_each(|(index, pid)| write!(f, "{} {pid}", if index == 0 { "" } else { "," }))
            }
            Asked::Machine => f.write_str("the whole machine"),
        }
    }
}

/// Target that was asked, and who answered.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// Version of the JSON format.
    pub schema: u32,
    /// Process id in our pid namespace. Absent unless exactly one process was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Process ids in our pid namespace, if several processes were asked about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<i32>,
    /// True if the whole machine was asked about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub machine: bool,
    /// Address of the agent that was asked. Absent if a process was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Source of the answer: `probe` (read from outside) or `agent`.
    pub via: &'static str,
}

impl Source {
    /// Makes the source of an answer about one target.
    pub fn new(target: &AgentTarget, via: &'static str) -> Self {
        let (pid, address) = match target {
            AgentTarget::Process(pid) => (Some(pid.as_raw()), None),
            AgentTarget::Address(address) => (None, Some(address.to_string())),
        };
        Source { schema: SCHEMA, pid, pids: Vec::new(), machine: false, address, via }
    }

    /// Makes the source of an answer about one or several targets.
    pub fn of(asked: &Asked, via: &'static str) -> Self {
        let mut source =
            Source { schema: SCHEMA, pid: None, pids: Vec::new(), machine: false, address: None, via };
        match asked {
            Asked::One(target) => return Source::new(target, via),
            Asked::Several(pids) => source.pids = pids.iter().map(|pid| pid.as_raw()).collect(),
            Asked::Machine => source.machine = true,
        }
        source
    }
}

/// File that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Saved {
    /// Path of the file.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Reason why the file is incomplete. Absent if it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// Cost for the process. Absent if nothing was read from its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<AnswerCost>,
    /// Method of sampling, and quality of the samples. Absent if the file holds no CPU samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

/// Profile with its cost.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileOf {
    /// Kind of profile: `heap` or `goroutine`, for example.
    pub profile: &'static str,
    /// Cost for the process. Absent if its agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<AnswerCost>,
    /// Method of sampling, and quality of the samples. Absent if the profile holds no CPU samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Content of the profile.
    #[serde(flatten)]
    pub content: ProfileAnswer,
}

/// Address under which a process is served.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Serving {
    /// Address for gops.
    pub listening: String,
}

/// Answer with its source.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sourced<T> {
    /// Target that was asked, and who answered.
    #[serde(flatten)]
    pub source: Source,
    /// Answer of the command.
    #[serde(flatten)]
    pub answer: T,
}

pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim()))
}

/// Parses the number before the last `bytes`: in `12.50KB (12800 bytes)`, in `512 bytes`, and in either with
/// words before it.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let rest = text.trim_end_matches(')').strip_suffix(" bytes")?;
    let digits = rest.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    rest.get(digits..)?.parse().ok()
}

/// Parses a duration as Go prints it: `1h2m3.5s`, `1.5ms`, `10µs`, `0s`. Fractions have no digits below
/// nanoseconds.
pub(super) fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit: u64 = match unit {
            "ns" => 1,
            "µs" | "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut part = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        let mut place = unit;
        for digit in fraction.chars() {
            place /= 10;
            part = part.checked_add(place.checked_mul(digit.to_digit(10)?.into())?)?;
        }
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, ns) in [
            ("0s", Some(0)),
            ("1ns", Some(1)),
            ("1.001µs", Some(1_001)),
            ("12.345678ms", Some(12_345_678)),
            ("1h2m3.000000004s", Some(3_723_000_000_004)),
            ("", None),
            ("5", None),
            ("1.2.3s", None),
            ("99999999999999999999s", None),
            ("1w", None),
        ] {
            assert_eq!(nanoseconds(text), ns, "{text}");
        }
    }
}
