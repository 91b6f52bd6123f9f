//! Moduledata (`runtime.moduledata`): the linker's description of a module (the program, a plugin, a shared
//! object).
//!
//! Moduledata is found without symbols. It is the only place in writable memory that points to the pclntab
//! header and to each of the header's tables, with a function table of the header's length.

use crate::addr::LinkAddr;
use crate::image::Image;
use crate::pclntab::header::{self, Format, Header};
use crate::version::GoVersion;

/// Byte offsets of the fields that all supported releases share (`runtime/symtab.go:moduledata`, Go
/// 1.18–1.27).
mod fixed {
    pub(super) const FUNCNAMETAB: usize = 8;
    pub(super) const CUTAB: usize = 32;
    pub(super) const FILETAB: usize = 56;
    pub(super) const PCTAB: usize = 80;
    pub(super) const PCLNTABLE: usize = 104;
    pub(super) const FTAB_LEN: usize = 136;
    pub(super) const MINPC: usize = 160;
    pub(super) const MAXPC: usize = 168;
    pub(super) const TEXT: usize = 176;
    pub(super) const ETEXT: usize = 184;
    pub(super) const NOPTRDATA: usize = 192;
}

/// Byte offsets of the fields that moved between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// First and last minor release with this shape.
    minors: (u32, u32),
    types: usize,
    etypes: usize,
    rodata: usize,
    gofunc: usize,
    textsectmap: usize,
    modulename: usize,
    hasmain: usize,
    next: usize,
}

/// Shapes of all releases. `generate-tables` writes them from the tables.
const SHAPES: &[Shape] = &include!("../data/moduledata.rs");

/// Byte offset of `text` in moduledata, in all releases.
pub const TEXT_OFFSET: u64 = fixed::TEXT as u64;

/// Size of the largest shape in bytes, for readers that copy a moduledata before its shape is known.
pub const MAX_SIZE: usize = 640;

/// Range of link addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: LinkAddr,
    /// Address after the last one.
    pub end: LinkAddr,
}

impl Range {
    /// Returns true if `addr` is inside the range.
    pub fn contains(&self, addr: LinkAddr) -> bool {
        self.start <= addr && addr < self.end
    }
}

/// Section of text, for the rare images with several sections (`runtime.textsect`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSection {
    /// Offset of the section's start among the pclntab's text offsets.
    pub offset: u64,
    /// Offset of the section's end.
    pub end: u64,
    /// Link address of the section.
    pub base: LinkAddr,
}

/// Contents of a moduledata, in link addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moduledata {
    /// Link address of the moduledata itself.
    pub addr: LinkAddr,
    /// Range of the module's functions: lowest and highest pc of Go code.
    pub pcs: Range,
    /// Range from `runtime.text` to `runtime.etext`.
    pub text: Range,
    /// Base address of function data offsets.
    pub gofunc: LinkAddr,
    /// Range of type descriptors.
    pub types: Range,
    /// Ranges of pointer-free data, data, bss and pointer-free bss, in this order.
    pub data: [Range; 4],
    /// Sections of the text; one in nearly all images.
    pub text_sections: Vec<TextSection>,
    /// First and last minor release whose moduledata has this shape.
    pub minors: (u32, u32),
}

/// Finds pclntab and moduledata of a Go image: the pair whose parts confirm each other.
///
/// `version` only decides between shapes that the contents cannot distinguish.
pub fn find(image: &Image, version: Option<&GoVersion>) -> Option<(Header, Moduledata)> {
    confirm(image, &header::candidates(image), version)
}

/// Finds the pair like [`find`], for headers that the caller found in a cheaper way.
pub fn confirm(
    image: &Image,
    candidates: &[Header],
    version: Option<&GoVersion>,
) -> Option<(Header, Moduledata)> {
    if candidates.is_empty() {
        return None;
    }
    let index = Index::new(candidates);
    let writable = image.segments().iter().filter(|s| s.writable);
    let mut best: Option<(usize, Moduledata)> = None;
    let mut left = MAX_LIKELY;
    for (base, mut bytes) in image.pieces(writable, PIECE, MAX_SIZE) {
        image.relocate(base, &mut bytes);
        for at in index.places(&bytes) {
            let Some(found) = bytes.get(at..) else { continue };
            for (i, header) in index.headers(found) {
                // Priority by the order of the candidates, not by the address of the moduledata.
                if best.as_ref().is_some_and(|(b, _)| *b <= i) || !refers_to(found, header) {
                    continue;
                }
                if left == 0 {
                    break;
                }
                left -= 1;
                if let Some(module) = parse(image, header, base.plus(at as u64), found, version) {
                    best = Some((i, module));
                }
            }
        }
        if matches!(best, Some((0, _))) || left == 0 {
            break;
        }
    }
    let (i, module) = best?;
    Some((*candidates.get(i)?, module))
}

