//! Target of a command.

use std::str::FromStr;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::args::Common;
use super::completion::targets;
use super::duration::Period;
use super::notices::Notice;
use super::pattern::parse_pattern;
use crate::Error;
use crate::agent::Address;
use crate::operations::target::{ResolvedTarget, find};
use crate::process::select::Selector;
use crate::process::{self, Process};

/// The target of a command, and how long to wait for it.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// A pid; name:REGEX, for the one Go process whose name matches; container:ID, for the one Go process in that container
    /// (the first digits of its id are enough); or HOST:PORT of a gops agent
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(targets))]
    pub target: TargetArgument,
    /// Wait until such a process appears: for one minute, or as long as given (--wait=30s)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1m")]
    pub wait: Option<Period>,
}

/// Target on the command line.
#[derive(Debug, Clone)]
pub enum TargetArgument {
    /// Process of this machine.
    Process(Selector),
    /// gops agent at an address.
    Agent(Address),
}

impl FromStr for TargetArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(pattern) = text.strip_prefix("name:") {
            if pattern.is_empty() {
                return Err("name: must be followed by a regular expression".to_owned());
            }
            let regex = parse_pattern(pattern)?;
            return Ok(TargetArgument::Process(Selector::Name(regex)));
        }
        if let Some(id) = text.strip_prefix("container:") {
            if id.is_empty() {
                return Err("container: must be followed by the first digits of an id".to_owned());
            }
            return Ok(TargetArgument::Process(Selector::Container(id.to_owned())));
        }
        if text.contains(':') {
            return text.parse().map(TargetArgument::Agent);
        }
        match text.parse() {
            Ok(pid) => Ok(TargetArgument::Process(Selector::Pid(pid))),
            Err(e) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                Err(process::InvalidPid::to_string(&e))
            }
            Err(_) => Err(format!(
                "a target is a pid, name:REGEX, container:ID or HOST:PORT; for a process with this name, write name:{text}"
            )),
        }
    }
}

impl TargetArgument {
    /// Resolves the target. A process is waited for up to `wait`.
    pub(super) fn find(&self, wait: Option<Period>, common: &Common) -> Result<ResolvedTarget, Error> {
        let selector = match self {
            TargetArgument::Process(selector) => selector,
            TargetArgument::Agent(address) => return Ok(ResolvedTarget::Agent(address.clone())),
        };
        if let Some(limit) = wait {
            Notice::Hint.tell_on_terminal(common, format_args!("waiting up to {limit} for {selector}"));
        }
        Ok(ResolvedTarget::Process(find(selector, wait.map(Period::duration), common)?))
    }
}

impl TargetArgs {
    /// Resolves the target. A process is waited for if `--wait` is given.
    pub(super) fn find(&self, common: &Common) -> Result<ResolvedTarget, Error> {
        self.target.find(self.wait, common)
    }

    /// Returns the process. An agent is an error: `command` can only read a process.
    pub(super) fn process(&self, command: &str, common: &Common) -> Result<Process, Error> {
        match self.find(common)? {
            ResolvedTarget::Process(process) => Ok(process),
            ResolvedTarget::Agent(address) => Err(Error::Usage(format!(
                "{address} is the address of an agent, and `{command}` needs a process of this machine: \
                 a pid, name:REGEX or container:ID"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        text.parse().map(|target| match target {
            TargetArgument::Process(selector) => selector.to_string(),
            TargetArgument::Agent(agent) => format!("agent {agent}"),
        })
    }

    #[test]
    fn targets() {
        for (text, expected) in [
            ("4711", "process 4711"),
            ("name:^or(d|g)", "name:^or(d|g)"),
            ("name:8080", "name:8080"),
            ("container:0123", "container:0123"),
            ("localhost:6060", "agent localhost:6060"),
            ("10.0.0.1:1", "agent 10.0.0.1:1"),
            (":6060", "agent :6060"),
            ("[::1]:6060", "agent [::1]:6060"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        for wrong in [
            "0",
            "-1",
            "99999999999",
            "",
            "nonsense",
            "name:",
            "name:(",
            "container:",
            "::1:80",
            "a:0",
            "a:65536",
            "a:b",
            "[a]:1",
            "http://a:1",
        ] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert!(shown("99999999999").unwrap_err().contains("a pid is a number"));
    }
}
