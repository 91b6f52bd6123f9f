//! The Go processes of the machine.

use std::sync::LazyLock;

use crate::Error;
use crate::agent::OwnPortFiles;
use crate::process::find::{self, Detail, FoundProcesses};
use crate::report::list::Listed;

/// Looks at all processes, without touching any of them. The agent of a Go process is looked for by the thread that has just looked
/// at the process itself.
///
/// # Errors
/// Where /proc cannot be listed. A process that cannot be looked into is counted in the answer.
pub(crate) fn look(detail: Detail) -> Result<FoundProcesses<Listed>, Error> {
    // One look at the directory of port files serves all processes, and is left out where there are none.
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

/// Looks at all processes, but not for agents in them.
///
/// # Errors
/// As [`look`].
pub(crate) fn without_agents(detail: Detail) -> Result<FoundProcesses, Error> {
    Ok(find::all(detail)?)
}

/// Looks at the processes that have `part` in their names, but not for agents in them.
///
/// # Errors
/// As [`look`].
pub(crate) fn named(part: &str) -> Result<FoundProcesses, Error> {
    let part = part.to_owned();
    Ok(find::matching(Detail::Text, move |process| find::full_name(process).contains(&part))?)
}
