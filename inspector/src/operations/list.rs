//! List of the Go processes of the machine.

use std::sync::LazyLock;

use crate::Error;
use crate::agent::OwnPortFiles;
use crate::process::find::{self, Detail, FoundProcesses};
use crate::report::list::Listed;

/// Finds all Go processes without touching any process. The agent of a Go process is searched by the thread
/// that examined the process.
///
/// # Errors
/// Returns an error if /proc cannot be listed. The answer counts processes that cannot be read.
pub(crate) fn look(detail: Detail) -> Result<FoundProcesses<Listed>, Error> {
    // One list of the port files serves all processes, and is not made if there are none.
    let port_files = LazyLock::new(OwnPortFiles::list);
    let found = find::search(
        detail,
        |_| true,
        move |process, found| {
            let agent = port_files.agent_of(process, &found.program);
            Listed { process: found, agent }
        },
    )?;
    Ok(found)
}

/// Finds all Go processes, without their agents.
///
/// # Errors
/// Returns the errors of [`look`].
pub(crate) fn without_agents(detail: Detail) -> Result<FoundProcesses, Error> {
    Ok(find::all(detail)?)
}

/// Finds the Go processes that have `part` in their names, without their agents.
///
/// # Errors
/// Returns the errors of [`look`].
pub(crate) fn named(part: &str) -> Result<FoundProcesses, Error> {
    let part = part.to_owned();
    Ok(find::matching(Detail::Text, move |process| find::full_name(process).contains(&part))?)
}
