//! List of profile buckets (`runtime.bucket`, linked by `allnext`).
//!
//! Buckets are never freed or moved. A new bucket joins the list at the head, and everything but its record
//! is constant from then on. Therefore all buckets reachable from a head can be read later without a race.
//! Buckets lie close together (`persistentalloc`), so the list is read by pages and not one by one.

use std::collections::{HashMap, HashSet};

use symbols::addr::RuntimeAddr;
use symbols::layout::Table;

use super::BucketsError;
use crate::arch::{Machine, page_size};
use crate::memory::{Memory, Span};
use crate::runtime::record::RecordError;
use crate::runtime::release::GoRelease;
use crate::runtime::view::View;

/// Maximum number of buckets in a list. Each is a different stack or size; a program profiled for weeks has
/// fewer.
const MAX_BUCKETS: usize = 1 << 19;
/// Maximum number of stack entries in all buckets of a list.
const MAX_ENTRIES: usize = 8 << 20;
/// Maximum number of bytes read for one list, including gaps between buckets.
const MAX_BYTES: usize = 2 << 30;
/// Maximum number of cached pages.
const MAX_PAGES: usize = 8 << 10;
/// Number of pages read at once.
const CLUSTER: u64 = 16;

/// Type of a bucket (`runtime.bucketType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BucketKind {
    Memory = 1,
    Block = 2,
    Mutex = 3,
}

/// Profile bucket and the bytes of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Address of the bucket.
    pub(super) at: u64,
    /// Size of the objects in bytes, in a list of allocations.
    pub(super) size: u64,
    pub(super) stack: Vec<u64>,
    pub(super) record: Vec<u8>,
}

/// Field offsets of a `runtime.bucket`.
struct Header {
    size: usize,
    allnext: usize,
    typ: usize,
    hash: usize,
    object_size: usize,
    nstk: usize,
}

impl Header {
    fn of(table: &Table) -> Result<Self, RecordError> {
        let of = "runtime.bucket";
        let layout = table.get(of).ok_or_else(|| RecordError::NoLayout { of: of.to_owned() })?;
        let field = |field: &str| {
            let missing = || RecordError::NoField { of: of.to_owned(), field: field.to_owned() };
            let place = layout.field(field).filter(|f| f.size == 8 && f.offset + 8 <= layout.size);
            usize::try_from(place.ok_or_else(missing)?.offset).map_err(|_| missing())
        };
        Ok(Header {
            size: usize::try_from(layout.size).unwrap_or_default(),
            allnext: field("allnext")?,
            typ: field("typ")?,
            hash: field("hash")?,
            object_size: field("size")?,
            nstk: field("nstk")?,
        })
    }
}

/// Reads a list of buckets of a runtime, as [`read`] does.
pub(super) fn of_runtime(
    view: &View,
    memory: &dyn Memory,
    list: RuntimeAddr,
    kind: BucketKind,
    record: usize,
) -> Result<Vec<Bucket>, BucketsError> {
    read(memory, &view.table, view.release, view.machine, list, kind, record)
}

