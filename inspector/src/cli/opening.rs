//! Option `--open`: shows a file with Go's tools.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::process::{Pid, tasks};
use crate::{Error, environment};

/// Tool of Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// Tool `go tool pprof`, shown as a web page.
    Pprof,
    /// Tool `go tool trace`.
    Trace,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Pprof => "pprof",
            Tool::Trace => "trace",
        }
    }
}

/// Shows a file, optionally about one process, until the tool ends.
pub(super) fn show(tool: Tool, path: &Path, about: Option<Pid>) -> Result<(), Error> {
    let name = tool.name();
    // The `go` of the user's own path would run with our rights.
    if environment::raised() {
        return Err(Error::Usage(format!(
            "--open does not run `go` for a gops-probe with file capabilities or set-user-ID; open {} yourself: go tool \
             {name} {0}",
            path.display()
        )));
    }
    let mut command = Command::new("go");
    command.args(["tool", name]);
    if tool == Tool::Pprof {
        // Any free port, on this machine only.
        command.arg("-http=localhost:");
    }
    if let (Some(pid), Tool::Pprof) = (about, tool) {
        // With the program, pprof also shows source and assembly. The program's own path may mean another
        // file to us.
        let program = format!("/proc/{pid}/exe");
        if File::open(&program).is_ok() {
            command.arg(program);
        }
    }
    // A name that begins with a dash is still a file name.
    let file = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let status = command.arg(&file).status().map_err(|e| {
        let e = tasks::why_no_more(&e);
        Error::Failed(format!("cannot run `go tool {name}` ({e}); the file {} is written", path.display()))
    })?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("`go tool {name}` failed: {status}"))) }
}
