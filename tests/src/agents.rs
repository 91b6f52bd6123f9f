//! Programs with the gops agent of several releases, and gops itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::lock;
use crate::error::{Error, Result};
use crate::matrix::{build_root, source_root};

/// Releases of `github.com/google/gops` whose agents are queried.
pub const RELEASES: [&str; 3] = ["v0.3.22", "v0.3.25", "v0.3.28"];
/// Release of the agent fixture's own module file, and of gops.
const NEWEST: &str = "v0.3.28";

/// Builds the parked fixture with the agent of a release, stripped, if needed, and returns its path.
///
/// # Errors
///
/// Returns an error if it cannot be built.
pub fn agent(release: &str) -> Result<PathBuf> {
    let path = build_root().join("agents").join(release).join("agent");
    let mut command = Command::new("go");
    command.current_dir(source_root().join("agent")).args(["build", "-buildvcs=false", "-trimpath"]);
    if release != NEWEST {
        command.arg(format!("-modfile=gops-{release}.mod"));
    }
    command.arg("-ldflags=-s -w").arg("-o").arg(&path).arg(".");
    run(command, &path)
}

/// Builds the parked fixture without an agent, as `go build` makes it, or stripped. Returns its path.
///
/// # Errors
///
/// Returns an error if it cannot be built.
pub fn parked(stripped: bool) -> Result<PathBuf> {
    let path = build_root().join("agents").join(if stripped { "stripped" } else { "plain" });
    let mut command = Command::new("go");
    command.current_dir(source_root()).args(["build", "-buildvcs=false"]);
    if stripped {
        command.args(["-trimpath", "-ldflags=-s -w"]);
    }
    command.arg("-o").arg(&path).arg("./cmd/parked");
    run(command, &path)
}

/// Returns the path of the gops program.
///
/// # Errors
///
/// Returns an error if it cannot be fetched or built.
pub fn gops() -> Result<PathBuf> {
    let folder = build_root().join("agents").join("tools");
    let path = folder.join("gops");
    if path.exists() {
        return Ok(path);
    }
    let mut command = Command::new("go");
    command.env("GOBIN", &folder).args(["install", &format!("github.com/google/gops@{NEWEST}")]);
    run(command, &path)
}

/// Runs a Go command that makes a file; Go itself decides whether a build is needed.
fn run(mut command: Command, path: &Path) -> Result<PathBuf> {
    let _lock = lock("agents.lock")?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    command.env("CGO_ENABLED", "0").env("GOWORK", "off");
    command.env_remove("GOFLAGS").env_remove("GODEBUG").env_remove("GOAMD64");
    let program = format!("{command:?}");
    let output = command.output().map_err(|source| Error::Start { program: program.clone(), source })?;
    if output.status.success() {
        Ok(path.to_owned())
    } else {
        Err(Error::Failed { program, stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}
