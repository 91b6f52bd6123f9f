//! Cache of what executables and shared objects are. Each file is examined once, by the first
//! thread that meets it.

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

/// Facts about an executable.
#[derive(Debug)]
pub(super) struct RecognisedProgram {
    /// Go program in the executable, or the reason why there is none.
    pub(super) result: Result<Arc<GoProgram>, NotGo>,
    /// True if the file is position-independent.
    pub(super) position_independent: bool,
    /// True if the program has an interpreter, so that it can load shared objects.
    pub(super) interpreted: bool,
    /// True if no directory holds the file any more.
    pub(super) deleted: bool,
    bytes_read: u64,
    /// True if not all of the file could be read within the budget.
    pub(super) cut_short: bool,
}

#[derive(Debug)]
pub(super) enum NotGo {
    /// The file is no image that can be parsed.
    Image(ImageError),
    /// The image has no Go code.
    NoGo,
}

/// Examines an executable, within `budget` if one is given.
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

/// Cache of examined executables. The first thread that meets a file examines it; others wait for
/// the result.
#[derive(Default)]
pub(super) struct Executables {
    files: Mutex<HashMap<FileId, Arc<Slot>>>,
    /// Shared objects by device and inode of /proc/PID/maps, so that no file has to be opened.
    mapped: Mutex<HashMap<MappedId, Arc<Slot>>>,
    /// Budget for a search of many processes.
    budget: Option<Arc<Budget>>,
}

type MappedId = ((u32, u32), u64);

/// Facts about an executable, once it has been examined.
#[derive(Debug, Default)]
pub(super) struct Slot {
    known: OnceLock<RecognisedProgram>,
    /// Handle of the thread that examines the file now.
    looks: Mutex<Option<Waiter>>,
    done: Condvar,
}

impl Slot {
    /// Facts, or `None` if the file was not examined, or its examination blocks.
    pub(super) fn get(&self) -> Option<&RecognisedProgram> {
        self.known.get()
    }

    /// Examines the file, or waits for the thread that does. Does not wait for a thread that is
    /// itself blocked for long.
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
    /// Makes an empty cache with a budget for reading.
    pub(super) fn within(budget: Budget) -> Self {
        Executables { budget: Some(Arc::new(budget)), ..Executables::default() }
    }

    /// Returns true if no further reading may begin.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_spent())
    }

    /// Facts about the executable of a process.
    ///
    /// # Errors
    /// Returns an error if the executable cannot be opened.
    pub(super) fn of(&self, process: &Process) -> io::Result<Arc<Slot>> {
        let known = self.slot(process.executable_id()?);
        if known.get().is_some() {
            return Ok(known);
        }
        let executable = process.raw_executable()?;
        // The process may have executed another program in between.
        let known = self.slot(executable.id());
        known.fill(|| recognise(executable, self.budget.as_ref()));
        Ok(known)
    }

    /// Facts about a file that a process has mapped.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
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

    /// Finds or adds the slot of a file. The lock is not held while an executable is read.
    fn slot(&self, id: FileId) -> Arc<Slot> {
        Arc::clone(self.files.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }

    /// Number of examined executables, and number of bytes read from them.
    pub(super) fn cost(&self) -> (usize, u64) {
        let map = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        (
            map.values().filter(|k| k.get().is_some()).count(),
            map.values().filter_map(|k| k.get()).map(|k| k.bytes_read).sum(),
        )
    }
}
