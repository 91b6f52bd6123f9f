//! Completions of targets: the Go processes of this machine by pid, name and container.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap_complete::engine::CompletionCandidate;
use regex::Regex;

use crate::operations::list;
use crate::printable::printable_str;
use crate::process::find::{Detail, GoProcess};

/// Number of digits of a container's id that tell it from others.
const ID: usize = 12;

/// Returns the targets that begin with the given text.
pub(in crate::cli) fn targets(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let found = list::without_agents(Detail::All).map(|found| found.processes).unwrap_or_default();
    let names = candidates(&found.iter().map(Candidate::of).collect::<Vec<_>>());
    names
        .into_iter()
        .filter(|(value, _)| value.starts_with(begun))
        .map(|(value, about)| {
            CompletionCandidate::new(value).help(Some(printable_str(&about).into_owned().into()))
        })
        .collect()
}

/// Process that can be a target.
#[derive(Debug)]
struct Candidate<'p> {
    pid: String,
    name: &'p str,
    about: String,
    container: Option<&'p str>,
}

impl<'p> Candidate<'p> {
    fn of(process: &'p GoProcess) -> Self {
        let path = String::from_utf8_lossy(&process.path);
        Candidate {
            pid: process.pid.to_string(),
            name: &process.name,
            about: format!("{} {} {path}", process.name, process.program.release),
            container: process.container.as_deref(),
        }
    }
}

/// Returns all targets with descriptions: pids first, then names and containers that mean exactly one
/// process.
fn candidates(processes: &[Candidate<'_>]) -> Vec<(String, String)> {
    let mut all: Vec<_> = processes.iter().map(|p| (p.pid.clone(), p.about.clone())).collect();
    let one_is = |is: &dyn Fn(&str) -> bool| processes.iter().filter(|p| is(p.name)).count() == 1;
    for process in processes {
        // A dash has a meaning only within brackets, and many names have one.
        let part = regex::escape(process.name).replace("\\-", "-");
        let whole = format!("^{part}$");
        for pattern in [part, whole] {
            // A shell would divide a name with such characters.
            let is_word =
                !pattern.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"`&;<>|".contains(c));
            if is_word && Regex::new(&pattern).is_ok_and(|regex| one_is(&|name| regex.is_match(name))) {
                all.push((format!("name:{pattern}"), format!("process {}", process.pid)));
                break;
            }
        }
    }
    let mut containers: BTreeMap<&str, Vec<&Candidate<'_>>> = BTreeMap::new();
    for process in processes {
        if let Some(id) = process.container {
            containers.entry(id.get(..ID).unwrap_or(id)).or_default().push(process);
        }
    }
    for (id, within) in containers {
        if let [process] = within.as_slice() {
            all.push((format!("container:{id}"), format!("process {}, {}", process.pid, process.name)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_one_process() {
        let process = |pid: &str, name: &'static str, container| Candidate {
            pid: pid.to_owned(),
            name,
            about: name.to_owned(),
            container,
        };
        let id = "0123456789abcdef";
        let processes = [
            process("1", "orders", Some(id)),
            process("2", "orders.test", Some("fedcba9876543210")),
            process("3", "web-shop", Some("fedcba9876543210")),
            process("4", "two", None),
            process("5", "two", None),
            process("6", "a b", None),
        ];
        let values: Vec<String> = candidates(&processes).into_iter().map(|(value, _)| value).collect();
        assert_eq!(
            values,
            [
                "1",
                "2",
                "3",
                "4",
                "5",
                "6",
                "name:^orders$",
                "name:orders\\.test",
                "name:web-shop",
                "container:0123456789ab"
            ]
        );
    }
}
