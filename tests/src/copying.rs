//! How a program that is to be executed is copied. The tests of `inspector`, which do without this crate, include this file.

use std::path::Path;
use std::process::Command;

/// The command that copies it. Another process does that: what another thread starts meanwhile would have our file, open for
/// writing, for a moment, and a program that is being written cannot be executed.
pub(crate) fn copying(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("cp");
    command.args([from, to]);
    command
}
