//! Shortcuts into the middle of long pc-value tables.
//!
//! A pc-value table can only be read from its start. Most tables have a few dozen values, but tables of very
//! large functions have hundreds of thousands. Each step of a chain of inlined calls needs several look-ups.
//! Therefore, the first complete read of a long table keeps every [`STEP`]-th place. The total cost of these
//! reads is limited. Tables of a valid program do not overlap; tables of a damaged one can begin anywhere and
//! share bytes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::pcvalue::{Run, Runs, resumed, runs};
use crate::addr::LinkAddr;

/// Number of values from one kept place to the next. A look-up reads at most twice as many.
const STEP: usize = 256;

/// Pc-value table.
pub(super) struct Table<F> {
    /// Bytes of the table after a number of skipped bytes: at least those of [`STEP`] values, or all up to
    /// the end of the table.
    pub(super) bytes: F,
    /// Link address of the function's start.
    pub(super) entry: LinkAddr,
    /// Unit of pc deltas in bytes. See [`runs`].
    pub(super) quantum: u8,
}

/// Key of a table: its offset, and the index of the function that it is read for.
type Key = (u32, u32);

/// Place in a table: all values before it end at or before `from`.
#[derive(Debug, Clone, Copy)]
struct Place {
    from: LinkAddr,
    value: i32,
    used: usize,
}

/// Kept places of the tables that were read.
#[derive(Debug)]
pub(super) struct Shortcuts {
    kept: RwLock<PlaceCache>,
}

#[derive(Debug)]
struct PlaceCache {
    tables: HashMap<Key, Arc<[Place]>>,
    /// Number of values that may still be read to find places.
    left: usize,
}

impl Shortcuts {
    /// Creates shortcuts for tables with a total size of `bytes` bytes.
    pub(super) fn new(bytes: usize) -> Self {
        // Twice the possible number of values, because each has at least two bytes. Functions can share
        // tables.
        let left = bytes.saturating_add(1 << 16);
        Shortcuts { kept: RwLock::new(PlaceCache { tables: HashMap::new(), left }) }
    }

    /// Returns the value at `pc`, among the first values of the table. `most` returns their number; it is
    /// only called for long tables.
    pub(super) fn value_at<'t>(
        &self,
        table: &Table<impl Fn(usize) -> &'t [u8]>,
        most: impl FnOnce() -> usize,
        key: Key,
        pc: LinkAddr,
    ) -> Option<i32> {
        match holding(runs((table.bytes)(0), table.entry, table.quantum), STEP, pc) {
            Search::Found(run) => return Some(run.value),
            Search::End => return None,
            Search::Beyond => {}
        }
        let most = most();
        let places = self.places(table, most, key)?;
        let index = places.partition_point(|p| p.from <= pc).checked_sub(1)?;
        let place = places.get(index)?;
        let left = most.saturating_sub((index + 1) * STEP);
        let last = Run { value: place.value, end: place.from };
        let rest = resumed((table.bytes)(place.used), last, table.quantum);
        match holding(rest, left.min(STEP), pc) {
            Search::Found(run) => Some(run.value),
            Search::End | Search::Beyond => None,
        }
    }

    /// Returns the places of a table, one after each [`STEP`] values. `None` if too many values would have to
    /// be read.
    fn places<'t>(
        &self,
        table: &Table<impl Fn(usize) -> &'t [u8]>,
        most: usize,
        key: Key,
    ) -> Option<Arc<[Place]>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).tables.get(&key).cloned();
        if kept.is_some() {
            return kept;
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = kept.tables.get(&key) {
            return Some(Arc::clone(places));
        }
        let mut places = Vec::new();
        let (mut from, mut bytes) = (0, (table.bytes)(0));
        let mut values = runs(bytes, table.entry, table.quantum);
        for count in 1..=most {
            kept.left = kept.left.checked_sub(1)?;
            let Some(run) = values.next() else { break };
            if count % STEP == 0 {
                from += bytes.len() - values.remaining();
                places.push(Place { from: run.end, value: run.value, used: from });
                bytes = (table.bytes)(from);
                values = resumed(bytes, run, table.quantum);
            }
        }
        let places: Arc<[Place]> = places.into();
        kept.tables.insert(key, Arc::clone(&places));
        Some(places)
    }
}

