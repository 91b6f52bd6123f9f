//! What the processes that are sampled execute, from one program to the next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::known::{self, SampledProgram};
use super::source::{RawSample, Source};
use crate::Error;
use crate::native::Files;
use crate::process::{Pid, Process, find};

/// More programs than are looked at in one capture.
const MAX_KNOWN: usize = 4096;
/// What a source says beforehand and does not say within this time, it will not say.
const LOST: Duration = Duration::from_secs(1);

/// The programs of processes that are sampled, each as it was when it began.
#[derive(Default)]
pub(super) struct Programs {
    /// What processes have mapped.
    pub(super) files: Files,
    pub(super) known: Vec<SampledProgram>,
    /// What each process executes now; `None` where it could not be looked at.
    now: HashMap<Pid, Option<usize>>,
    /// Of processes that began meanwhile.
    parents: HashMap<Pid, Pid>,
    /// What is known of those that execute another program, from before [`Event::Exec`] says so; in the order of their programs.
    ahead: HashMap<Pid, VecDeque<Ahead>>,
}

/// A program that a process has just begun to execute.
struct Ahead {
    since: Instant,
    /// What is known of it, if it could be looked at already.
    known: Option<SampledProgram>,
}

impl Programs {
    /// Adds what a process executes now; returns its index.
    pub(super) fn add(&mut self, pid: Pid, known: SampledProgram) -> usize {
        self.known.push(known);
        self.now.insert(pid, Some(self.known.len() - 1));
        self.known.len() - 1
    }

    /// Adds the processes that the targets have begun before.
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

    /// A process began, as a copy of its parent.
    pub(super) fn began(&mut self, pid: Pid, parent: Pid) {
        self.parents.insert(pid, parent);
        self.now.remove(&pid);
    }

    /// A process is about to execute another program, or has just done so.
    pub(super) fn executes(&mut self, pid: Pid) {
        let ahead = Ahead { since: Instant::now(), known: self.open(pid) };
        self.ahead.entry(pid).or_default().push_back(ahead);
    }

    /// A process executed another program: samples from now on are of that. Returns its index, if it could be looked at.
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

    /// What is left out, in sentences.
    pub(super) fn left_out(&self) -> Vec<String> {
        left_out(&self.known, &self.files)
    }

    /// What is known of the process of a sample; it is looked at where it is a new one.
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
        // It has ended. If it executed nothing else, its code was that of its parent.
        let parent = self.parents.get(&sample.pid).and_then(|parent| self.now.get(parent).copied().flatten());
        self.now.insert(sample.pid, parent);
        parent
    }

    /// Looks at what a process executes now; returns its index.
    pub(super) fn look(&mut self, pid: Pid) -> Option<usize> {
        self.open(pid).map(|known| self.add(pid, known))
    }

    /// Looks again at what has just begun: the kernel was not done with it, or Go was not, and it may not be there any more
    /// when the first sample of it is told. Says whether there is more to come.
    pub(super) fn look_ahead(&mut self) -> bool {
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut more = false;
        let others = if ahead.is_empty() { 0 } else { known::tables(&self.known) };
        for (&pid, programs) in &mut ahead {
            // What should have been told long ago was lost.
            programs.retain(|ahead| ahead.since.elapsed() < LOST);
            // Of the ones before the last there is nothing left to see.
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

/// What is left out of programs and files, in sentences.
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
