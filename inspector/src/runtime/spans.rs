//! Heap spans (`runtime.mspan`): runs of pages of the heap, divided into objects of one size, or used for
//! stacks and similar data.

use symbols::layout::{Field, Table};

use super::batch::unsigned;

/// Page size of the heap in bytes (`runtime.pageSize`).
pub const PAGE: u64 = 8192;
/// Number of size classes; class 0 is that of large objects.
pub const CLASSES: usize = 68;
/// Number of span classes: each size class with and without pointers.
pub const SPAN_CLASSES: usize = 2 * CLASSES;

/// Object sizes of the classes in bytes (`runtime.class_to_size`, from Go 1.25
/// `internal/runtime/gc.SizeClassToSize`), the same in Go 1.18–1.27. The fields of a span are verified
/// against them.
pub const SIZES: [u16; CLASSES] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
    416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072,
    3200, 3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568,
    14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768,
];

/// Returns the object size of a class in bytes.
pub fn size_of_class(class: usize) -> u64 {
    SIZES.get(class).copied().unwrap_or(0).into()
}

/// Values of `mspan.state` (`runtime.mSpanState`).
pub mod state {
    /// Span with objects.
    pub const IN_USE: u8 = 1;
    /// Span with stacks, work buffers or pointer bitmaps.
    pub const MANUAL: u8 = 2;
}

/// Field offsets of a span.
#[derive(Debug, Clone, Copy)]
pub struct SpanFields {
    /// Size of the span struct in bytes.
    pub size: usize,
    start: Field,
    npages: Field,
    freeindex: Field,
    nelems: Field,
    alloc_bits: Field,
    sweepgen: Field,
    alloc_count: Field,
    span_class: Field,
    state: Field,
    elem_size: Field,
    /// Field `allocCountBeforeCache`. From Go 1.19.
    before_cache: Option<Field>,
}

/// Maximum size of the span struct in bytes, in any release.
const MAX_SIZE: u64 = 1 << 12;

impl SpanFields {
    /// Takes the offsets from `table`; `None` if a field is missing.
    pub fn from_table(table: &Table) -> Option<Self> {
        let layout = table.get("runtime.mspan").filter(|l| l.size <= MAX_SIZE)?;
        Some(SpanFields {
            size: usize::try_from(layout.size).ok()?,
            start: layout.field("startAddr")?,
            npages: layout.field("npages")?,
            freeindex: layout.field("freeindex")?,
            nelems: layout.field("nelems")?,
            alloc_bits: layout.field("allocBits")?,
            sweepgen: layout.field("sweepgen")?,
            alloc_count: layout.field("allocCount")?,
            span_class: layout.field("spanclass")?,
            state: layout.field("state")?,
            elem_size: layout.field("elemsize")?,
            before_cache: layout.field("allocCountBeforeCache"),
        })
    }
}

/// Contents of a span struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MSpan {
    /// Address of the first byte.
    pub start: u64,
    /// Number of pages.
    pub npages: u64,
    /// Index of the first object that may be free; all objects before it are allocated.
    pub freeindex: u64,
    /// Maximum number of objects.
    pub nelems: u64,
    /// Address of the bitmap of allocated objects, as of the last sweep.
    pub alloc_bits: u64,
    /// Sweep generation, relative to that of the heap.
    pub sweepgen: u32,
    /// Number of allocated objects (or stacks).
    pub alloc_count: u64,
    /// Span class: `sizeclass << 1 | noscan`.
    pub span_class: u8,
    /// State of the span: see [`state`].
    pub state: u8,
    /// Object size in bytes.
    pub elem_size: u64,
    /// Number of objects allocated when a P took the span for its cache; `None` before Go 1.19.
    pub before_cache: Option<u64>,
}

impl MSpan {
    /// Parses the bytes of a span. Fields beyond `bytes` are 0.
    pub fn parse(fields: &SpanFields, bytes: &[u8]) -> Self {
        let number = |field: Field| {
            let at = || {
                let start = usize::try_from(field.offset).ok()?;
                unsigned(bytes.get(start..start.checked_add(usize::try_from(field.size).ok()?)?)?)
            };
            at().unwrap_or(0)
        };
        let byte = |field| number(field).to_le_bytes()[0];
        MSpan {
            start: number(fields.start),
            npages: number(fields.npages),
            freeindex: number(fields.freeindex),
            nelems: number(fields.nelems),
            alloc_bits: number(fields.alloc_bits),
            sweepgen: number(fields.sweepgen) as u32,
            alloc_count: number(fields.alloc_count),
            span_class: byte(fields.span_class),
            state: byte(fields.state),
            elem_size: number(fields.elem_size),
            before_cache: fields.before_cache.map(number),
        }
    }

    /// Returns the size of the pages in bytes. Saturates, because a process may report any number.
    pub fn bytes(&self) -> u64 {
        self.npages.saturating_mul(PAGE)
    }

    /// Returns the size class.
    pub fn class(&self) -> usize {
        usize::from(self.span_class >> 1)
    }

    /// Returns true if the objects hold no pointers.
    pub fn is_noscan(&self) -> bool {
        self.span_class & 1 != 0
    }

    /// Returns true if the fields fit together: the object size is that of the class, and the objects fit
    /// into the pages.
    pub fn is_sane(&self) -> bool {
        let size_fits = match self.class() {
            0 => self.nelems == 1 && (1..=self.bytes()).contains(&self.elem_size),
            // From Go 1.22, spans of small objects with pointers contain the pointer bitmaps too.
            class => self.elem_size == size_of_class(class) && self.elem_size != 0,
        };
        size_fits
            && self.npages != 0
            && self.npages <= 1 << 35
            && self.start.is_multiple_of(PAGE)
            && self.nelems.saturating_mul(self.elem_size) <= self.bytes()
            && self.alloc_count <= self.nelems
            && self.freeindex <= self.nelems
            && self.before_cache.is_none_or(|before| before <= self.nelems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use symbols::version::GoVersion;

    #[test]
    fn every_release_has_the_fields() {
        for release in symbols::layout::releases() {
            let table = symbols::layout::lookup(
                symbols::image::Arch::Amd64,
                &GoVersion::release(release.minor, release.patch),
            )
            .unwrap()
            .table;
            let fields = SpanFields::from_table(&table).unwrap();
            assert_eq!(fields.before_cache.is_some(), release.minor != 18, "{release}");
            let bytes = vec![0xff; fields.size];
            assert!(!MSpan::parse(&fields, &bytes).is_sane());
            assert_eq!(
                MSpan::parse(&fields, &[]),
                MSpan { before_cache: fields.before_cache.map(|_| 0), ..MSpan::default() }
            );
        }
    }

    #[test]
    fn sane_spans() {
        let span = MSpan {
            start: 0xc000_0000_0000 & !(PAGE - 1),
            npages: 1,
            nelems: 512,
            elem_size: 16,
            alloc_count: 3,
            freeindex: 3,
            span_class: 2 << 1 | 1,
            ..MSpan::default()
        };
        assert!(span.is_sane() && span.is_noscan());
        assert!(!MSpan { elem_size: 24, ..span }.is_sane());
        assert!(!MSpan { alloc_count: 513, ..span }.is_sane());
        assert!(!MSpan { nelems: 513, ..span }.is_sane());
        assert!(!MSpan { npages: u64::MAX, ..span }.is_sane());
    }
}
