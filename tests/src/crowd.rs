//! Crowd of a dozen other Go programs with long names, as most developers' machines run beside the target.

use std::path::Path;
use std::process::Command;

use crate::agents;
use crate::error::{Error, Result};
use crate::fixture::Fixture;
use crate::process::copy_program;

/// Go processes that no test asks about. They are killed when the crowd is dropped.
#[derive(Debug)]
pub struct Crowd {
    _processes: Vec<Fixture>,
    _folder: tempfile::TempDir,
}

impl Crowd {
    /// Starts a dozen processes, whose names and paths are longer than those of the test programs.
    ///
    /// # Errors
    ///
    /// Returns an error if a program cannot be built, copied or started.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::file(Path::new("a temporary folder")))?;
        let program = agents::parked(true)?;
        let start = |number: u32| {
            let copy = folder.path().join(format!("{number}-an-orders-service-with-a-long-name"));
            copy_program(&program, &copy)?;
            let mut command = Command::new(copy);
            command.args(["-n", "1", "-heartbeat", "0"]);
            Fixture::start(command)
        };
        let processes = (0..12).map(start).collect::<Result<Vec<_>>>()?;
        Ok(Crowd { _processes: processes, _folder: folder })
    }
}

/// Returns the words of a process's row in the text of `list`. Each column of `list` is as wide as its
/// longest cell.
#[must_use]
pub fn row<'t>(list: &'t str, pid: &str) -> Option<Vec<&'t str>> {
    list.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&pid))
}

/// Returns true if `list` marks a process as one with an agent. The mark is behind the column of names, so it
/// is a separate word if another name is longer.
#[must_use]
pub fn has_agent(list: &str, pid: &str) -> bool {
    row(list, pid).is_some_and(|words| {
        words.get(2).is_some_and(|name| name.ends_with('*')) || words.get(3) == Some(&"*")
    })
}
