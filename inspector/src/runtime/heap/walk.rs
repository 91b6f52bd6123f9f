//! Walk over `mheap_.allspans`: all present and former spans.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use symbols::addr::RuntimeAddr;

use crate::memory::Memory;
use crate::runtime::batch::unsigned;
use crate::runtime::memstats::Sources;
use crate::runtime::snapshot::glist::GList;
use crate::runtime::source::SourceError;
use crate::runtime::spans::{CLASSES, MSpan, SpanFields, size_of_class, state};

/// Maximum number of spans: 128 GB of the smallest spans.
const MAX_SPANS: u64 = 1 << 24;
/// Tolerance for spans under construction in a running process: one in so many spans, and a few more.
const TOLERATED: usize = 100;

/// Spans of one class, with or without pointers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Half {
    /// Number of spans.
    pub spans: u64,
    /// Total size of the spans in bytes.
    pub span_bytes: u64,
    /// Number of allocated objects in the spans.
    pub objects: u64,
    /// Total size of the allocated objects in bytes.
    pub object_bytes: u64,
}

impl Half {
    fn add(&mut self, span: &MSpan) {
        self.spans += 1;
        self.span_bytes = self.span_bytes.saturating_add(span.bytes());
        self.objects = self.objects.saturating_add(span.alloc_count);
        self.object_bytes = self.object_bytes.saturating_add(span.alloc_count.saturating_mul(span.elem_size));
    }

    fn plus(self, other: Half) -> Half {
        Half {
            spans: self.spans.saturating_add(other.spans),
            span_bytes: self.span_bytes.saturating_add(other.span_bytes),
            objects: self.objects.saturating_add(other.objects),
            object_bytes: self.object_bytes.saturating_add(other.object_bytes),
        }
    }

    /// Returns the bytes of the spans beyond their objects: free slots, and waste due to the size class.
    pub fn unused_bytes(&self) -> u64 {
        self.span_bytes.saturating_sub(self.object_bytes)
    }
}

/// Size class of heap objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Class {
    /// Object size in bytes; 0 for large objects, each of which has a span to itself.
    pub size: u64,
    /// Objects that may hold pointers.
    pub scan: Half,
    /// Objects without pointers.
    pub noscan: Half,
}

impl Class {
    /// Returns the sum of both halves.
    pub fn both(&self) -> Half {
        self.scan.plus(self.noscan)
    }
}

/// Heap object with a span to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LargeObject {
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Address of the object.
    pub addr: u64,
    /// True if the object cannot hold pointers.
    pub noscan: bool,
}

/// Counts of all spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    /// Counts by size class; the first class is that of large objects.
    pub classes: Vec<Class>,
    /// Largest objects, in descending order.
    pub largest: Vec<LargeObject>,
    /// Spans of stacks, work buffers and pointer bitmaps.
    pub manual: Half,
    /// Number of list entries that are not spans at present.
    pub unused: u64,
    /// Number of spans that were unreadable or in the middle of a change.
    pub skipped: u64,
}

impl Spans {
    /// Returns the sum over all size classes.
    pub fn total(&self) -> Half {
        self.classes.iter().map(Class::both).fold(Half::default(), Half::plus)
    }

    /// Returns the total size of all objects in bytes.
    pub fn bytes(&self) -> u64 {
        self.total().object_bytes
    }

    /// Returns the number of all objects.
    pub fn objects(&self) -> u64 {
        self.total().objects
    }
}

/// List of all spans.
#[derive(Debug)]
pub(super) struct SpanList {
    fields: SpanFields,
    list: GList,
}

impl SpanList {
    pub(super) fn read(sources: &Sources, memory: &dyn Memory) -> Result<Self, SourceError> {
        let fields = *sources.span_fields();
        let addrs = addresses(sources, memory, 0)?;
        let list = GList::new(addrs, fields.size);
        if list.has_duplicates() {
            return Err(SourceError::implausible("its list of spans has one twice"));
        }
        Ok(SpanList { fields, list })
    }

