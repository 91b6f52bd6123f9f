//! Builds the probe program with a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::release::Release;

/// Machine that tables are made for, as a `GOARCH` value. Also the name of its folder in `data`.
pub(crate) const GOARCH: &str = "amd64";

/// Returns the folder of the tables for [`GOARCH`].
pub(crate) fn tables(home: &Path) -> PathBuf {
    home.join("data").join(GOARCH)
}

/// Compilation mode of the probe. Recipes differ between modes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Default optimisation, as in `go build`.
    Plain,
    /// No optimisation and no inlining: `-gcflags=all=-N -l`.
    Unoptimised,
}

/// Returns the GOROOT of a release's toolchain.
pub(crate) fn goroot(release: Release) -> Outcome<PathBuf> {
    let output =
        Command::new("go").args(["env", "GOROOT"]).env("GOTOOLCHAIN", release.toolchain()).output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Returns the version line of a release's compiler, with GOEXPERIMENT set to `experiment`. The line names
/// the experiments that differ from the release's defaults. `None` if the compiler rejects `experiment`.
pub(crate) fn compiler(release: Release, experiment: &str) -> Outcome<Option<String>> {
    let output = Command::new("go")
        .args(["tool", "compile", "-V"])
        .env("GOTOOLCHAIN", release.toolchain())
        .env("GOEXPERIMENT", experiment)
        .env("GOOS", "linux")
        .env("GOARCH", GOARCH)
        .output()?;
    Ok(if output.status.success() { Some(String::from_utf8(output.stdout)?) } else { None })
}

/// Arguments of `go build` before the file names. The table file records them.
pub(crate) fn arguments(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Plain => &["build"],
        Mode::Unoptimised => &["build", "-gcflags=all=-N -l"],
    }
}

/// Program to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Program of `probe/`: links the packages of a typical server.
    Large,
    /// Program of `probe/minimal/`: links only the packages of every program.
    Minimal,
}

/// Builds the probe with `release`. An existing file in `builds` is used again.
pub(crate) fn probe(
    source: &Path,
    builds: &Path,
    release: Release,
    mode: Mode,
    program: Program,
) -> Outcome<PathBuf> {
    probe_with(source, builds, release, mode, program, "")
}

/// Builds the probe like [`probe`], with a GOEXPERIMENT.
pub(crate) fn probe_with(
    source: &Path,
    builds: &Path,
    release: Release,
    mode: Mode,
    program: Program,
    experiment: &str,
) -> Outcome<PathBuf> {
    let size = if program == Program::Large { "" } else { ".minimal" };
    let suffix = if mode == Mode::Plain { "" } else { ".unoptimised" };
    let dash = if experiment.is_empty() { "" } else { "-" };
    let output = builds.join(format!("{release}{dash}{experiment}{size}{suffix}"));
    if output.exists() {
        return Ok(output);
    }
    // File names one by one: the command of go1.19 fails on `.` if its GOROOT is in the module cache.
    let optional = |name: &str, since: u32| {
        if release.minor >= since { format!("{name}.go") } else { format!("{name}_none.go") }
    };
    let files = match program {
        Program::Large => {
            vec!["main.go".to_owned(), optional("coroutines", 23), optional("cleanups", 24)]
        }
        Program::Minimal => vec!["minimal/main.go".to_owned()],
    };
    let status = Command::new("go")
        .args(arguments(mode))
        .arg("-o")
        .arg(&output)
        .args(files)
        .current_dir(source)
        .env("GOTOOLCHAIN", release.toolchain())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env("GOEXPERIMENT", experiment)
        .env("GOAMD64", "v1")
        .env("GOOS", "linux")
        .env("GOARCH", GOARCH)
        .env("GOWORK", "off")
        .status()?;
    if status.success() { Ok(output) } else { Err(format!("{release}: go build failed: {status}").into()) }
}
