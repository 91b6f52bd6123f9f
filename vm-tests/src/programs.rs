//! The static programs that machines run: ours, and Go targets.

use std::path::{Path, PathBuf};
use std::process::Command;

use fixtures::build;

use crate::command::output_of;
use crate::error::Result;
use crate::guest::targets;

/// A program and where it is in the machine.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Path in the machine, without the slash in front.
    pub(crate) name: String,
    /// The file here.
    pub(crate) path: PathBuf,
}

/// What the machines run without libraries is built for this, so that plug-ins of the compiler are not static too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds all; the first one is the runner.
pub(crate) fn build(folder: &Path) -> Result<Vec<Program>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--locked", "--quiet", "--profile", "vm"]);
    for package in ["gops-probe", "gops-probe-vm-tests"] {
        command.args(["--package", package]);
    }
    command.args(["--bin", OURS[0], "--bin", OURS[1], "--target", TARGET, "--target-dir"]).arg(folder);
    // Flags of the build in progress are for another kind of build.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-C target-feature=+crt-static");
    output_of(&mut command, "")?;
    let built = folder.join(TARGET).join("vm");
    let ours = OURS.map(|name| Program { name: format!("bin/{name}"), path: built.join(name) });
    build::build(&targets::CELLS, 2, &|_, _| ())?;
    let targets = targets::CELLS.iter().map(|cell| Program { name: targets::name(cell), path: cell.path() });
    Ok(ours.into_iter().chain(targets).collect())
}

const OURS: [&str; 2] = ["vm-runner", "gops-probe"];
