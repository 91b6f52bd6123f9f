//! The functions of the runtime by name. Its variables, its release and its special places are found by them; those of a
//! large program are one in fifty, so that they are found with a look at each name and each record, and no copy of either.

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher as _, BuildHasherDefault};

use super::Pclntab;
use super::bytes::word;

/// How all their names begin.
pub(super) const PACKAGE: &[u8] = b"runtime.";

/// Names are told apart in blocks of so many bytes, by whether one of the runtime begins there.
const BLOCK: usize = 64;

/// Many times what a runtime has.
const MAX_FUNCTIONS: usize = 1 << 16;

/// A function of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: u64,
    index: u32,
    name: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// By hash of the name, then by address.
    entries: Vec<Entry>,
}

impl Named {
    /// Looks through the names and the records of a table.
    pub(super) fn find(table: &Pclntab) -> Self {
        let Ok(pcln) = usize::try_from(table.header.pcln) else { return Named::default() };
        let blocks = Blocks::of(table);
        let mut records = table.bytes.walk();
        let mut name_of = |entry: &[u8]| {
            let record = pcln.checked_add(word(entry, 4)? as usize)?;
            let name = records.u32(record.checked_add(4)?)?;
            (blocks.has(name) && table.name_starts_with(name, PACKAGE)).then_some(name)
        };
        let mut entries = Vec::new();
        let end = pcln.saturating_add(8 * table.header.nfunc as usize);
        table.bytes.scan(pcln..end, 0, |at, bytes| {
            for (entry, index) in bytes.chunks_exact(8).zip((at - pcln) / 8..) {
                let (Some(name), Ok(index)) = (name_of(entry), u32::try_from(index)) else { continue };
                if entries.len() < MAX_FUNCTIONS {
                    entries.push(Entry { hash: hash(table.name_at(name)), index, name });
                }
            }
        });
        entries.sort_unstable();
        Named { entries }
    }

    /// Indices of the functions of this name, by address.
    pub(super) fn get(&self, table: &Pclntab, name: &[u8]) -> impl Iterator<Item = u32> {
        let hash = hash(name);
        let from = self.entries.partition_point(|entry| entry.hash < hash);
        let same = self.entries.get(from..).unwrap_or_default();
        let same = same.iter().take_while(move |entry| entry.hash == hash);
        same.filter(move |entry| table.name_at(entry.name) == name).map(|entry| entry.index)
    }
}

fn hash(name: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

/// In which blocks of the name table a name of the runtime begins.
struct Blocks(Vec<u64>);

impl Blocks {
    fn of(table: &Pclntab) -> Self {
        let names = table.names();
        let mut bits = vec![0u64; names.len().div_ceil(BLOCK).div_ceil(64)];
        let mut note = |at: usize| {
            let block = at / BLOCK;
            if let Some(bits) = bits.get_mut(block / 64) {
                *bits |= 1 << (block % 64);
            }
        };
        if table.name_starts_with(0, PACKAGE) {
            note(0);
        }
        let begins = memchr::memmem::Finder::new(b"\0runtime.");
        table.bytes.scan(names.clone(), begins.needle().len() - 1, |at, bytes| {
            for hit in begins.find_iter(bytes) {
                note(at + hit + 1 - names.start);
            }
        });
        Blocks(bits)
    }

    fn has(&self, name: u32) -> bool {
        let block = name as usize / BLOCK;
        self.0.get(block / 64).is_some_and(|bits| bits & (1 << (block % 64)) != 0)
    }
}