/// Reads the list with its head at `list`, newest bucket first. Each bucket has a record of `record` bytes.
fn read(
    memory: &dyn Memory,
    table: &Table,
    release: GoRelease,
    machine: &dyn Machine,
    list: RuntimeAddr,
    kind: BucketKind,
    record: usize,
) -> Result<Vec<Bucket>, BucketsError> {
    let header = Header::of(table)?;
    let damaged = |why: String| BucketsError::Damaged { list, why };
    let mut pages = Pages { memory, size: page_size(), pages: HashMap::new(), read: 0 };
    let mut seen = HashSet::new();
    let mut buckets = Vec::new();
    let mut entries = 0usize;
    let mut at = memory.word(list)?;
    let (mut head, mut rest) = (vec![0; header.size], Vec::new());
    while at != 0 {
        if !at.is_multiple_of(8) || at >= machine.max_addr() {
            return Err(damaged(format!("{at:#x} is no address of a bucket")));
        }
        if !seen.insert(at) {
            return Err(damaged(format!("it comes back to {at:#x}")));
        }
        pages.read(at, &mut head, list)?;
        let word = |offset: usize| {
            let bytes = head.get(offset..offset + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (typ, size, depth) = (word(header.typ), word(header.object_size), word(header.nstk));
        if typ != kind as u64 {
            return Err(damaged(format!("the bucket at {at:#x} is of type {typ}")));
        }
        if depth > release.max_bucket_depth() {
            return Err(damaged(format!("the bucket at {at:#x} has a stack of {depth}")));
        }
        let depth = usize::try_from(depth).unwrap_or_default();
        entries += depth;
        if buckets.len() >= MAX_BUCKETS || entries > MAX_ENTRIES {
            return Err(BucketsError::TooMany(list));
        }
        rest.resize(8 * depth + record, 0);
        pages.read(at + header.size as u64, &mut rest, list)?;
        let (stack, record) = rest.split_at(8 * depth);
        let stack: Vec<u64> =
            stack.chunks_exact(8).filter_map(|w| w.try_into().ok().map(u64::from_le_bytes)).collect();
        if hash(&stack, size) != word(header.hash) {
            return Err(damaged(format!("the bucket at {at:#x} has a hash that is not that of its stack")));
        }
        buckets.push(Bucket { at, size, stack, record: record.to_vec() });
        at = word(header.allnext);
    }
    Ok(buckets)
}

/// Computes the hash of a bucket (`runtime.stkbucket`).
pub(super) fn hash(stack: &[u64], size: u64) -> u64 {
    let mut h = 0u64;
    let mut add = |word: u64| {
        h = h.wrapping_add(word);
        h = h.wrapping_add(h << 10);
        h ^= h >> 6;
    };
    stack.iter().copied().for_each(&mut add);
    add(size);
    h = h.wrapping_add(h << 3);
    h ^ (h >> 11)
}

/// Cached pages of the target, with the contents of the first access.
struct Pages<'a> {
    memory: &'a dyn Memory,
    /// Page size in bytes.
    size: u64,
    pages: HashMap<u64, Vec<u8>>,
    read: usize,
}

impl Pages<'_> {
    fn read(&mut self, at: u64, buf: &mut [u8], list: RuntimeAddr) -> Result<(), BucketsError> {
        let mut done = 0;
        while done < buf.len() {
            let here = at + done as u64;
            let within = usize::try_from(here % self.size).unwrap_or_default();
            let len = (buf.len() - done).min(self.size as usize - within);
            let page = self.page(here / self.size, list)?;
            match (page, buf.get_mut(done..done + len)) {
                (Some(page), Some(buf)) => match page.get(within..within + len) {
                    Some(bytes) => buf.copy_from_slice(bytes),
                    None => return Err(BucketsError::Memory(unmapped(here))),
                },
                // The whole page is unreadable; the requested part may still be readable.
                (None, Some(buf)) => self.memory.read(RuntimeAddr(here), buf)?,
                (_, None) => return Err(BucketsError::Memory(unmapped(here))),
            }
            done += len;
        }
        Ok(())
    }

    /// Returns a page if all of it is readable. Neighbouring pages are read in the same call.
    fn page(&mut self, number: u64, list: RuntimeAddr) -> Result<Option<&[u8]>, BucketsError> {
        if !self.pages.contains_key(&number) {
            if self.pages.len() >= MAX_PAGES {
                self.pages.clear();
            }
            self.read += (CLUSTER * self.size) as usize;
            if self.read > MAX_BYTES {
                return Err(BucketsError::TooMany(list));
            }
            let first = number - number % CLUSTER;
            let wanted: Vec<u64> = (first..first + CLUSTER).filter(|n| !self.pages.contains_key(n)).collect();
            let size = self.size as usize;
            let spans: Vec<Span> = wanted.iter().map(|n| Span { addr: n * self.size, len: size }).collect();
            let (mut bytes, mut failed) = (vec![0; spans.len() * size], Vec::new());
            self.memory.read_spans(&spans, &mut bytes, &mut failed)?;
            for (i, (number, page)) in wanted.iter().zip(bytes.chunks_exact(size)).enumerate() {
                let page = if failed.contains(&i) { Vec::new() } else { page.to_vec() };
                self.pages.insert(*number, page);
            }
        }
        Ok(self.pages.get(&number).map(Vec::as_slice).filter(|page| !page.is_empty()))
    }
}

