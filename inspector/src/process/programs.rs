//! What executables and shared objects are, as far as it can be known at once: each is looked at by whoever meets it first.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use symbols::image::{Image, ImageError};
use symbols::program::{self, GoProgram};

use super::executable::{Budget, Executable, FileId};
use super::maps::Mapping;
use super::{Process, crew};
use crate::patience::Waiter;

/// What is known about an executable.
#[derive(Debug)]
pub(super) struct RecognisedProgram {
    /// The Go program that it is, or why it is none.
    pub(super) result: Result<Arc<GoProgram>, NotGo>,
    /// Linked to be loaded anywhere.
    pub(super) position_independent: bool,
    /// It can load shared objects.
    pub(super) interpreted: bool,
    /// No directory holds it any more.
    pub(super) deleted: bool,
    bytes_read: u64,
    /// Not all of it could be read within the budget.
    pub(super) cut_short: bool,
}

#[derive(Debug)]
pub(super) enum NotGo {
    /// It is no image that can be read.
    Image(ImageError),
    /// It is one without Go code.
    NoGo,
}

/// Looks at an executable, within what all together may cost where that is given.
pub(super) fn recognise(executable: Executable, budget: Option<&Arc<Budget>>) -> RecognisedProgram {
    let (executable, short) = match budget {
        Some(budget) => executable.within(budget),
        None => (executable, Arc::default()),
    };
    let deleted = executable.is_deleted();
    let read = executable.read_counter();
    let (mut position_independent, mut interpreted) = (false, false);
    let result = match Image::parse(Box::new(executable)) {
        Ok(image) => {
            position_independent = image.is_position_independent();
            interpreted = image.is_interpreted();
            program::identify(&image).map(Arc::new).ok_or(NotGo::NoGo)
        }
        Err(e) => Err(NotGo::Image(e)),
    };
    let (bytes_read, cut_short) = (read.load(Ordering::Relaxed), short.load(Ordering::Relaxed));
    RecognisedProgram { result, position_independent, interpreted, deleted, bytes_read, cut_short }
}

/// Each executable is looked at once, by whoever meets it first; the others wait for that.
#[derive(Default)]
pub(super) struct Executables {
    files: Mutex<HashMap<FileId, Arc<Slot>>>,
    /// Shared objects by what /proc/PID/maps calls them, which needs no file to be opened.
    mapped: Mutex<HashMap<MappedId, Arc<Slot>>>,
    /// For what is one of many.
    budget: Option<Arc<Budget>>,
}

type MappedId = ((u32, u32), u64);

/// What is known about an executable, once somebody has looked at it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    known: OnceLock<RecognisedProgram>,
    /// Who looks at it now.
    looks: Mutex<Option<Waiter>>,
    done: Condvar,
}

impl Slot {
    /// `None` where it was not looked at, or whoever does waits for it.
    pub(super) fn get(&self) -> Option<&RecognisedProgram> {
        self.known.get()
    }

    /// Looks at it, or waits for who does; not for one that waits itself, for what does not come.
    fn fill(&self, look: impl FnOnce() -> RecognisedProgram) {
        const TICK: Duration = Duration::from_millis(50);
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(other) = &*looks {
            if other.waits().is_some_and(|waited| waited >= crew::STUCK) {
                return;
            }
            (looks, _) = self.done.wait_timeout(looks, TICK).unwrap_or_else(PoisonError::into_inner);
        }
        if self.known.get().is_some() {
            return;
        }
        *looks = Some(Waiter::ours());
        drop(looks);
        self.known.get_or_init(look);
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.done.notify_all();
    }
}

impl Executables {
    /// Nothing is known yet, and so much may be read.
    pub(super) fn within(budget: Budget) -> Self {
        Executables { budget: Some(Arc::new(budget)), ..Executables::default() }
    }

    /// Whether nothing more may be begun.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_spent())
    }

    /// What is known of the executable of a process.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn of(&self, process: &Process) -> io::Result<Arc<Slot>> {
        let known = self.slot(process.executable_id()?);
        if known.get().is_some() {
            return Ok(known);
        }
        let executable = process.raw_executable()?;
        // It may have executed another program in between.
        let known = self.slot(executable.id());
        known.fill(|| recognise(executable, self.budget.as_ref()));
        Ok(known)
    }

    /// What is known of a file that a process has mapped.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn of_mapping(&self, process: &Process, mapping: &Mapping) -> io::Result<Arc<Slot>> {
        let id = (mapping.device, mapping.inode);
        if let Some(known) = self.mapped.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        let executable = process.open_mapping(mapping)?;
        let known = self.slot(executable.id());
        known.fill(|| recognise(executable, self.budget.as_ref()));
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&known));
        Ok(known)
    }

    /// The lock is free while an executable is read.
    fn slot(&self, id: FileId) -> Arc<Slot> {
        Arc::clone(self.files.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }

    /// How many executables there were, and how many bytes of them were read.
    pub(super) fn cost(&self) -> (usize, u64) {
        let map = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        (
            map.values().filter(|k| k.get().is_some()).count(),
            map.values().filter_map(|k| k.get()).map(|k| k.bytes_read).sum(),
        )
    }
}