/// Size of a piece of writable memory in a search, in bytes. A segment can claim any size.
const PIECE: usize = 1 << 20;
/// Maximum number of places that are parsed in full. Such a place refers to a header and to each of its
/// tables; a real image has one.
const MAX_LIKELY: usize = 256;

/// Index of headers by address.
struct Index<'h> {
    by_addr: Vec<(u64, usize, &'h Header)>,
    range: std::ops::RangeInclusive<u64>,
}

impl<'h> Index<'h> {
    fn new(headers: &'h [Header]) -> Self {
        let mut by_addr: Vec<_> = headers.iter().enumerate().map(|(i, h)| (h.addr.0, i, h)).collect();
        by_addr.sort_by_key(|&(addr, i, _)| (addr, i));
        let first = by_addr.first().map_or(u64::MAX, |h| h.0);
        let last = by_addr.last().map_or(0, |h| h.0);
        Index { by_addr, range: first..=last }
    }

    /// Returns the offsets of aligned words that can be the address of a header.
    fn places<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        let words = piece.as_chunks::<8>().0.iter().enumerate();
        words.filter(|(_, w)| self.range.contains(&u64::from_le_bytes(**w))).map(|(i, _)| 8 * i)
    }

    /// Returns the headers whose address is the first word of `bytes`, with their indices.
    fn headers(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, &'h Header)> {
        let addr = word(bytes, 0).unwrap_or(0);
        let from = self.by_addr.partition_point(|h| h.0 < addr);
        let same = self.by_addr.get(from..).unwrap_or_default().iter().take_while(move |h| h.0 == addr);
        same.map(|&(_, i, header)| (i, header))
    }
}

/// Returns true if `bytes` begin with a moduledata for `header`.
fn refers_to(bytes: &[u8], header: &Header) -> bool {
    let is = |at: usize, value: u64| word(bytes, at) == Some(value);
    let table = |offset: u64| header.addr.0.wrapping_add(offset);
    is(fixed::FUNCNAMETAB, table(header.funcname))
        && is(fixed::CUTAB, table(header.cutab))
        && is(fixed::FILETAB, table(header.filetab))
        && is(fixed::PCTAB, table(header.pctab))
        && is(fixed::PCLNTABLE, table(header.pcln))
        && is(fixed::FTAB_LEN, u64::from(header.nfunc) + 1)
}

fn parse(
    image: &Image,
    header: &Header,
    addr: LinkAddr,
    bytes: &[u8],
    version: Option<&GoVersion>,
) -> Option<Moduledata> {
    let wanted = |s: &&Shape| version.is_some_and(|v| (s.minors.0..=s.minors.1).contains(&v.minor));
    if let Some(module) = SHAPES.iter().find(wanted).and_then(|s| with_shape(image, addr, bytes, s)) {
        return Some(module);
    }
    let format_fits = |s: &&Shape| (s.minors.0 < 20) == (header.format == Format::Go118);
    let fitting: Vec<_> = SHAPES
        .iter()
        .filter(format_fits)
        .filter_map(|shape| {
            Some((bytes.get(shape.hasmain) == Some(&1), with_shape(image, addr, bytes, shape)?))
        })
        .collect();
    // Ambiguous shapes: some differ only in fields that are zero in the file. Only the flag `hasmain`, set in
    // the module of a program, can distinguish them. The minor releases of all remaining shapes are possible
    // then.
    let by_flag = fitting.iter().any(|(has_main, _)| *has_main);
    let mut candidates = fitting.into_iter().filter(|(has_main, _)| *has_main == by_flag).map(|(_, m)| m);
    let mut module = candidates.next()?;
    for other in candidates {
        module.minors.0 = module.minors.0.min(other.minors.0);
        module.minors.1 = module.minors.1.max(other.minors.1);
    }
    Some(module)
}

