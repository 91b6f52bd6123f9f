//! Memory budget of the files of native code: one limit for a command, for all processes and all mapped files
//! together.
//!
//! Tables that were not used for the longest time are released first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Weak;

use super::files::CodeFile;

/// Maximum number of bytes in memory.
pub(super) const LIMIT: u64 = 1 << 30;
/// Maximum number of bytes loaded by a command in its life; released tables may be loaded again.
const MAX_LOADED: u64 = 16 << 30;
/// Maximum size of the memory maps of all processes together, in bytes.
const MAX_MAPS: u64 = 256 << 20;
/// Maximum number of files that are named as left out.
const MAX_NAMED: usize = 5;

/// Use of the limits so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held: Cell<u64>,
    loaded: Cell<u64>,
    maps: Cell<u64>,
    /// Number of mappings that were left out.
    unmapped: Cell<u64>,
    clock: Cell<u64>,
    files: RefCell<Vec<Weak<CodeFile>>>,
    left_out: RefCell<BTreeSet<Vec<u8>>>,
}

impl Budget {
    /// Registers a file that may be asked to release its tables.
    pub(super) fn register(&self, file: Weak<CodeFile>) {
        self.files.borrow_mut().push(file);
    }

    /// Returns a number that is higher than all before.
    pub(super) fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Makes room for `size` bytes to be loaded. Returns true if there is room.
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

    /// Records the present size of a table; `place` holds its previous size.
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

    /// Returns true and takes the room if mappings of `size` bytes fit; otherwise counts them as left out.
    pub(super) fn take_maps(&self, size: u64, number: usize) -> bool {
        let maps = self.maps.get().saturating_add(size);
        if maps > MAX_MAPS {
            self.unmapped.set(self.unmapped.get().saturating_add(number as u64));
            return false;
        }
        self.maps.set(maps);
        true
    }

    /// Records that lines and inlined functions of a file, or more, are not shown.
    pub(super) fn leave_out(&self, path: &[u8]) {
        let mut left_out = self.left_out.borrow_mut();
        if !left_out.contains(path) {
            left_out.insert(path.to_vec());
        }
    }

    /// Describes in sentences what was left out.
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
