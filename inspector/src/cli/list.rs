//! Command `list`.

use std::io::{self, Write};

use serde::Serialize;

use super::args::Common;
use super::command::Run;
use super::confinement::{LOOKING, Work};
use super::notices::Notice;
use super::output;
use crate::Error;
use crate::operations::{list, version};
use crate::process::Pid;
use crate::process::access::Denial;
use crate::process::find::{self, FoundProcesses};
use crate::report::list::{List, Listed, write_text};

/// Command `list`, which has no arguments.
pub(super) struct ListCommand;

impl Run for ListCommand {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run_as(common, List::new, write_text)
    }

    fn work(&self) -> Work {
        LOOKING
    }

    fn stops(&self) -> bool {
        false
    }
}

/// Lists the Go processes: with `--json` the result of `answer`, otherwise the text of `write_text`.
pub(super) fn run_as<A: Serialize>(
    common: &Common,
    answer: impl FnOnce(&FoundProcesses<Listed>) -> A,
    write_text: impl FnOnce(&FoundProcesses<Listed>, bool, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let found = list::look(common.detail())?;
    if common.json {
        output::write_json(common, &answer(&found))?;
    } else {
        output::write(common, |out| write_text(&found, common.verbose > 0, out))?;
    }
    tell_unreadable(&found, common);
    version::conclude(found.processes.iter().map(|listed| &listed.process))
}

/// Reports the number of processes that could not be read, and the reason.
fn tell_unreadable(found: &FoundProcesses<Listed>, common: &Common) {
    if found.hides_others {
        let denial = Denial::Hidden;
        let todo = denial.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Notice::Hint.tell(
            common,
            format_args!("the processes of other users are not shown: /proc is mounted with hidepid{todo}"),
        );
    }
    tell_not_looked_at(found, common);
    let Some(denial) = found.denial.as_ref().filter(|_| found.unreadable > 0) else { return };
    let todo = denial.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    // A user sees hundreds of processes of others: the first few names are enough.
    let most = if common.verbose > 0 { find::NAMED_UNREADABLE } else { 3 };
    let mut some: Vec<_> = found.some_unreadable.iter().collect();
    some.sort_by_key(|(pid, _)| *pid);
    let named: Vec<String> = some.iter().take(most).map(|(pid, name)| format!("{pid} ({name})")).collect();
    let more = if found.unreadable > named.len() { " and others" } else { "" };
    Notice::Hint.tell(
        common,
        format_args!(
            "{} process{} could not be inspected: {}{more} ({denial}){todo}",
            found.unreadable,
            if found.unreadable == 1 { "" } else { "es" },
            named.join(", "),
        ),
    );
}

/// Names the processes that were not examined. A process that makes reading expensive cannot hide others
/// silently.
fn tell_not_looked_at(found: &FoundProcesses<Listed>, common: &Common) {
    const NAMED: usize = 20;
    let name = |pids: &[Pid]| {
        let named: Vec<String> = pids.iter().take(NAMED).map(ToString::to_string).collect();
        let more =
            if pids.len() > NAMED { format!(" and {} more", pids.len() - NAMED) } else { String::new() };
        format!("{}{more}", named.join(" "))
    };
    if !found.unanswered.is_empty() {
        let count = found.unanswered.len();
        Notice::Warning.tell(
            common,
            format_args!(
                "{count} process{} left out, because reading memory or files of {} does not finish (userfaultfd, FUSE, a \
                 network file system): {}",
                if count == 1 { " was" } else { "es were" },
                if count == 1 { "it" } else { "them" },
                name(&found.unanswered),
            ),
        );
    }
    let mut pids = found.not_looked_at.clone();
    pids.retain(|pid| !found.unanswered.contains(pid));
    let count = pids.len();
    if count == 0 {
        return;
    }
    Notice::Warning.tell(
        common,
        format_args!(
            "{count} process{} not inspected completely: the limit is {} s and {} GiB of reading for all, and {} GiB for one: \
             {}; `gops-probe process PID` inspects a single one",
            if count == 1 { " was" } else { "es were" },
            find::TIME.as_secs(),
            find::BYTES >> 30,
            find::BYTES_OF_ONE >> 30,
            name(&pids),
        ),
    );
}
