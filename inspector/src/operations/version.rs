//! Go release that built a program.

use crate::Error;
use crate::process::Process;
use crate::process::find::{self, GoProcess};
use crate::report::version::write_text;
use crate::runtime::contradiction;
use crate::runtime::open::open_chosen;

/// Finds the Go program of a process in its files.
///
/// # Errors
/// Returns an error if the process is no Go process, or if that cannot be determined.
pub(crate) fn look(process: &Process) -> Result<GoProcess, Error> {
    Ok(find::one(process)?)
}

/// Returns the release as an agent would answer it: of the chosen runtime, or of the only one. For several
/// runtimes, each release has its module.
///
/// # Errors
/// Returns the errors of [`look`], and an error if the chosen runtime cannot be read.
pub(crate) fn as_agent(process: &Process, chosen: Option<&str>) -> Result<String, Error> {
    let found = look(process)?;
    if chosen.is_some() {
        return Ok(open_chosen(process, chosen)?.name.release);
    }
    let mut text = Vec::new();
    // Writing to memory takes any bytes.
    write_text(&found, false, &mut text).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Checks that no program contradicts the Go version that it states.
///
/// # Errors
/// Returns [`Error::Partial`] if a version is contradicted.
pub(crate) fn conclude<'p>(processes: impl IntoIterator<Item = &'p GoProcess>) -> Result<(), Error> {
    const NAMED: usize = 20;
    let doubt = |process: &GoProcess| Some((process.pid, contradiction::of_version(&process.program)?.why));
    let doubted: Vec<_> = processes.into_iter().filter_map(doubt).collect();
    let Some((_, why)) = doubted.first() else { return Ok(()) };
    let pids: Vec<String> = doubted.iter().take(NAMED).map(|(pid, _)| pid.to_string()).collect();
    let more = if doubted.len() > NAMED { " and others" } else { "" };
    let pids = pids.join(", ");
    Err(Error::Partial(format!("the Go version that {pids}{more} states is doubtful: {why}")))
}
