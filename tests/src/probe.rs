//! Runs the `gops-probe` binary that belongs to the test in progress.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::dump::Dump;
use crate::error::{Error, Result};

/// Returns the path of `gops-probe`, built in the profile and target folder of the running test.
///
/// Cargo does not build the binary of a dependency for a test, so the first call does, once per process.
/// `GOPS_PROBE_BIN` names another binary to test.
///
/// # Errors
///
/// Returns an error if it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(|| build().map_err(|error| error.to_string())) {
        Ok(path) => Ok(path),
        Err(text) => {
            Err(Error::Failed { program: "cargo build of gops-probe".to_owned(), stderr: text.clone() })
        }
    }
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GOPS_PROBE_BIN") {
        return Ok(path.into());
    }
    Ok(make(&["--bin", "gops-probe"])?.join("gops-probe"))
}

/// Returns the path of an example program of the library, built in the profile and target folder of the
/// running test.
///
/// # Errors
///
/// Returns an error if it cannot be built.
pub fn example(name: &str) -> Result<PathBuf> {
    Ok(make(&["--example", name])?.join("examples").join(name))
}

/// Builds a target of gops-probe with cargo. Returns the folder of the programs.
fn make(what: &[&str]) -> Result<PathBuf> {
    let test = std::env::current_exe().map_err(Error::file("the test's executable"))?;
    // The path is target/PROFILE/deps/test-0123 or target/PROFILE/program.
    let mut folder = test.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().unwrap_or(folder);
    }
    let target = folder.parent().unwrap_or(folder);
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--quiet", "--package", "gops-probe", "--profile", profile]);
    command.args(what);
    command.arg("--target-dir").arg(target);
    // The features are those of the libraries that the test was built with, so that they are not built again.
    command.args(cfg!(feature = "libbpf").then_some("--features=libbpf"));
    let program = format!("{command:?}");
    let output = command.output().map_err(|source| Error::Start { program: program.clone(), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Failed { program, stderr });
    }
    Ok(folder.to_owned())
}

/// Runs `gops-probe` with arguments and returns its output and status.
///
/// # Errors
///
/// Returns an error if it cannot be built or started; a failing exit status is not an error here.
pub fn probe<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Output> {
    let path = binary()?;
    let mut command = Command::new(path);
    command.args(arguments);
    command.output().map_err(|source| Error::Start { program: path.display().to_string(), source })
}

/// Returns the dump of a process by `gops-probe stack` with options.
///
/// # Errors
///
/// Returns an error with the text on standard error if the command fails.
pub fn stack(pid: u32, options: &[&str]) -> Result<Dump> {
    let pid = pid.to_string();
    let arguments: Vec<&str> = ["stack"].iter().chain(options).copied().chain([pid.as_str()]).collect();
    let output = probe(&arguments)?;
    if output.status.success() {
        return Ok(Dump::parse(&String::from_utf8_lossy(&output.stdout)));
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { program: format!("gops-probe {}", arguments.join(" ")), stderr })
}
