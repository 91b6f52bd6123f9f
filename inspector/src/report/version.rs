//! The answer of `version`.

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

/// What built a program, and how that is known.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Release {
    /// As `runtime.Version()` returns it. Absent where only a range is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The oldest minor release that it can be (26 is Go 1.26).
    pub oldest_minor: u32,
    /// The newest minor release that it can be; absent where it can be later than any that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_minor: Option<u32>,
    /// What this was learnt from.
    pub evidence: Vec<String>,
    /// A version that the program's own tables contradict: whoever links can write any. Absent where they do not.
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

/// One of several Go runtimes in a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RuntimeRelease {
    /// The path of the module that holds it, in the mount namespace of the process.
    pub module: String,
    /// What built it, and how that is known.
    #[serde(flatten)]
    pub release: Release,
}

impl RuntimeRelease {
    /// All runtimes of a process that has several; nothing of one.
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

/// The runtimes of a process: their modules and what those say.
pub(super) fn runtimes(process: &GoProcess) -> impl Iterator<Item = (&[u8], &GoProgram)> {
    let first = process.shared_object.as_deref().unwrap_or(&process.path);
    let others = process.other_runtimes.iter().map(|other| (other.module.as_slice(), &*other.program));
    std::iter::once((first, &*process.program)).chain(others)
}

/// The release of a program for people, with a mark where it is doubtful.
pub(super) fn release_text(program: &GoProgram) -> String {
    let mark = if program.contradicted.is_some() { " (doubtful)" } else { "" };
    format!("{}{mark}", program.release)
}

/// The version of one process, and all that its build info says.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// Version of this format.
    pub schema: u32,
    /// The process; absent where the agent at an address was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The address of the agent that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who answered: `probe` or `agent`.
    pub via: &'static str,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path of its executable in its own mount namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The executable is deleted or was replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The shared object that holds the Go code, where the executable is no Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_object: Option<String>,
    /// What built it, and how that is known.
    #[serde(flatten)]
    pub release: Release,
    /// Linked to be loaded anywhere. An agent does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_independent: Option<bool>,
    /// The build info; absent where it was removed, and where an agent answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// Where the process has several Go runtimes, all of them: what stands above is of the first. Absent else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeRelease>,
}

/// What the linker wrote about the build (`runtime/debug.BuildInfo`).
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BuildInfo {
    /// What the program calls its version, where that is none of Go. Absent where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The main package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The main module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<Module>,
    /// The modules that it depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deps: Vec<Module>,
    /// Build settings, such as `-race`, `GOAMD64` and `vcs.revision`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// A module.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Module {
    /// Its path.
    pub path: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its checksum.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sum: String,
    /// The module that was used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<Box<Module>>,
}

/// A build setting.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Version {
    /// Makes the answer.
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
    /// Makes the answer from what an agent says: the line that `runtime.Version()` gives there.
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

/// Writes the version alone, as gops does; with `verbose` the whole build info below, as `go version -m` prints it.
///
/// # Errors
/// Those of `out`.
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

/// As `debug.BuildInfo.String` writes a key or a value of a setting: in quotes where it would not be read back otherwise.
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
