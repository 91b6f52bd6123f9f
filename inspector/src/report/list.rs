//! Answer of `list`.

use std::io::{self, Write};

use serde::Serialize;

use super::SCHEMA;
use super::version::{Release, RuntimeRelease, release_text, runtimes};
use crate::agent::AgentMark;
use crate::printable::{printable, printable_str};
use crate::process::find::{FoundProcesses, GoProcess};

/// Go process, and the gops agent that listens in it.
#[derive(Debug)]
pub struct Listed {
    /// Go process.
    pub process: GoProcess,
    /// gops agent; `None` if the process has none.
    pub agent: Option<AgentMark>,
}

/// List of all Go processes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct List {
    /// Version of the JSON format.
    pub schema: u32,
    /// Go processes, sorted by pid.
    pub processes: Vec<Entry>,
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

/// Go process in a list.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Process id in our pid namespace.
    pub pid: i32,
    /// Process id of the parent in our pid namespace. Absent if the parent is outside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<i32>,
    /// Name of the process.
    pub name: String,
    /// Path of the executable in the mount namespace of the process.
    pub path: String,
    /// True if the executable was deleted or replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Shared object that holds the Go code. Absent if the executable itself is the Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_object: Option<String>,
    /// Go release that built the program, and the evidence for it.
    #[serde(flatten)]
    pub release: Release,
    /// Import path of the main package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_package: Option<String>,
    /// True if the program is position-independent: it can be loaded at any address.
    pub position_independent: bool,
    /// State of the main thread, as `ps` shows it.
    pub state: char,
    /// Number of threads.
    pub threads: u64,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Process id of the tracer (ptrace). Absent if the process is not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<i32>,
    /// Container in which the process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Namespaces that the process does not share with us: `mnt`, `pid`, `net`, `user`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_namespaces: Vec<String>,
    /// Process id in each pid namespace, ours first. Absent if there is only one namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_pids: Vec<i32>,
    /// gops agent that listens in the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// All Go runtimes of the process, if it has several; the other fields then describe the first. Absent
    /// else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeRelease>,
}

/// gops agent that listens in a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Agent {
    /// TCP port of the agent, in the network namespace of the process.
    pub port: u16,
    /// Path of the file that names the port.
    pub port_file: String,
    /// True if the listening socket was seen among the open files of the process.
    pub confirmed: bool,
}

/// Cost of finding Go processes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Cost"))]
pub struct ListCost {
    /// Number of processes examined.
    pub processes: u64,
    /// Number of different executables among the examined processes.
    pub executables: u64,
    /// Bytes read from executables.
    pub file_bytes_read: u64,
}

impl List {
    /// Makes the answer.
    pub fn new(found: &FoundProcesses<Listed>) -> Self {
        List {
            schema: SCHEMA,
            processes: found.processes.iter().map(Entry::new).collect(),
            cost: ListCost::new(found),
            unreadable: found.unreadable as u64,
            unreadable_reason: found.denial.as_ref().map(ToString::to_string),
            others_hidden: found.hides_others,
            not_looked_at: found.not_looked_at.iter().map(|pid| pid.as_raw()).collect(),
        }
    }
}

impl Agent {
    pub(super) fn new(mark: &AgentMark) -> Self {
        Agent {
            port: mark.port,
            port_file: mark.port_file.to_string_lossy().into_owned(),
            confirmed: mark.confirmed,
        }
    }
}

impl ListCost {
    pub(super) fn new(found: &FoundProcesses<Listed>) -> Self {
        ListCost {
            processes: found.looked_at as u64,
            executables: found.executables as u64,
            file_bytes_read: found.bytes_read,
        }
    }
}

impl Entry {
    pub(super) fn new(listed: &Listed) -> Self {
        let Listed { process: p, agent } = listed;
        let info = p.program.build_info.as_ref();
        Entry {
            pid: p.pid.as_raw(),
            ppid: p.stat.parent.map(|p| p.as_raw()),
            name: p.name.clone(),
            path: String::from_utf8_lossy(&p.path).into_owned(),
            deleted: p.deleted,
            shared_object: p.shared_object.as_deref().map(|o| String::from_utf8_lossy(o).into_owned()),
            release: Release::new(&p.program),
            main_package: info.map(|i| i.path.clone()).filter(|p| !p.is_empty()),
            position_independent: p.position_independent,
            state: p.stat.state,
            threads: p.stat.threads,
            uid: p.status.uids.map(|u| u[1]),
            tracer: p.status.tracer.map(|p| p.as_raw()),
            container: p.container.clone(),
            other_namespaces: p.other_namespaces.iter().map(|n| n.name().to_owned()).collect(),
            namespace_pids: if p.status.ns_pids.len() > 1 {
                p.status.ns_pids.iter().map(|p| p.as_raw()).collect()
            } else {
                Vec::new()
            },
            agent: agent.as_ref().map(Agent::new),
            runtimes: RuntimeRelease::several(p),
        }
    }
}

