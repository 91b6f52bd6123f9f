//! The static programs that machines run: ours, and Go targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fixtures::build;
use serde_json::Value;

use crate::command::output_of;
use crate::error::{Error, Result};
use crate::guest::targets;

/// A program and where it is in the machine.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Path in the machine, without the slash in front.
    pub(crate) name: String,
    /// The file here.
    pub(crate) path: PathBuf,
}

/// Packages and their programs; the first one is the runner.
const OURS: [(&str, &str); 2] = [("gops-probe-vm-tests", "vm-runner"), ("gops-probe", "gops-probe")];

/// Builds all into `folder`; the first one is the runner.
///
/// Ours are made of the libraries that the build in progress has already: only the last step, linking, is another one.
/// Cargo has no folder of its own for that, so the usual programs take their place again afterwards.
pub(crate) fn build(folder: &Path) -> Result<Vec<Program>> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut programs = Vec::new();
    for (package, name) in OURS {
        let cargo = |task: &str, flags: &[&str]| {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.current_dir(env!("CARGO_MANIFEST_DIR"));
            command.args([task, "--locked", "--package", package, "--bin", name]).args(flags);
            command.args(["--message-format", "json-render-diagnostics"]);
            // Else libraries would be built again.
            command.args(cfg!(feature = "libbpf").then_some("--features=libbpf"));
            command
        };
        // Symbols are loaded into the machine's memory for nothing.
        let mut linked = cargo("rustc", &[]);
        linked.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
        let built = executable(&output_of(&mut linked, "")?).ok_or(Error::NoProgram { name })?;
        let path = folder.join(name);
        // A hard link may be what is there, or be executed just now.
        let _ = fs::remove_file(&path);
        fs::copy(&built, &path).map_err(Error::file(&built))?;
        output_of(&mut cargo("build", &[]), "")?;
        programs.push(Program { name: format!("bin/{name}"), path });
    }
    build::build(&targets::CELLS, 2, &|_, _| ())?;
    programs
        .extend(targets::CELLS.iter().map(|cell| Program { name: targets::name(cell), path: cell.path() }));
    Ok(programs)
}

/// The executable that Cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message = serde_json::from_str::<Value>(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    })
}
