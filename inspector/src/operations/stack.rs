//! Snapshot of all goroutines of a process.

use super::error::snapshot_error;
use super::panicking;
use crate::Error;
use crate::memory::ReadCost;
use crate::process::{Pid, Process};
use crate::report::stack::AnswerCost;
use crate::runtime::open::Opened;
use crate::runtime::snapshot::{self, Snapshot, SnapshotOptions};
use crate::runtime::view::View;

/// Snapshot of all goroutines of a process, with its cost.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pid: Pid,
    pub(crate) view: View,
    pub(crate) snapshot: Snapshot,
    attach_cost: ReadCost,
    /// True if a panic, a fatal error or a signal is ending the program. `None` if unknown.
    pub(crate) panicking: Option<bool>,
}

impl Seen {
    /// Returns the cost of attaching and of the snapshot.
    pub(crate) fn cost(&self) -> AnswerCost {
        AnswerCost::new(self.attach_cost, &self.snapshot)
    }
}

/// Takes a snapshot of the goroutines of a process from outside.
pub(crate) fn look(process: &Process, opened: Opened, options: &SnapshotOptions) -> Result<Seen, Error> {
    let Opened { view, cost: attach_cost, .. } = opened;
    let snapshot = snapshot::take(process, &view, options).map_err(|e| snapshot_error(process, e))?;
    let panicking = panicking::look(process, &view);
    process.check()?;
    Ok(Seen { pid: process.pid(), view, snapshot, attach_cost, panicking })
}
