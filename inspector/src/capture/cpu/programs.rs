//! Programs that the sampled processes execute, one after the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::known::{self, SampledProgram};
use super::source::{RawSample, Source};
use crate::Error;
use crate::native::Files;
use crate::process::{Pid, Process, find};

/// Maximum number of programs that are examined in one capture.
const MAX_KNOWN: usize = 4096;
/// Time after which an announced event counts as lost.
const LOST: Duration = Duration::from_secs(1);

/// Programs of the sampled processes, each as it was at its start.
#[derive(Default)]
pub(super) struct Programs {
    /// Files that the processes have mapped.
    pub(super) files: Files,
    pub(super) known: Vec<SampledProgram>,
    /// Index of the program that each process executes now; `None` if it could not be examined.
    now: HashMap<Pid, Option<usize>>,
    /// Parents of the processes that began during the capture.
    parents: HashMap<Pid, Pid>,
    /// Programs announced before their [`Event::Exec`](super::source::Event::Exec) arrives, in the order of execution.
    ahead: HashMap<Pid, VecDeque<Ahead>>,
}

/// Program that a process has just begun to execute.
struct Ahead {
    since: Instant,
    /// Facts about the program, if it could be examined already.
    known: Option<SampledProgram>,
}

impl Programs {
    /// Adds the present program of a process. Returns its index.
    pub(super) fn add(&mut self, pid: Pid, known: SampledProgram) -> usize {
        self.known.push(known);
        self.now.insert(pid, Some(self.known.len() - 1));
        self.known.len() - 1
    }

    /// Adds the processes that the targets began before the capture.
    pub(super) fn add_descendants(&mut self, of: &[Process], source: &mut dyn Source) -> Result<(), Error> {
        for pid in find::descendants(of)? {
            if self.now.contains_key(&pid) {
                continue;
            }
            if let Some(known) = self.look(pid).and_then(|index| self.known.get(index))
                && let Err(error) = source.add(pid, &known.go_targets())
            {
                tracing::info!("process {pid}: {error}");
            }
        }
        Ok(())
    }

    /// Records that a process began as a copy of its parent.
    pub(super) fn began(&mut self, pid: Pid, parent: Pid) {
        self.parents.insert(pid, parent);
        self.now.remove(&pid);
    }

    /// Records that a process is about to execute another program, or has just done so.
    pub(super) fn executes(&mut self, pid: Pid) {
        let ahead = Ahead { since: Instant::now(), known: self.open(pid) };
        self.ahead.entry(pid).or_default().push_back(ahead);
    }

    /// Records that a process has executed another program: samples from now on belong to it. Returns the
    /// index of the program, if it could be examined.
    pub(super) fn executed(&mut self, pid: Pid) -> Option<usize> {
        self.parents.remove(&pid);
        self.now.remove(&pid);
        let ahead = self.ahead.get_mut(&pid).and_then(VecDeque::pop_front);
        self.ahead.retain(|_, left| !left.is_empty());
        match ahead.and_then(|ahead| ahead.known) {
            Some(known) => Some(self.add(pid, known)),
            None => self.look(pid),
        }
    }

    /// Describes in sentences what is left out.
    pub(super) fn left_out(&self) -> Vec<String> {
        left_out(&self.known, &self.files)
    }

    /// Returns the index of the program of a sample. Examines the process if it is new.
    pub(super) fn known_of(&mut self, sample: &RawSample<'_>, found: &mut HashSet<usize>) -> Option<usize> {
        if let Some(&known) = self.now.get(&sample.pid) {
            if let Some(index) = known
                && self.known.get(index).is_some_and(SampledProgram::is_due)
                && let others = known::tables(&self.known)
                && self.known.get_mut(index).is_some_and(|known| known.try_again(others))
            {
                found.insert(index);
            }
            return known;
        }
        if let Some(index) = self.look(sample.pid) {
            found.insert(index);
            return Some(index);
        }
        // The process has ended. If it executed nothing else, its code was that of its parent.
        let parent = self.parents.get(&sample.pid).and_then(|parent| self.now.get(parent).copied().flatten());
        self.now.insert(sample.pid, parent);
        parent
    }

    /// Examines the present program of a process. Returns its index.
    pub(super) fn look(&mut self, pid: Pid) -> Option<usize> {
        self.open(pid).map(|known| self.add(pid, known))
    }

    /// Examines again the programs that have just begun. The kernel or Go may not have been ready with them,
    /// and they may have ended when their first sample is reported. Returns true if a program is still not
    /// ready.
    pub(super) fn look_ahead(&mut self) -> bool {
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut more = false;
        let others = if ahead.is_empty() { 0 } else { known::tables(&self.known) };
        for (&pid, programs) in &mut ahead {
            // An event that should have arrived long ago was lost.
            programs.retain(|ahead| ahead.since.elapsed() < LOST);
            // Nothing is left to see of the programs before the last one.
            let Some(Ahead { known, .. }) = programs.back_mut() else { continue };
            match known {
                Some(known) => _ = known.try_again(others),
                None => *known = self.open(pid),
            }
            more |= known.as_ref().is_none_or(SampledProgram::is_young);
        }
        self.ahead = ahead;
        more
    }

    fn open(&self, pid: Pid) -> Option<SampledProgram> {
        if self.known.len() + self.ahead.len() >= MAX_KNOWN {
            return None;
        }
        let open = |process| SampledProgram::open(&process, &self.files, &self.known);
        let known = Process::pin(pid).map_err(Error::from).and_then(open);
        known.inspect_err(|error| tracing::debug!("process {pid}: {error}")).ok()
    }
}

/// Describes in sentences the programs and files that are left out.
pub(super) fn left_out(known: &[SampledProgram], files: &Files) -> Vec<String> {
    let mut notes = files.notes();
    let programs = known.iter().filter(|known| known.is_left_out()).count();
    if programs > 0 {
        notes.push(format!(
            "{programs} Go programs are left out, as the function tables of all would take too much memory"
        ));
    }
    notes
}
