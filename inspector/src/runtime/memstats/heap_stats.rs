//! Heap counters of `runtime.heapStatsDelta`, which the runtime keeps in three parts.

use symbols::layout::Table;

use crate::runtime::batch::unsigned;
use crate::runtime::spans::{CLASSES, size_of_class};

/// Number of parts of the counters (`consistentHeapStats.stats`).
const PARTS: usize = 3;

/// Sum of the parts. A byte counter may be negative in one part, but never in the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeapStats {
    pub(super) committed: u64,
    pub(super) released: u64,
    pub(super) in_heap: u64,
    pub(super) in_stacks: u64,
    pub(super) in_work_bufs: u64,
    /// Bytes of pointer bitmaps. Up to Go 1.24.
    pub(super) in_ptr_scalar_bits: u64,
    pub(super) tiny: u64,
    pub(super) large_alloc: u64,
    pub(super) large_allocs: u64,
    pub(super) small_allocs: [u64; CLASSES],
    pub(super) large_free: u64,
    pub(super) large_frees: u64,
    pub(super) small_frees: [u64; CLASSES],
}

impl HeapStats {
    /// Sums the parts, as `consistentHeapStats.unsafeRead` does. Returns `None` if the layout is unknown.
    pub(super) fn sum(table: &Table, parts: &[u8]) -> Option<Self> {
        let layout = table.get("runtime.heapStatsDelta")?;
        let size = usize::try_from(layout.size).ok().filter(|&size| size > 0)?;
        let parts: Vec<&[u8]> = parts.chunks_exact(size).collect();
        if parts.len() != PARTS {
            return None;
        }
        let words = |name: &str| {
            let field = layout.field(name)?;
            let (at, len) = (usize::try_from(field.offset).ok()?, usize::try_from(field.size).ok()?);
            let mut sums = vec![0u64; len / 8];
            for part in &parts {
                let words = part.get(at..at.checked_add(len)?)?.chunks_exact(8);
                sums.iter_mut()
                    .zip(words)
                    .for_each(|(sum, word)| *sum = sum.wrapping_add(unsigned(word).unwrap_or(0)));
            }
            Some(sums)
        };
        let word = |name: &str| words(name)?.first().copied();
        let classes = |name: &str| <[u64; CLASSES]>::try_from(words(name)?).ok();
        Some(HeapStats {
            committed: word("committed")?,
            released: word("released")?,
            in_heap: word("inHeap")?,
            in_stacks: word("inStacks")?,
            in_work_bufs: word("inWorkBufs")?,
            in_ptr_scalar_bits: word("inPtrScalarBits").unwrap_or(0),
            tiny: word("tinyAllocCount")?,
            large_alloc: word("largeAlloc")?,
            large_allocs: word("largeAllocCount")?,
            small_allocs: classes("smallAllocCount")?,
            large_free: word("largeFree")?,
            large_frees: word("largeFreeCount")?,
            small_frees: classes("smallFreeCount")?,
        })
    }

    fn bytes(counts: &[u64; CLASSES]) -> u64 {
        let of_class = |(class, &count): (usize, &u64)| count.wrapping_mul(size_of_class(class));
        counts.iter().enumerate().map(of_class).fold(0, u64::wrapping_add)
    }

    /// Returns the bytes allocated since the start.
    pub(super) fn total_alloc(&self) -> u64 {
        self.large_alloc.wrapping_add(Self::bytes(&self.small_allocs))
    }

    /// Returns the bytes freed since the start.
    pub(super) fn total_free(&self) -> u64 {
        self.large_free.wrapping_add(Self::bytes(&self.small_frees))
    }

    /// Returns the number of objects allocated since the start. Objects that share a tiny block count
    /// individually.
    pub(super) fn mallocs(&self) -> u64 {
        let small = self.small_allocs.iter().copied().fold(0, u64::wrapping_add);
        self.large_allocs.wrapping_add(small).wrapping_add(self.tiny)
    }

    /// Returns the number of objects freed since the start. Objects of a tiny block count as freed; only the
    /// block counts as live.
    pub(super) fn frees(&self) -> u64 {
        let small = self.small_frees.iter().copied().fold(0, u64::wrapping_add);
        self.large_frees.wrapping_add(small).wrapping_add(self.tiny)
    }

    /// Returns the bytes of stacks and structures allocated from the heap's address space.
    pub(super) fn beside_heap(&self) -> u64 {
        self.in_stacks.wrapping_add(self.in_work_bufs).wrapping_add(self.in_ptr_scalar_bits)
    }

    /// Returns true if no non-negative counter is negative, and no more was freed than allocated.
    pub(super) fn is_sane(&self) -> bool {
        let positive = [
            self.committed,
            self.released,
            self.in_heap,
            self.in_stacks,
            self.in_work_bufs,
            self.in_ptr_scalar_bits,
            self.tiny,
            self.large_alloc,
            self.large_allocs,
        ];
        positive.iter().all(|&value| i64::try_from(value).is_ok())
            && self.large_free <= self.large_alloc
            && self.large_frees <= self.large_allocs
            && self.small_frees.iter().zip(&self.small_allocs).all(|(free, alloc)| free <= alloc)
            && self.small_allocs.iter().all(|&count| count < 1 << 56)
    }
}
