//! Builds the probe program with a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::release::Release;

/// The machine that tables are made for, as Go calls it: the folder of `data` that they are in.
pub(crate) const GOARCH: &str = "amd64";

/// Where the tables of that machine are.
pub(crate) fn tables(home: &Path) -> PathBuf {
    home.join("data").join(GOARCH)
}

/// How the probe is compiled. Recipes differ between these.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As `go build` does.
    Plain,
    /// `-gcflags=all=-N -l`.
    Unoptimised,
}

/// Where the toolchain of a release is.
pub(crate) fn goroot(release: Release) -> Outcome<PathBuf> {
    let output =
        Command::new("go").args(["env", "GOROOT"]).env("GOTOOLCHAIN", release.toolchain()).output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// What the compiler of a release calls itself where GOEXPERIMENT is `experiment`: its version, with the experiments
/// that differ from what the release has switched on by itself. `None` where it refuses.
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

/// The arguments of `go build` up to the files, as they are recorded in the table.
pub(crate) fn arguments(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Plain => &["build"],
        Mode::Unoptimised => &["build", "-gcflags=all=-N -l"],
    }
}

/// Which program to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `probe/`: links what a server links.
    Large,
    /// `probe/minimal/`: links what every program links.
    Minimal,
}

/// The probe built by `release`; built already, if it is in `builds`.
pub(crate) fn probe(
    source: &Path,
    builds: &Path,
    release: Release,
    mode: Mode,
    program: Program,
) -> Outcome<PathBuf> {
    probe_with(source, builds, release, mode, program, "")
}

/// As [`probe`], with a GOEXPERIMENT.
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
    // The files are named one by one, since go1.19's command fails on `.` where its GOROOT is in the module cache.
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