/// Returns the byte offset of `next` in the moduledata of a minor release. The field links to the next module
/// of a process.
pub fn next_offset(minor: u32) -> Option<usize> {
    SHAPES.iter().find(|s| (s.minors.0..=s.minors.1).contains(&minor)).map(|s| s.next)
}

/// Returns the different byte offsets of `next` in all shapes, for modules of an unknown release.
pub fn next_offsets() -> impl Iterator<Item = usize> {
    let mut offsets: Vec<usize> = SHAPES.iter().map(|shape| shape.next).collect();
    offsets.sort_unstable();
    let mut last = None;
    offsets.into_iter().filter(move |&offset| last.replace(offset) != Some(offset))
}

fn with_shape(image: &Image, addr: LinkAddr, bytes: &[u8], shape: &Shape) -> Option<Moduledata> {
    let at = |offset: usize| word(bytes, offset).map(LinkAddr);
    let range = |start: usize, end: usize| {
        let range = Range { start: at(start)?, end: at(end)? };
        (range.start <= range.end).then_some(range)
    };
    let data = |i: usize| range(fixed::NOPTRDATA + 16 * i, fixed::NOPTRDATA + 16 * i + 8);
    let module = Moduledata {
        addr,
        pcs: range(fixed::MINPC, fixed::MAXPC)?,
        text: range(fixed::TEXT, fixed::ETEXT)?,
        gofunc: at(shape.gofunc)?,
        types: range(shape.types, shape.etypes)?,
        data: [data(0)?, data(1)?, data(2)?, data(3)?],
        text_sections: text_sections(image, at(shape.textsectmap)?, at(shape.textsectmap + 8)?.0)?,
        minors: shape.minors,
    };
    let first = module.text_sections.first()?;
    let fits = image.segment(module.text.start).is_some_and(|s| s.executable)
        && image.segment(module.gofunc).is_some_and(|s| !s.executable || !s.writable)
        && module.pcs.start < module.pcs.end
        && module.pcs.start >= module.text.start
        && first.offset == 0
        && first.base == module.text.start
        && at(shape.rodata).is_some_and(|a| image.segment(a).is_some())
        && word(bytes, shape.modulename + 8).is_some_and(|len| len < 1 << 16)
        && bytes.get(shape.hasmain).is_some_and(|&flag| flag <= 1)
        && word(bytes, shape.next) == Some(0);
    fits.then_some(module)
}

fn text_sections(image: &Image, addr: LinkAddr, count: u64) -> Option<Vec<TextSection>> {
    if count == 0 || count > 4096 {
        return None;
    }
    let bytes = image.read_relocated(addr, usize::try_from(count).ok()? * 24).ok()?;
    let sections: Vec<_> = bytes
        .chunks_exact(24)
        .filter_map(|c| {
            Some(TextSection { offset: word(c, 0)?, end: word(c, 8)?, base: LinkAddr(word(c, 16)?) })
        })
        .collect();
    (sections.len() as u64 == count).then_some(sections)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout;

    #[test]
    fn shapes_are_those_of_the_releases() {
        for release in layout::releases() {
            let found =
                layout::lookup(crate::image::Arch::Amd64, &GoVersion::release(release.minor, release.patch))
                    .unwrap();
            let shape = SHAPES.iter().find(|s| (s.minors.0..=s.minors.1).contains(&release.minor)).unwrap();
            let offset = |field| {
                let field = found.table.field("runtime.moduledata", field);
                usize::try_from(field.unwrap().offset).unwrap()
            };
            assert_eq!(
                [shape.types, shape.etypes, shape.rodata, shape.gofunc, shape.textsectmap],
                ["types", "etypes", "rodata", "gofunc", "textsectmap"].map(offset),
                "{release}"
            );
            assert_eq!(
                [shape.modulename, shape.hasmain, shape.next],
                ["modulename", "hasmain", "next"].map(offset),
                "{release}"
            );
            assert_eq!(fixed::MINPC, offset("minpc"));
            assert_eq!(fixed::NOPTRDATA, offset("noptrdata"));
        }
    }
}