fn unmapped(at: u64) -> crate::memory::MemoryError {
    crate::memory::MemoryError::Unmapped(RuntimeAddr(at))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::arch::host::MACHINE;
    use crate::memory::RecordedMemory;
    use symbols::version::GoVersion;

    pub(crate) const LIST: RuntimeAddr = RuntimeAddr(0x1000);

    pub(crate) fn table(minor: u32) -> Table {
        symbols::layout::lookup(symbols::image::Arch::Amd64, &GoVersion::release(minor, 0)).unwrap().table
    }

    /// Builds the bytes of a bucket; all releases share this layout.
    pub(crate) fn bucket(next: u64, kind: BucketKind, size: u64, stack: &[u64], record: &[u64]) -> Vec<u8> {
        let head = [0, next, kind as u64, hash(stack, size), size, stack.len() as u64];
        head.iter().chain(stack).chain(record).flat_map(|w| w.to_le_bytes()).collect()
    }

    fn read_blocks(memory: &RecordedMemory, minor: u32) -> Result<Vec<Bucket>, BucketsError> {
        read(memory, &table(minor), GoRelease::of_minor(minor), MACHINE, LIST, BucketKind::Block, 16)
    }

    fn head(at: u64) -> RecordedMemory {
        RecordedMemory::default().with(LIST.0, at.to_le_bytes().to_vec())
    }

    fn why(result: Result<Vec<Bucket>, BucketsError>) -> String {
        match result {
            Err(BucketsError::Damaged { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn newest_first() {
        let memory = head(0x2000)
            .with(0x2000, bucket(0x3000, BucketKind::Block, 0, &[1, 2], &[3, 4]))
            .with(0x3000, bucket(0, BucketKind::Block, 0, &[], &[5, 6]));
        let found = read_blocks(&memory, 24).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].stack, [1, 2]);
        assert_eq!(found[1].record[..8], 5u64.to_le_bytes());
        assert_eq!(read_blocks(&head(0), 24), Ok(Vec::new()));
    }

    #[test]
    fn across_pages() {
        let mut pages = vec![0; 3 * page_size() as usize];
        let one = bucket(0, BucketKind::Block, 0, &[7; 100], &[1, 2]);
        pages[4000..4000 + one.len()].copy_from_slice(&one);
        let found = read_blocks(&head(0x10_0000 + 4000).with(0x10_0000, pages), 23).unwrap();
        assert_eq!(found[0].stack, [7; 100]);
    }

    #[test]
    fn hostile_lists() {
        let cycle = head(0x2000)
            .with(0x2000, bucket(0x3000, BucketKind::Block, 0, &[1], &[0, 0]))
            .with(0x3000, bucket(0x2000, BucketKind::Block, 0, &[2], &[0, 0]));
        assert_eq!(why(read_blocks(&cycle, 24)), "it comes back to 0x2000");
        for wild in [8, 0x2001, u64::MAX - 7, MACHINE.max_addr()] {
            assert!(read_blocks(&head(wild), 24).is_err(), "{wild:#x}");
        }
        let mut deep = bucket(0, BucketKind::Block, 0, &[1], &[0, 0]);
        deep[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(why(read_blocks(&head(0x2000).with(0x2000, deep), 24)).contains("a stack of"));
        let thirty_three = bucket(0, BucketKind::Block, 0, &[1; 33], &[0, 0]);
        assert!(why(read_blocks(&head(0x2000).with(0x2000, thirty_three.clone()), 22)).contains("of 33"));
        assert!(read_blocks(&head(0x2000).with(0x2000, thirty_three), 23).is_ok());
        let other = bucket(0, BucketKind::Mutex, 0, &[1], &[0, 0]);
        assert!(why(read_blocks(&head(0x2000).with(0x2000, other), 24)).contains("type 3"));
        let mut changed = bucket(0, BucketKind::Block, 0, &[1], &[0, 0]);
        changed[48] = 9;
        assert!(why(read_blocks(&head(0x2000).with(0x2000, changed), 24)).contains("hash"));
        let cut = bucket(0, BucketKind::Block, 0, &[1], &[0]);
        assert!(matches!(read_blocks(&head(0x2000).with(0x2000, cut), 24), Err(BucketsError::Memory(_))));
    }
}
