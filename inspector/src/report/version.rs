//! Answer of `version`.

use std::io::{self, Write};

use serde::Serialize;
use symbols::buildinfo;
use symbols::program::{GoProgram, Release as Known};

use super::SCHEMA;
use super::answers::Source;
use crate::agent::AgentTarget;
use crate::printable::{printable, printable_str};
use crate::process::find::GoProcess;
use crate::report::runtimes::write_heading;
use crate::runtime::contradiction::{self, Contradiction};
use crate::runtime::open::RuntimeName;

/// Go release that built a program, and the evidence for it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Release {
    /// Version as `runtime.Version()` returns it. Absent if only a range is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Oldest possible minor release (26 is Go 1.26).
    pub oldest_minor: u32,
    /// Newest possible minor release. Absent if the release may be newer than all known ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_minor: Option<u32>,
    /// Sources from which the release was determined.
    pub evidence: Vec<String>,
    /// Contradictions between the version and the program's own tables: a linker can write any version.
    /// Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubtful: Vec<Contradiction>,
}

impl Release {
    pub(super) fn new(program: &GoProgram) -> Self {
        let (version, newest_minor) = match &program.release {
            Known::Exact(version) => (Some(version.raw.clone()), Some(version.minor)),
            Known::Between(_, newest) => (None, *newest),
        };
        Release {
            version,
            oldest_minor: program.release.oldest_minor(),
            newest_minor,
            evidence: program.evidence.iter().map(ToString::to_string).collect(),
            doubtful: contradiction::of_version(program).into_iter().collect(),
        }
    }
}

/// Release of one of several Go runtimes in a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RuntimeRelease {
    /// Path of the module that holds the runtime, in the mount namespace of the process.
    pub module: String,
    /// Go release that built the module, and the evidence for it.
    #[serde(flatten)]
    pub release: Release,
}

impl RuntimeRelease {
    /// Returns all runtimes of a process that has several; nothing for a process with one.
    pub(super) fn several(process: &GoProcess) -> Vec<Self> {
        let all: Vec<Self> = runtimes(process)
            .map(|(module, program)| RuntimeRelease {
                module: String::from_utf8_lossy(module).into_owned(),
                release: Release::new(program),
            })
            .collect();
        if all.len() > 1 { all } else { Vec::new() }
    }
}

/// Returns the modules with a Go runtime in a process, each with its Go program.
pub(super) fn runtimes(process: &GoProcess) -> impl Iterator<Item = (&[u8], &GoProgram)> {
    let first = process.shared_object.as_deref().unwrap_or(&process.path);
    let others = process.other_runtimes.iter().map(|other| (other.module.as_slice(), &*other.program));
    std::iter::once((first, &*process.program)).chain(others)
}

/// Formats the release of a program for people, with a mark if it is doubtful.
pub(super) fn release_text(program: &GoProgram) -> String {
    let mark = if program.contradicted.is_some() { " (doubtful)" } else { "" };
    format!("{}{mark}", program.release)
}

/// Version and build info of one process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// Version of the JSON format.
    pub schema: u32,
    /// Process id in our pid namespace. Absent if the agent at an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Address of the agent that was asked. Absent if a process was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Source of the answer: `probe` (read from outside) or `agent`.
    pub via: &'static str,
    /// Name of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Path of the executable in the mount namespace of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// True if the executable was deleted or replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Shared object that holds the Go code. Absent if the executable itself is the Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_object: Option<String>,
    /// Go release that built the program, and the evidence for it.
    #[serde(flatten)]
    pub release: Release,
    /// True if the program is position-independent: it can be loaded at any address. Absent if an agent
    /// answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_independent: Option<bool>,
    /// Build info. Absent if it was removed from the program, and if an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// All Go runtimes of the process, if it has several; the other fields then describe the first. Absent
    /// else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeRelease>,
}

/// Build information that the linker wrote (`runtime/debug.BuildInfo`).
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BuildInfo {
    /// Version that the program gives itself, if it is not a Go version. Absent else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Import path of the main package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Main module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<Module>,
    /// Modules that the main module depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deps: Vec<Module>,
    /// Build settings, such as `-race`, `GOAMD64` and `vcs.revision`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// Go module.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Module {
    /// Path of the module.
    pub path: String,
    /// Version of the module.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Checksum of the module.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sum: String,
    /// Module that replaces this module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<Box<Module>>,
}

/// Build setting.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// Name of the setting.
    pub key: String,
    /// Value of the setting.
    pub value: String,
}

impl Version {
    /// Makes the answer from a process that was read from outside.
    pub fn new(process: &GoProcess) -> Self {
        Version {
            schema: SCHEMA,
            pid: Some(process.pid.as_raw()),
            address: None,
            via: "probe",
            name: Some(process.name.clone()),
            path: Some(String::from_utf8_lossy(&process.path).into_owned()),
            deleted: process.deleted,
            shared_object: process.shared_object.as_deref().map(|o| String::from_utf8_lossy(o).into_owned()),
            release: Release::new(&process.program),
            position_independent: Some(process.position_independent),
            build_info: process.program.build_info.as_ref().map(BuildInfo::new),
            runtimes: RuntimeRelease::several(process),
        }
    }
}

