//! Runs the programs that prepare a machine.

use std::process::Command;

use crate::error::{Error, Result};

/// What the program wrote on its output.
///
/// # Errors
/// Where it does not start or fails; `hint` says what to do where it does not start.
pub(crate) fn output_of(command: &mut Command, hint: &'static str) -> Result<String> {
    let program = format!("{command:?}");
    let output =
        command.output().map_err(|source| Error::Start { program: program.clone(), source, hint })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Failed { program, status: output.status, stderr })
}