enum Search {
    Found(Run),
    /// Table that ends before the address.
    End,
    /// Address beyond the number of values that were read.
    Beyond,
}

fn holding(mut runs: Runs<'_>, most: usize, pc: LinkAddr) -> Search {
    for _ in 0..most {
        match runs.next() {
            Some(run) if pc < run.end => return Search::Found(run),
            Some(_) => {}
            None => return Search::End,
        }
    }
    Search::Beyond
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pclntab::pcvalue::value_at;

    /// Returns a table of `count` values 0, 1, 2 … for two bytes of code each, then the end mark.
    fn long(count: usize) -> Vec<u8> {
        [2u8, 2].repeat(count).into_iter().chain([0]).collect()
    }

    /// Returns a table with the shortest allowed windows.
    fn table<'t>(bytes: &'t [u8], entry: LinkAddr) -> Table<impl Fn(usize) -> &'t [u8]> {
        let window = move |used: usize| {
            let rest = bytes.get(used..).unwrap_or_default();
            rest.get(..2 * 5 * STEP).unwrap_or(rest)
        };
        Table { bytes: window, entry, quantum: 1 }
    }

    fn left(shortcuts: &Shortcuts) -> usize {
        shortcuts.kept.read().unwrap().left
    }

    #[test]
    fn the_same_values_as_from_the_start() {
        let mut bytes = long(1000);
        // Further table after the end mark.
        bytes.extend(long(1000));
        let (entry, shortcuts) = (LinkAddr(0x1000), Shortcuts::new(bytes.len()));
        let table = table(&bytes, entry);
        for at in (0..2200).chain([u64::MAX >> 1]) {
            let pc = entry.plus(at);
            let found = shortcuts.value_at(&table, || 1 << 20, (1, 1), pc);
            assert_eq!(found, value_at(&bytes, entry, pc, 1), "{at}");
            assert_eq!(found, i32::try_from(at / 2).ok().filter(|v| *v < 1000), "{at}");
        }
    }

    #[test]
    fn a_long_table_is_read_once() {
        let bytes = long(100_000);
        let (entry, shortcuts) = (LinkAddr(0x1000), Shortcuts::new(bytes.len()));
        let table = table(&bytes, entry);
        let before = left(&shortcuts);
        for at in (0..200_000).step_by(500) {
            let found = shortcuts.value_at(&table, || 1 << 20, (1, 1), entry.plus(at));
            assert_eq!(found, Some((at / 2) as i32));
        }
        assert_eq!(before - left(&shortcuts), 100_001);
    }

    #[test]
    fn functions_that_share_a_long_table_use_up_what_may_be_read() {
        let bytes = long(100_000);
        let (entry, shortcuts) = (LinkAddr(0x1000), Shortcuts::new(bytes.len()));
        let table = table(&bytes, entry);
        let pc = entry.plus(150_000);
        let found: Vec<bool> =
            (0..1000).map(|f| shortcuts.value_at(&table, || 1 << 20, (1, f), pc).is_some()).collect();
        assert_eq!(found.iter().filter(|f| **f).count(), 2);
        let places: usize = shortcuts.kept.read().unwrap().tables.values().map(|t| t.len()).sum();
        assert!(places <= 2 * 100_000 / STEP);
        // Remaining abilities at the limit: beginnings of tables can be read, and known places stay known.
        assert_eq!(shortcuts.value_at(&table, || 1 << 20, (1, 999), entry.plus(100)), Some(50));
        assert!(shortcuts.value_at(&table, || 1 << 20, (1, 0), pc).is_some());
    }

    #[test]
    fn no_more_values_than_the_function_has_code() {
        let bytes = long(100_000);
        let (entry, shortcuts) = (LinkAddr(0x1000), Shortcuts::new(bytes.len()));
        let table = table(&bytes, entry);
        let at = |most, pc| shortcuts.value_at(&table, || most, (1, most as u32), entry.plus(pc));
        assert_eq!(at(300, 599), Some(299));
        assert_eq!(at(300, 600), None);
        assert_eq!([at(1000, 1999), at(1000, 2000)], [Some(999), None]);
        let read = bytes.len() + (1 << 16) - left(&shortcuts);
        assert_eq!(read, 1300);
    }
}