impl Version {
    /// Makes the answer from the line that an agent prints (`runtime.Version()`). Returns `None` if the line
    /// is no Go version.
    pub fn from_agent(target: &AgentTarget, line: &str) -> Option<Self> {
        let version = symbols::version::GoVersion::parse(line.trim())?;
        let source = Source::new(target, "agent");
        Some(Version {
            schema: source.schema,
            pid: source.pid,
            address: source.address,
            via: source.via,
            name: None,
            path: None,
            deleted: false,
            shared_object: None,
            release: Release {
                oldest_minor: version.minor,
                newest_minor: Some(version.minor),
                version: Some(version.raw),
                evidence: vec!["gops agent".to_owned()],
                doubtful: Vec::new(),
            },
            position_independent: None,
            build_info: None,
            runtimes: Vec::new(),
        })
    }
}

impl BuildInfo {
    pub(super) fn new(info: &buildinfo::BuildInfo) -> Self {
        BuildInfo {
            version: Some(info.version.clone()).filter(|_| info.go_version().is_none()),
            path: Some(info.path.clone()).filter(|p| !p.is_empty()),
            main: info.main.as_ref().map(Module::new),
            deps: info.deps.iter().map(Module::new).collect(),
            settings: info
                .settings
                .iter()
                .map(|(key, value)| Setting { key: key.clone(), value: value.clone() })
                .collect(),
        }
    }
}

impl Module {
    pub(super) fn new(module: &buildinfo::Module) -> Self {
        Module {
            path: module.path.clone(),
            version: module.version.clone(),
            sum: module.sum.clone(),
            replaced_by: module.replaced_by.as_deref().map(|m| Box::new(Module::new(m))),
        }
    }
}

/// Writes the version alone, as gops does. With `verbose`, the whole build info follows, as `go version -m`
/// prints it.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write_text(process: &GoProcess, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    if process.other_runtimes.is_empty() {
        return write_one(process, &process.program, process.shared_object.as_deref(), verbose, out);
    }
    for (index, (module, program)) in runtimes(process).enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let text = String::from_utf8_lossy(module).into_owned();
        write_heading(&RuntimeName { module: text, release: program.release.to_string() }, out)?;
        let shared_object = (module != process.path.as_slice()).then_some(module);
        write_one(process, program, shared_object, verbose, out)?;
    }
    Ok(())
}

fn write_one(
    process: &GoProcess,
    program: &GoProgram,
    shared_object: Option<&[u8]>,
    verbose: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{}", printable_str(&release_text(program)))?;
    if !verbose {
        return Ok(());
    }
    let evidence: Vec<_> = program.evidence.iter().map(ToString::to_string).collect();
    writeln!(out, "\tevidence\t{}", evidence.join(", "))?;
    writeln!(
        out,
        "\texecutable\t{}{}",
        printable(&process.path),
        if process.deleted { " (deleted)" } else { "" }
    )?;
    if let Some(object) = shared_object {
        writeln!(out, "\tshared object\t{}", printable(object))?;
    }
    let Some(info) = &program.build_info else {
        return writeln!(out, "\tbuild info\tremoved");
    };
    if info.go_version().is_none() {
        writeln!(out, "\tversion\t{} (what it calls itself)", printable_str(&info.version))?;
    }
    if !info.path.is_empty() {
        writeln!(out, "\tpath\t{}", printable_str(&info.path))?;
    }
    if let Some(main) = &info.main {
        write_module("mod", main, out)?;
    }
    for dep in &info.deps {
        write_module("dep", dep, out)?;
    }
    for (key, value) in &info.settings {
        writeln!(out, "\tbuild\t{}={}", quoted(key, true), quoted(value, false))?;
    }
    Ok(())
}

/// Formats the key or value of a setting as `debug.BuildInfo.String` does: in quotes if it could not be
/// parsed back otherwise.
fn quoted(text: &str, key: bool) -> String {
    let special = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n' | '"' | '`') || (key && c == '=');
    if !(text.contains(special) || key && text.is_empty()) {
        return printable_str(text).into_owned();
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", printable_str(&escaped))
}

fn write_module(kind: &str, module: &buildinfo::Module, out: &mut dyn Write) -> io::Result<()> {
    let text = |s: &str| printable_str(s).into_owned();
    writeln!(out, "\t{kind}\t{}\t{}\t{}", text(&module.path), text(&module.version), text(&module.sum))?;
    match &module.replaced_by {
        Some(replacement) => write_module("=>", replacement, out),
        None => Ok(()),
    }
}