    /// Adds the spans created since the last reading of the list.
    pub(super) fn refresh(&mut self, sources: &Sources, memory: &dyn Memory) -> Result<(), SourceError> {
        let new = addresses(sources, memory, self.list.len())?;
        if !new.is_empty() {
            self.list.append(&new);
            self.list.arrange();
        }
        Ok(())
    }

    /// Reads and counts every span.
    pub(super) fn walk(&self, memory: &dyn Memory, top: usize) -> Result<Spans, SourceError> {
        let class = |class| Class { size: size_of_class(class), ..Class::default() };
        let mut spans = Spans {
            classes: (0..CLASSES).map(class).collect(),
            largest: Vec::new(),
            manual: Half::default(),
            unused: 0,
            skipped: 0,
        };
        let mut largest: BinaryHeap<Reverse<LargeObject>> = BinaryHeap::new();
        self.list.read_all(memory, &mut Vec::new(), |_, _, bytes| {
            let span = bytes.map(|bytes| MSpan::parse(&self.fields, bytes)).unwrap_or_default();
            match span.state {
                state::IN_USE if span.is_sane() => {
                    let Some(class) = spans.classes.get_mut(span.class()) else { return };
                    let half = if span.is_noscan() { &mut class.noscan } else { &mut class.scan };
                    half.add(&span);
                    if span.class() == 0 && span.alloc_count != 0 && top != 0 {
                        let object =
                            LargeObject { bytes: span.elem_size, addr: span.start, noscan: span.is_noscan() };
                        largest.push(Reverse(object));
                        if largest.len() > top {
                            largest.pop();
                        }
                    }
                }
                state::MANUAL if span.npages <= 1 << 35 => {
                    spans.manual.spans += 1;
                    spans.manual.span_bytes = spans.manual.span_bytes.saturating_add(span.bytes());
                }
                0 if bytes.is_some() => spans.unused += 1,
                _ => spans.skipped += 1,
            }
        })?;
        if spans.skipped > 4 + (self.list.len() / TOLERATED) as u64 {
            return Err(SourceError::Implausible(format!(
                "{} of {} spans of its heap are none",
                spans.skipped,
                self.list.len()
            )));
        }
        spans.largest = largest.into_sorted_vec().into_iter().map(|Reverse(object)| object).collect();
        Ok(spans)
    }
}

/// Reads the addresses of the spans from index `from` on. The list only grows, but its array may move then.
/// The old array remains valid up to its own length.
fn addresses(sources: &Sources, memory: &dyn Memory, from: usize) -> Result<Vec<u64>, SourceError> {
    let mut last = None;
    for _ in 0..TRIES {
        let (array, len) = sources.all_spans(memory)?;
        if len > MAX_SPANS {
            return Err(SourceError::Implausible(format!("its heap says that it has {len} spans")));
        }
        let count = usize::try_from(len).unwrap_or_default().saturating_sub(from);
        let at = RuntimeAddr(array.wrapping_add(8 * from as u64));
        match memory.bytes(at, 8 * count) {
            Ok(bytes) => {
                // The old array may be freed or reused during the reading, so its contents are discarded.
                let again = sources.all_spans(memory)?;
                if again.0 == array && again.1 >= len {
                    return Ok(bytes.chunks_exact(8).filter_map(unsigned).collect());
                }
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| SourceError::implausible("its list of spans moves all the time"), Into::into))
}

/// Maximum number of attempts to read the list. Its array moves only when the length has doubled.
const TRIES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unused() {
        let mut half = Half::default();
        let span = MSpan { npages: 1, alloc_count: 500, elem_size: 16, ..MSpan::default() };
        half.add(&span);
        assert_eq!(half.unused_bytes(), 192);
        half.add(&MSpan { npages: u64::MAX, alloc_count: u64::MAX, elem_size: u64::MAX, ..span });
        assert_eq!((half.spans, half.span_bytes, half.object_bytes), (2, u64::MAX, u64::MAX));
        assert_eq!(half.plus(half).objects, u64::MAX);
    }
}
