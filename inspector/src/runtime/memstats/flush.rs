//! Per-P caches. `runtime.ReadMemStats` flushes them first (`flushallmcaches`). From outside, the effect of
//! the flush is computed; nothing is written.
//!
//! * `mcache.releaseAll`: counts objects that were allocated from the cached spans (`allocCount` minus
//!   `allocCountBeforeCache`), and objects in tiny blocks. Before Go 1.19 the whole span was counted when the
//!   cache took it, so the slots still free are subtracted.
//! * `stackcache_clear`: returns free stacks to their spans. A span without stacks returns to the heap, unless
//!   a collection is in progress.

use std::collections::{BTreeMap, BTreeSet};

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Table};

use super::sources::{Heap, Sources};
use crate::memory::{Memory, MemoryError};
use crate::runtime::batch::{Batch, Ticket, unsigned};
use crate::runtime::plausible::is_heap_pointer;
use crate::runtime::source::SourceError;
use crate::runtime::spans::{CLASSES, MSpan, PAGE, SPAN_CLASSES, SpanFields, state};

/// Field offsets of a cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheFields {
    size: usize,
    alloc: Field,
    tiny_allocs: Field,
    stack_cache: Field,
    /// Size of one list of stacks in bytes. `list_head` is the offset of its head.
    list_size: usize,
    list_head: usize,
    /// Offset of `heapArena.spans`.
    arena_spans: u64,
}

impl CacheFields {
    pub(super) fn from_table(table: &Table) -> Option<Self> {
        let layout = table.get("runtime.mcache").filter(|l| l.size <= 1 << 16)?;
        let list = table.get("runtime.stackfreelist").filter(|l| (8..=64).contains(&l.size))?;
        let usize_of = |value: u64| usize::try_from(value).ok();
        Some(CacheFields {
            size: usize_of(layout.size)?,
            alloc: layout.field("alloc").filter(|f| f.size == 8 * SPAN_CLASSES as u64)?,
            tiny_allocs: layout.field("tinyAllocs")?,
            stack_cache: layout.field("stackcache")?,
            list_size: usize_of(list.size)?,
            list_head: usize_of(list.field("list")?.offset)?,
            arena_spans: table.field("runtime.heapArena", "spans")?.offset,
        })
    }
}

/// Span that a P allocates from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) span: MSpan,
    /// Span class, given by the index in the cache.
    pub(super) span_class: usize,
}

/// Span with free stacks cached by Ps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StackSpan {
    pub(super) span: MSpan,
    pub(super) kept: u64,
}

/// Contents of all caches.
#[derive(Debug, Default)]
pub(super) struct Caches {
    pub(super) spans: Vec<Cached>,
    pub(super) stacks: Vec<StackSpan>,
    pub(super) tiny: u64,
}

/// Maximum number of stacks in a list. A cache holds at most 32 KiB of each of four stack sizes, the
/// smallest of 2 KiB (`_StackCacheSize`).
const MAX_STACKS: usize = 64;
/// Size of a heap arena: 64 MiB, in a linear address space of 48 bits (`runtime.arenaIndex`).
const ARENA: u64 = 64 << 20;
const ARENAS: u64 = 1 << 22;

/// Returns true for the runtime's dummy span, which has none of these fields set.
fn is_dummy(span: &MSpan) -> bool {
    span.start == 0 && span.nelems == 0 && span.npages == 0
}

impl Caches {
    /// Reads the caches at `addrs`, the spans in them, and the spans of their stacks.
    pub(super) fn read(
        memory: &dyn Memory,
        sources: &Sources,
        heap: &Heap,
        addrs: &[u64],
    ) -> Result<Self, SourceError> {
        let fields = &sources.caches;
        let mut batch = Batch::default();
        let tickets: Vec<Ticket> = addrs.iter().map(|&at| batch.add(RuntimeAddr(at), fields.size)).collect();
        let pieces = batch.read(memory)?;
        let mut caches = Caches::default();
        let (mut held, mut heads) = (Vec::new(), Vec::new());
        for ticket in tickets {
            let bytes =
                pieces.get(ticket).ok_or_else(|| SourceError::implausible("a P's cache cannot be read"))?;
            let words = |field: Field| {
                let at = usize::try_from(field.offset).unwrap_or(usize::MAX);
                let len = usize::try_from(field.size).unwrap_or(0);
                bytes.get(at..at.saturating_add(len)).unwrap_or_default()
            };
            caches.tiny = caches.tiny.wrapping_add(unsigned(words(fields.tiny_allocs)).unwrap_or(0));
            let pointers = words(fields.alloc).chunks_exact(8).filter_map(unsigned);
            held.extend(pointers.enumerate());
            let lists = words(fields.stack_cache).chunks_exact(fields.list_size);
            heads.extend(lists.filter_map(|l| unsigned(l.get(fields.list_head..fields.list_head + 8)?)));
        }
        caches.spans = cached(memory, &sources.spans, &held)?;
        caches.stacks = stacks(memory, sources, heap, heads)?;
        Ok(caches)
    }

    /// Returns the number of objects of each class that were allocated from cached spans and are not counted
    /// yet, and their bytes. From Go 1.19 no number is negative.
    pub(super) fn allocated(&self) -> ([u64; CLASSES], u64) {
        let (mut counts, mut bytes) = ([0u64; CLASSES], 0u64);
        for Cached { span, .. } in &self.spans {
            let count = match span.before_cache {
                Some(before) => span.alloc_count.wrapping_sub(before),
                None => span.alloc_count.wrapping_sub(span.nelems),
            };
            if let Some(sum) = counts.get_mut(span.class()) {
                *sum = sum.wrapping_add(count);
            }
            bytes = bytes.wrapping_add(count.wrapping_mul(span.elem_size));
        }
        (counts, bytes)
    }

