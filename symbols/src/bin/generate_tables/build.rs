//! Builds the probe program with a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::layout::Release;

use crate::Outcome;

/// How the probe is compiled. Recipes differ between these.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As `go build` does.
    Plain,
    /// `-gcflags=all=-N -l`.
    Unoptimised,
}

/// What `GOTOOLCHAIN` calls a release: before 1.21 there is no `.0`.
pub(crate) fn toolchain(release: Release) -> String {
    if release.minor < 21 && release.patch == 0 {
        format!("go1.{}", release.minor)
    } else {
        release.to_string()
    }
}

/// The arguments of `go build` up to the files, as they are recorded in the table.
pub(crate) fn arguments(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Plain => &["build"],
        Mode::Unoptimised => &["build", "-gcflags=all=-N -l"],
    }
}

/// The probe built by `release`; built already, if it is in `builds`.
pub(crate) fn probe(source: &Path, builds: &Path, release: Release, mode: Mode) -> Outcome<PathBuf> {
    let suffix = if mode == Mode::Plain { "" } else { ".unoptimised" };
    let output = builds.join(format!("{release}{suffix}"));
    if output.exists() {
        return Ok(output);
    }
    // The files are named one by one, since go1.19's command fails on `.` where its GOROOT is in the module cache.
    let optional = |name: &str, since: u32| {
        if release.minor >= since { format!("{name}.go") } else { format!("{name}_none.go") }
    };
    let status = Command::new("go")
        .args(arguments(mode))
        .arg("-o")
        .arg(&output)
        .args(["main.go", &optional("coroutines", 23), &optional("cleanups", 24)])
        .current_dir(source)
        .env("GOTOOLCHAIN", toolchain(release))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env("GOEXPERIMENT", "")
        .env("GOAMD64", "v1")
        .env("GOOS", "linux")
        .env("GOARCH", "amd64")
        .env("GOWORK", "off")
        .status()?;
    if status.success() { Ok(output) } else { Err(format!("{release}: go build failed: {status}").into()) }
}
