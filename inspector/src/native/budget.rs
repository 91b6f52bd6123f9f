//! What the files of native code take in memory, all together: there is one limit for a command, however many processes it
//! looks at, and however many files those have mapped. What was not used for longest goes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Weak;

use super::files::CodeFile;

/// Bytes in memory.
pub(super) const LIMIT: u64 = 1 << 30;
/// Bytes that are loaded in the life of a command, as what goes may be asked for again.
const MAX_LOADED: u64 = 16 << 30;
/// Bytes of memory maps, of all processes together.
const MAX_MAPS: u64 = 256 << 20;
/// Files that are named as left out.
const MAX_NAMED: usize = 5;

/// What is left of the limits.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held: Cell<u64>,
    loaded: Cell<u64>,
    maps: Cell<u64>,
    /// Mappings that were left out.
    unmapped: Cell<u64>,
    clock: Cell<u64>,
    files: RefCell<Vec<Weak<CodeFile>>>,
    left_out: RefCell<BTreeSet<Vec<u8>>>,
}

impl Budget {
    /// One more file may be asked to let go of what it holds.
    pub(super) fn register(&self, file: Weak<CodeFile>) {
        self.files.borrow_mut().push(file);
    }

    /// A number that is higher than all before.
    pub(super) fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Makes room for so many bytes that are to be loaded. Says whether there is any.
    pub(super) fn make_room(&self, size: u64) -> bool {
        let loaded = self.loaded.get().saturating_add(size);
        if size > LIMIT || loaded > MAX_LOADED {
            return false;
        }
        self.trim(LIMIT - size);
        let fits = self.held.get() <= LIMIT - size;
        if fits {
            self.loaded.set(loaded);
        }
        fits
    }

    /// Somebody holds so many bytes now, after so many before.
    pub(super) fn hold(&self, place: &Cell<u64>, now: u64) {
        let before = place.replace(now);
        self.held.set(self.held.get().saturating_sub(before).saturating_add(now));
        self.trim(LIMIT);
    }

    fn trim(&self, limit: u64) {
        if self.held.get() <= limit {
            return;
        }
        let files: Vec<_> = self.files.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut by_use: Vec<_> = files.iter().filter(|file| file.held() > 0).collect();
        by_use.sort_by_key(|file| file.used());
        for file in by_use {
            if self.held.get() <= limit {
                break;
            }
            let freed = file.let_go();
            self.held.set(self.held.get().saturating_sub(freed));
        }
    }

    /// Whether there is room for mappings of so many bytes, which then are taken from it; else how many they are is noted.
    pub(super) fn take_maps(&self, size: u64, number: usize) -> bool {
        let maps = self.maps.get().saturating_add(size);
        if maps > MAX_MAPS {
            self.unmapped.set(self.unmapped.get().saturating_add(number as u64));
            return false;
        }
        self.maps.set(maps);
        true
    }

    /// Lines and inlined functions of a file, or more, are not shown.
    pub(super) fn leave_out(&self, path: &[u8]) {
        let mut left_out = self.left_out.borrow_mut();
        if !left_out.contains(path) {
            left_out.insert(path.to_vec());
        }
    }

    /// What was left out, in sentences.
    pub(super) fn notes(&self) -> Vec<String> {
        let left_out = self.left_out.borrow();
        let mut notes = Vec::new();
        if !left_out.is_empty() {
            let names =
                left_out.iter().take(MAX_NAMED).map(|path| String::from_utf8_lossy(path).into_owned());
            let mut names = names.collect::<Vec<_>>().join(", ");
            if left_out.len() > MAX_NAMED {
                names.push_str(&format!(" and {} more", left_out.len() - MAX_NAMED));
            }
            notes.push(format!(
                "without lines and inlined functions, as debug information may take {} MiB of memory: {names}",
                LIMIT >> 20
            ));
        }
        if self.unmapped.get() > 0 {
            notes.push(format!(
                "{} mappings of code are left out, as those of all processes may take {} MiB",
                self.unmapped.get(),
                MAX_MAPS >> 20
            ));
        }
        notes
    }
}