/// Writes the columns of gops: pid, parent, name with `*` for an agent, version, path. With `verbose`,
/// further facts stand behind the path.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write_text(found: &FoundProcesses<Listed>, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<[String; 5]> = found.processes.iter().map(|listed| row(&listed.process)).collect();
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for (listed, [pid, parent, name, version, path]) in found.processes.iter().zip(&rows) {
        // An unconfirmed port may belong to any process.
        let mark = if listed.agent.as_ref().is_some_and(|a| a.confirmed) { '*' } else { ' ' };
        // gops pads by bytes, `format!` by characters.
        let pad = |cell: &str, column: usize| {
            let missing = widths.get(column).map_or(0, |w: &usize| w.saturating_sub(cell.len()));
            format!("{cell}{}", " ".repeat(missing))
        };
        write!(out, "{} {} {}{mark} {} {path}", pad(pid, 0), pad(parent, 1), pad(name, 2), pad(version, 3))?;
        if verbose {
            write!(out, "{}", remarks(listed))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn row(p: &GoProcess) -> [String; 5] {
    let mut path = printable(&p.path).into_owned();
    if p.deleted {
        path.push_str(" (deleted)");
    }
    // The releases are listed even without `verbose`: they must not be missed.
    if !p.other_runtimes.is_empty() {
        let each = runtimes(p).map(|(module, program)| {
            format!("{} {}", printable(module), printable_str(shorten(&release_text(program))))
        });
        path.push_str(&format!("  [runtimes: {}]", each.collect::<Vec<_>>().join(", ")));
    }
    [
        p.pid.to_string(),
        p.stat.parent.map_or_else(|| "0".to_owned(), |p| p.to_string()),
        printable_str(&p.name).into_owned(),
        printable_str(shorten(&release_text(&p.program))).into_owned(),
        path,
    ]
}

/// Shortens a version that begins with `devel +abcdef` to this part, as gops prints it.
fn shorten(version: &str) -> &str {
    let end = || {
        let rest = version.strip_prefix("devel")?.trim_start().strip_prefix('+')?;
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        (word > 0).then_some(version.len() - rest.len() + word)
    };
    end().and_then(|end| version.get(..end)).unwrap_or(version)
}

/// Describes further facts about a process, for people.
pub(super) fn remarks(listed: &Listed) -> String {
    let Listed { process: p, agent } = listed;
    let evidence: Vec<_> = p.program.evidence.iter().map(ToString::to_string).collect();
    let mut remarks = vec![evidence.join(", ")];
    if let Some(object) = &p.shared_object {
        remarks.push(format!("in {}", printable(object)));
    }
    if let Some(container) = &p.container {
        remarks.push(format!("container {}", printable_str(container)));
    }
    if !p.other_namespaces.is_empty() {
        let names: Vec<_> = p.other_namespaces.iter().map(|n| n.name()).collect();
        remarks.push(format!("other {} namespace", names.join(", ")));
    }
    if let Some(tracer) = p.status.tracer {
        remarks.push(format!("traced by {tracer}"));
    }
    if p.stat.is_stopped() {
        remarks.push("stopped".to_owned());
    }
    if let Some(agent) = agent {
        let confirmed = if agent.confirmed { "" } else { ", unconfirmed" };
        remarks.push(format!("agent on port {}{confirmed}", agent.port));
    }
    format!("  [{}]", remarks.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_versions_are_shortened_as_gops_does() {
        assert_eq!(shorten("go1.26.8"), "go1.26.8");
        assert_eq!(shorten("devel +6e2cbdf Thu Nov 5"), "devel +6e2cbdf");
        assert_eq!(shorten("devel go1.28-abcdef Tue"), "devel go1.28-abcdef Tue");
        assert_eq!(shorten("devel +"), "devel +");
    }
}
