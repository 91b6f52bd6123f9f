//! Answers that a gops agent gives as lines of text, as values.

use std::fmt;

use serde::Serialize;

use super::SCHEMA;
use super::sampling::Sampling;
use super::stack::AnswerCost;
use crate::agent::AgentTarget;
use crate::process::Pid;
use crate::profile::json::ProfileAnswer;

/// Who was asked, where that may be more than one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A process or an agent.
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

/// Who was asked, and who answered.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// Version of this format.
    pub schema: u32,
    /// The process; absent where something else was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The processes, where several were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<i32>,
    /// The whole machine was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub machine: bool,
    /// The address that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who answered: `probe` or `agent`.
    pub via: &'static str,
}

impl Source {
    /// What was asked of a target, and answered by its agent or by us.
    pub fn new(target: &AgentTarget, via: &'static str) -> Self {
        let (pid, address) = match target {
            AgentTarget::Process(pid) => (Some(pid.as_raw()), None),
            AgentTarget::Address(address) => (None, Some(address.to_string())),
        };
        Source { schema: SCHEMA, pid, pids: Vec::new(), machine: false, address, via }
    }

    /// The same where it may be more than one.
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

/// A file that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Saved {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// What it cost the process; absent where nothing was read from its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<AnswerCost>,
    /// How its samples were taken, where it is of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

/// A profile.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileOf {
    /// Which one: `heap`, `goroutine`.
    pub profile: &'static str,
    /// What it cost the process; absent where its agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<AnswerCost>,
    /// How its samples were taken, where it is of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// What is in it.
    #[serde(flatten)]
    pub content: ProfileAnswer,
}

/// Where a process is served.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Serving {
    /// The address for gops.
    pub listening: String,
}

/// An answer, and where it comes from.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sourced<T> {
    /// Where it comes from.
    #[serde(flatten)]
    pub source: Source,
    /// What it says.
    #[serde(flatten)]
    pub answer: T,
}

pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim()))
}

/// `12.50KB (12800 bytes)`, `512 bytes`, and either behind some words: what stands before the last `bytes`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let rest = text.trim_end_matches(')').strip_suffix(" bytes")?;
    let digits = rest.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    rest.get(digits..)?.parse().ok()
}

/// A duration as Go prints it: `1h2m3.5s`, `1.5ms`, `10µs`, `0s`. It has no more digits than nanoseconds.
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