    /// Returns the number of cached spans from before the current sweep. The runtime would sweep them first
    /// and count the freed objects.
    pub(super) fn stale(&self, sweepgen: u32) -> usize {
        self.spans.iter().filter(|c| c.span.sweepgen == sweepgen.wrapping_add(1)).count()
    }

    /// Returns the number of spans without stacks after the cached stacks return to them, and the bytes of
    /// these spans.
    pub(super) fn free_stacks(&self) -> (usize, u64) {
        let empty = || self.stacks.iter().filter(|s| s.kept >= s.span.alloc_count);
        (empty().count(), empty().map(|s| s.span.bytes()).fold(0, u64::saturating_add))
    }
}

/// Reads the spans `held` (index in a cache, address), and verifies each against its index.
fn cached(
    memory: &dyn Memory,
    fields: &SpanFields,
    held: &[(usize, u64)],
) -> Result<Vec<Cached>, SourceError> {
    let mut batch = Batch::default();
    // Most entries hold the same dummy span.
    let mut tickets: BTreeMap<u64, Ticket> = BTreeMap::new();
    for &(_, addr) in held {
        if !addr.is_multiple_of(8) || addr < 1 << 16 {
            return Err(SourceError::implausible(format!("a P's cache has a span at {addr:#x}")));
        }
        tickets.entry(addr).or_insert_with(|| batch.add(RuntimeAddr(addr), fields.size));
    }
    let pieces = batch.read(memory)?;
    let mut spans = Vec::new();
    let mut seen = BTreeSet::new();
    for &(index, addr) in held {
        let bytes = tickets.get(&addr).and_then(|&ticket| pieces.get(ticket));
        let wrong = || SourceError::implausible(format!("the span at {addr:#x} in a P's cache is none"));
        let span = MSpan::parse(fields, bytes.ok_or_else(wrong)?);
        if is_dummy(&span) {
            continue;
        }
        let span_class = index % SPAN_CLASSES;
        // A span has only one owner.
        if !span.is_sane() || usize::from(span.span_class) != span_class || !seen.insert(addr) {
            return Err(wrong());
        }
        spans.push(Cached { span, span_class });
    }
    Ok(spans)
}

/// Follows all lists of free stacks in parallel, one step at a time, and finds the spans of the stacks.
fn stacks(
    memory: &dyn Memory,
    sources: &Sources,
    heap: &Heap,
    mut heads: Vec<u64>,
) -> Result<Vec<StackSpan>, SourceError> {
    let (fields, cache) = (&sources.spans, &sources.caches);
    let offset = sources.machine.arena_offset();
    let mut free: Vec<u64> = Vec::new();
    for _ in 0..MAX_STACKS {
        heads.retain(|&stack| is_heap_pointer(stack));
        if heads.is_empty() {
            break;
        }
        free.extend_from_slice(&heads);
        heads = numbers(memory, heads.iter().copied())?.into_iter().flatten().collect();
    }
    // A cyclic list would count a stack many times.
    free.sort_unstable();
    free.dedup();
    let arenas = |stack: u64| {
        let index = stack.wrapping_add(offset) / ARENA;
        (index < ARENAS).then(|| heap.arenas.wrapping_add(8 * index))
    };
    let wanted: BTreeSet<u64> = free.iter().filter_map(|&stack| arenas(stack)).collect();
    let at = numbers(memory, wanted.iter().copied())?;
    let arena_at: BTreeMap<u64, u64> =
        wanted.into_iter().zip(at).filter_map(|(place, arena)| Some((place, arena?))).collect();
    let places = free.iter().filter_map(|&stack| {
        let arena = arena_at.get(&arenas(stack)?).filter(|&&arena| arena != 0)?;
        let page = stack % ARENA / PAGE;
        Some(arena.wrapping_add(cache.arena_spans).wrapping_add(8 * page))
    });
    let places: Vec<u64> = places.collect();
    let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
    for span in numbers(memory, places.into_iter())?.into_iter().flatten() {
        *kept.entry(span).or_default() += 1;
    }
    let mut batch = Batch::default();
    let tickets: Vec<(Ticket, u64)> =
        kept.iter().map(|(&at, &count)| (batch.add(RuntimeAddr(at), fields.size), count)).collect();
    let pieces = batch.read(memory)?;
    let spans = tickets.into_iter().filter_map(|(ticket, kept)| {
        let span = MSpan::parse(fields, pieces.get(ticket)?);
        let holds_stacks = span.state == state::MANUAL && span.npages <= 64;
        holds_stacks.then_some(StackSpan { span, kept })
    });
    Ok(spans.collect())
}

/// Reads the words at `places`.
fn numbers(memory: &dyn Memory, places: impl Iterator<Item = u64>) -> Result<Vec<Option<u64>>, MemoryError> {
    let mut batch = Batch::default();
    let tickets: Vec<Ticket> = places.map(|at| batch.add(RuntimeAddr(at), 8)).collect();
    let pieces = batch.read(memory)?;
    Ok(tickets.into_iter().map(|ticket| pieces.number(ticket)).collect())
}
