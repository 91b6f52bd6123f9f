//! Answer of `tree`.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use serde::Serialize;

use super::SCHEMA;
use super::list::{Entry, ListCost, Listed, remarks};
use super::version::release_text;
use crate::printable::{printable, printable_str};
use crate::process::find::FoundProcesses;

/// Tree of all Go processes and their parents.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tree {
    /// Version of the JSON format.
    pub schema: u32,
    /// Nodes in the order of the text: each node before those below it.
    pub nodes: Vec<Node>,
    /// Cost of the answer.
    pub cost: ListCost,
    /// Number of processes that could not be read.
    pub unreadable: u64,
    /// Reason why the first unreadable process could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable_reason: Option<String>,
    /// True if processes of other users are missing because /proc is mounted with `hidepid`. Absent else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub others_hidden: bool,
    /// Process ids that were not examined, or not completely: the time and bytes for all processes together
    /// are limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_looked_at: Vec<i32>,
}

/// Process in the tree: a Go process, or the parent of one.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Node {
    /// Depth in the tree; 0 for parents at the top.
    pub depth: u64,
    /// Process id in our pid namespace; 0 for a parent outside of it.
    pub pid: i32,
    /// Details of the process. Absent if it is no Go process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Entry>,
}

impl Tree {
    /// Makes the answer.
    pub fn new(found: &FoundProcesses<Listed>) -> Self {
        let by_pid = by_pid(found);
        let node = |branch: &Branch| Node {
            depth: branch.depth as u64,
            pid: branch.pid,
            process: by_pid.get(&branch.pid).map(|p| Entry::new(p)),
        };
        Tree {
            schema: SCHEMA,
            nodes: branches(&edges(found)).iter().map(node).collect(),
            cost: ListCost::new(found),
            unreadable: found.unreadable as u64,
            unreadable_reason: found.denial.as_ref().map(ToString::to_string),
            others_hidden: found.hides_others,
            not_looked_at: found.not_looked_at.iter().map(|pid| pid.as_raw()).collect(),
        }
    }
}

/// Process and its parent. The parent is 0 if it is outside of our pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    parent: i32,
    pid: i32,
}

fn edges(found: &FoundProcesses<Listed>) -> Vec<Edge> {
    let edge = |Listed { process: p, .. }: &Listed| {
        let parent = p.stat.parent.map_or(0, |p| p.as_raw());
        Edge { parent, pid: p.pid.as_raw() }
    };
    found.processes.iter().map(edge).collect()
}

fn by_pid(found: &FoundProcesses<Listed>) -> HashMap<i32, &Listed> {
    found.processes.iter().map(|listed| (listed.process.pid.as_raw(), listed)).collect()
}

/// Line of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Branch {
    depth: usize,
    pid: i32,
    /// True if no line follows below the same parent.
    last: bool,
}

/// Builds the tree as gops does: parents by pid at the top, and below each the processes that it started. A
/// pid has only one place. A process with a greater pid than its child (pids are reused) is therefore at the
/// top, and has no place below its own parent.
///
/// gops sorts by the parent alone and leaves the order of one parent's children open. Here they are sorted by
/// pid.
fn branches(edges: &[Edge]) -> Vec<Branch> {
    let mut edges = edges.to_vec();
    edges.sort_unstable();
    let mut below: HashMap<i32, Vec<i32>> = HashMap::new();
    for edge in &edges {
        below.entry(edge.parent).or_default().push(edge.pid);
    }
    let mut seen = HashSet::new();
    let mut branches = Vec::with_capacity(2 * edges.len());
    // Processes may nest to any depth: no recursion here.
    let mut todo = Vec::new();
    for edge in &edges {
        todo.push((edge.parent, 0));
        while let Some((pid, depth)) = todo.pop() {
            if !seen.insert(pid) {
                continue;
            }
            branches.push(Branch { depth, pid, last: false });
            todo.extend(below.get(&pid).into_iter().flatten().rev().map(|&child| (child, depth + 1)));
        }
    }
    mark_last(&mut branches);
    branches
}

/// Marks the last line of each group. From the end, the first line met at a depth is the last of its group,
/// until a line further up ends the group.
fn mark_last(branches: &mut [Branch]) {
    let mut followed: Vec<bool> = Vec::new();
    for branch in branches.iter_mut().rev() {
        followed.resize(branch.depth + 1, false);
        if let Some(followed) = followed.last_mut() {
            branch.last = !*followed;
            *followed = true;
        }
    }
}

/// Writes the tree as gops does. With `verbose`, further facts stand behind each process.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write_text(found: &FoundProcesses<Listed>, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    let by_pid = by_pid(found);
    let text = |branch: &Branch| match by_pid.get(&branch.pid) {
        // gops shows only the pid of processes at the top.
        Some(listed) if branch.depth > 0 || verbose => {
            let Listed { process: p, agent } = listed;
            let mark = if agent.is_some() { "[*]  " } else { "" };
            let name = printable_str(&p.name);
            let release = release_text(&p.program);
            let mut text = format!("{mark}{} ({name}) {{{}}}", p.pid, printable_str(&release));
            if verbose {
                text.push_str(&format!("  {}{}", printable(&p.path), remarks(listed)));
            }
            text
        }
        _ => branch.pid.to_string(),
    };
    write_branches(&branches(&edges(found)), text, out)
}

fn write_branches(
    branches: &[Branch],
    text: impl Fn(&Branch) -> String,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "...")?;
    // For each depth: true if the branch above us there is the last of its group.
    let mut ended: Vec<bool> = Vec::new();
    for branch in branches {
        ended.truncate(branch.depth);
        for &ended in &ended {
            out.write_all(if ended { "    " } else { "│   " }.as_bytes())?;
        }
        let edge = if branch.last { "└──" } else { "├──" };
        writeln!(out, "{edge} {}", text(branch))?;
        ended.push(branch.last);
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(edges: &[(i32, i32)]) -> String {
        let edges: Vec<Edge> = edges.iter().map(|&(parent, pid)| Edge { parent, pid }).collect();
        let mut out = Vec::new();
        write_branches(&branches(&edges), |b| b.pid.to_string(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing() {
        assert_eq!(tree(&[]), "...\n\n");
    }

    #[test]
    fn children_below_their_parents() {
        let expected = "\
...
├── 1
│   ├── 10
│   │   ├── 20
│   │   │   └── 30
│   │   └── 21
│   └── 11
│       └── 22
└── 7
    └── 8

";
        assert_eq!(tree(&[(10, 21), (1, 11), (7, 8), (20, 30), (11, 22), (10, 20), (1, 10)]), expected);
    }

    #[test]
    fn a_parent_with_a_greater_pid_stays_at_the_top() {
        assert_eq!(tree(&[(300, 10), (400, 300)]), "...\n├── 300\n│   └── 10\n└── 400\n\n");
    }

    #[test]
    fn no_limit_to_the_depth() {
        let chain: Vec<_> = (1..20_000).map(|pid| Edge { parent: pid - 1, pid }).collect();
        assert_eq!(branches(&chain).last(), Some(&Branch { depth: 19_999, pid: 19_999, last: true }));
    }
}
