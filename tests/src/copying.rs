//! Copy of a program for execution. The tests of `inspector`, which do not use this crate, include this file.

use std::path::Path;
use std::process::Command;

/// Returns the command that copies the program. Another process must do this: a process that another thread
/// starts meanwhile would inherit our file, open for writing, for a moment, and a program that is open for
/// writing cannot be executed.
pub(crate) fn copying(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("cp");
    command.args([from, to]);
    command
}
