//! Index of runtime functions by name. The search for the runtime's variables, its release and its special
//! places needs these functions. In a large program, they are one in fifty. The index reads each name and
//! each record once, and copies neither.

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher as _, BuildHasherDefault};

use super::Pclntab;
use super::bytes::word;

/// Prefix of all names of runtime functions.
pub(super) const PACKAGE: &[u8] = b"runtime.";

/// Size of a block of the name table in bytes. A bit for each block tells whether a name of the runtime
/// begins in it.
const BLOCK: usize = 64;

/// Maximum number of functions; a runtime has far fewer.
const MAX_FUNCTIONS: usize = 1 << 16;

/// Entry for a function of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: u64,
    index: u32,
    name: u32,
}

/// Index of runtime functions by name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Entries, sorted by hash of the name, then by address.
    entries: Vec<Entry>,
}

impl Named {
    /// Reads the names and the records of a table, and builds the index.
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

    /// Returns the indices of the functions of this name, by address.
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

/// Bit set of the blocks of the name table in which a name of the runtime begins.
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
