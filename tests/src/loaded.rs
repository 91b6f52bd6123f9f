//! Programs that load Go code: hosts of plugins, and hosts of Go libraries with their own runtimes. All are
//! built when tests need them, and stripped.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::build::{lock, run};
use crate::error::{Error, Result};
use crate::matrix::{build_root, source_root};
use crate::probe::probe;

/// Build result of `fixtures/loaded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Artifact {
    /// Library for C programs, which reports this name.
    Library(&'static str),
    /// Plugin of [`Artifact::PluginHost`].
    Plugin,
    /// Program that loads plugins.
    PluginHost,
    /// Go program that loads libraries.
    GoHost,
}

impl Artifact {
    fn file(self) -> String {
        match self {
            Self::Library(name) => format!("{name}.so"),
            Self::Plugin => "plugin.so".to_owned(),
            Self::PluginHost => "pluginhost".to_owned(),
            Self::GoHost => "gohost".to_owned(),
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Library(_) => "./loaded/library",
            Self::Plugin => "./loaded/plugin",
            Self::PluginHost => "./loaded/host",
            Self::GoHost => "./loaded/gohost",
        }
    }
}

/// Builds an artifact with a toolchain (`1.26.11`), if needed, and returns its path.
///
/// # Errors
///
/// Returns the message of the toolchain.
pub fn artifact(toolchain: &str, artifact: Artifact) -> Result<PathBuf> {
    let _lock = lock("lock-loaded")?;
    let folder = build_root().join("loaded").join(toolchain);
    let path = folder.join(artifact.file());
    let mut command = Command::new("go");
    command.current_dir(source_root());
    command.args(["build", "-buildvcs=false", "-trimpath"]);
    let mut link = String::from("-ldflags=-s -w");
    match artifact {
        Artifact::Library(name) => {
            command.arg("-buildmode=c-shared");
            link += &format!(" -X main.name={name}");
        }
        Artifact::Plugin => _ = command.arg("-buildmode=plugin"),
        Artifact::PluginHost | Artifact::GoHost => {}
    }
    command.arg(link).arg("-o").arg(&path).arg(artifact.package());
    command.env_remove("GOFLAGS").env_remove("GODEBUG").env_remove("GOAMD64");
    command.env("GOTOOLCHAIN", format!("go{toolchain}"));
    command.env("CGO_ENABLED", "1").env("GOWORK", "off").env("GOEXPERIMENT", "");
    once(&path, &[source_root().join("loaded"), source_root().join("proto")], command)
}

/// Builds the C program that loads libraries, if needed, and returns its path.
///
/// # Errors
///
/// Returns the message of the compiler.
pub fn c_host() -> Result<PathBuf> {
    let _lock = lock("lock-loaded")?;
    let path = build_root().join("loaded").join("chost");
    let source = source_root().join("loaded").join("host.c");
    let mut command = Command::new("cc");
    command.args(["-O2", "-s", "-o"]).arg(&path).arg(&source).arg("-ldl");
    once(&path, &[source], command)
}

/// Returns the path of the Python script that loads libraries, for `python3`.
#[must_use]
pub fn python_host() -> PathBuf {
    source_root().join("loaded").join("host.py")
}

/// Runs a command that makes a file from sources, if the command or a source is new.
fn once(path: &Path, sources: &[PathBuf], command: Command) -> Result<PathBuf> {
    let mut stamp = format!("{command:?}\n");
    for source in sources {
        add(source, &mut stamp)?;
    }
    let stamp_file = path.with_extension("stamp");
    if path.exists() && fs::read_to_string(&stamp_file).is_ok_and(|text| text == stamp) {
        return Ok(path.to_owned());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    // A process that still has the file mapped keeps the old one.
    let _ = fs::remove_file(path);
    run(command)?;
    fs::write(&stamp_file, &stamp).map_err(Error::file(&stamp_file))?;
    Ok(path.to_owned())
}

/// Adds the hash of a file, or of all files below a folder, to the stamp.
fn add(path: &Path, stamp: &mut String) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .map_err(Error::file(path))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        entries.sort();
        return entries.iter().try_for_each(|entry| add(entry, stamp));
    }
    let mut hasher = DefaultHasher::new();
    fs::read(path).map_err(Error::file(path))?.hash(&mut hasher);
    *stamp +=
        &format!("{} {:016x}\n", path.file_name().unwrap_or_default().to_string_lossy(), hasher.finish());
    Ok(())
}

/// Sample of a profile in JSON.
#[derive(Debug, Clone)]
pub struct NamedSample {
    /// Functions, innermost first.
    pub functions: Vec<String>,
    /// Text labels: lists.
    pub labels: Value,
    /// Number labels: lists.
    pub numbers: Value,
    /// First value of the sample.
    pub value: i64,
}

/// Returns the samples of `gops-probe ARGUMENTS PID`, which writes a CPU profile in JSON. The result is empty
/// if stops found no thread on a CPU.
///
/// # Errors
///
/// Returns the error text of gops-probe if it fails for another reason.
pub fn sampled(arguments: &[&str], pid: u32) -> Result<Vec<NamedSample>> {
    let pid = pid.to_string();
    let arguments: Vec<&str> = arguments.iter().copied().chain([pid.as_str()]).collect();
    let output = probe(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(7) && stderr.contains("there is no sample") {
        return Ok(Vec::new());
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(profile) if output.status.success() => Ok(named_samples(&profile)),
        _ => Err(Error::Failed { program: format!("gops-probe {arguments:?}"), stderr }),
    }
}

/// Returns the samples of a profile in JSON, with the names of their functions.
#[must_use]
pub fn named_samples(profile: &Value) -> Vec<NamedSample> {
    let index = |value: &Value| value.as_u64().and_then(|i| usize::try_from(i).ok()).unwrap_or(usize::MAX);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |line: &Value| {
        profile["functions"][index(&line["function"])]["name"].as_str().unwrap_or_default().to_owned()
    };
    let named = |sample: Value| NamedSample {
        functions: list(&sample["stack"])
            .iter()
            .flat_map(|location| list(&profile["locations"][index(location)]["lines"]))
            .map(|line| name(&line))
            .collect(),
        labels: sample["labels"].clone(),
        numbers: sample["numbers"].clone(),
        value: sample["values"][0].as_i64().unwrap_or_default(),
    };
    list(&profile["samples"]).into_iter().map(named).collect()
}
