//! An ELF image seen through its program headers, as the loader sees it. Section headers are never needed:
//! they may be missing or wrong in a running program.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _, Rela as _, Sym as _};

use crate::addr::LinkAddr;
use crate::arch;

/// Where the bytes of an image come from: a file, a copy in memory, a mapping of a process.
pub trait Source: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset`; false where they are not all there.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool;

    /// The next bytes from `offset` on that are no hole of a sparse file; holes read as zeros. `None` where nothing but a hole is
    /// left. Whoever does not know of holes has none.
    fn data(&self, offset: u64) -> Option<Range<u64>> {
        (offset < self.len()).then(|| offset..self.len())
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(offset) else { return false };
        match start.checked_add(buf.len()).and_then(|end| self.get(start..end)) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

/// Why bytes are not an image that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No ELF magic, or less than a header.
    #[error("not an ELF file")]
    NotElf,
    /// Not little endian.
    #[error("a big-endian ELF file; only little-endian programs are supported")]
    BigEndian,
    /// The program headers are missing, too many, or not within the file.
    #[error("its program headers are damaged")]
    ProgramHeaders,
    /// An address that no segment holds, or whose bytes the file does not have.
    #[error("no bytes at link address {0}")]
    Unmapped(LinkAddr),
}

/// The machine an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, called amd64 by Go.
    Amd64,
    /// AArch64, called arm64 by Go.
    Arm64,
    /// Another ELF machine number.
    Other(u16),
}

/// A loadable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is linked.
    pub start: LinkAddr,
    /// Its size in memory.
    pub mem_size: u64,
    /// Where its bytes begin in the file.
    pub file_offset: u64,
    /// How many of them the file has; the rest is zero.
    pub file_size: u64,
    /// May be written to.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
}

impl Segment {
    /// Whether `addr` is inside.
    pub fn contains(&self, addr: LinkAddr) -> bool {
        addr.since(self.start).is_some_and(|d| d < self.mem_size)
    }
}

const BLOCK: usize = 64 << 10;
/// Blocks up to here may be kept; what lies further out in an absurdly large file is read each time.
const MAX_BLOCKS: u64 = (4 << 30) / BLOCK as u64;
/// How many of them are kept, 64 MiB: the first that are asked for. What is asked for later is read each time.
const MAX_KEPT: usize = (64 << 20) / BLOCK;
const MAX_SEGMENTS: usize = 4096;
/// More relocations than any real program has: a large one has half a million.
const MAX_RELOCATIONS: u64 = 1 << 23;
/// More relocations by symbols than a plugin has: that of a small program has some thousands.
const MAX_SYMBOLIC: u64 = 1 << 20;
/// 1.5 MiB.
const RELOCATIONS_AT_A_TIME: u64 = 1 << 16;
/// How much of an image a search looks at, all segments together. Operands of amd64 reach no further, so that no Go
/// program is larger; segments of a hostile file may claim any size, and the same bytes any number of times.
pub(crate) const MAX_SEARCH: u64 = 2 << 30;
const MAX_NOTES: usize = 16;
const MAX_NOTE: u64 = 16 << 10;

/// An ELF image: segments, and reads by link address.
pub struct Image {
    source: Arc<dyn Source>,
    arch: Arch,
    pointer_size: usize,
    position_independent: bool,
    interpreted: bool,
    entry: LinkAddr,
    segments: Vec<Segment>,
    dynamic: Option<(u64, u64)>,
    tls_size: Option<(u64, u64)>,
    /// Where in the file notes are, and their length.
    notes: Vec<(u64, u64)>,
    eh_frame_hdr: Option<LinkAddr>,
    section_header_offset: u64,
    blocks: Vec<OnceLock<Option<Box<[u8]>>>>,
    kept: AtomicUsize,
    relocations: OnceLock<Vec<(u64, u64)>>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("arch", &self.arch)
            .field("position_independent", &self.position_independent)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

/// What the ELF header and the program headers say, of either class.
struct Headers {
    segments: Vec<Segment>,
    dynamic: Option<(u64, u64)>,
    tls_size: Option<(u64, u64)>,
    notes: Vec<(u64, u64)>,
    eh_frame_hdr: Option<LinkAddr>,
    position_independent: bool,
    interpreted: bool,
    entry: LinkAddr,
    section_header_offset: u64,
}

fn read_headers<H: FileHeader<Endian = LE>>(source: &dyn Source, head: &[u8]) -> Result<Headers, ImageError> {
    let header = H::parse(head).map_err(|_| ImageError::NotElf)?;
    let count = usize::from(header.e_phnum(LE));
    let size = size_of::<H::ProgramHeader>();
    if count == 0 || count > MAX_SEGMENTS || usize::from(header.e_phentsize(LE)) != size {
        return Err(ImageError::ProgramHeaders);
    }
    let mut table = vec![0u8; count * size];
    if !source.read_at(header.e_phoff(LE).into(), &mut table) {
        return Err(ImageError::ProgramHeaders);
    }
    let headers = object::pod::slice_from_all_bytes::<H::ProgramHeader>(&table)
        .map_err(|()| ImageError::ProgramHeaders)?;
    let mut segments = Vec::new();
    let (mut dynamic, mut tls_size, mut notes, mut eh_frame_hdr) = (None, None, Vec::new(), None);
    let mut interpreted = false;
    for h in headers {
        let (vaddr, mem_size): (u64, u64) = (h.p_vaddr(LE).into(), h.p_memsz(LE).into());
        let (file_offset, file_size): (u64, u64) = (h.p_offset(LE).into(), h.p_filesz(LE).into());
        match h.p_type(LE) {
            elf::PT_LOAD if mem_size > 0 => {
                if vaddr.checked_add(mem_size).is_none() || file_offset.checked_add(file_size).is_none() {
                    return Err(ImageError::ProgramHeaders);
                }
                let flags = h.p_flags(LE);
                segments.push(Segment {
                    start: LinkAddr(vaddr),
                    mem_size,
                    file_offset,
                    file_size: file_size.min(mem_size).min(source.len().saturating_sub(file_offset)),
                    writable: flags.contains(elf::PF_W),
                    executable: flags.contains(elf::PF_X),
                });
            }
            elf::PT_INTERP => interpreted = true,
            elf::PT_DYNAMIC => dynamic = Some((vaddr, file_size)),
            elf::PT_NOTE if notes.len() < MAX_NOTES => notes.push((file_offset, file_size)),
            elf::PT_GNU_EH_FRAME => eh_frame_hdr = Some(LinkAddr(vaddr)),
            elf::PT_TLS => tls_size = Some((mem_size, h.p_align(LE).into())),
            _ => {}
        }
    }
    Ok(Headers {
        segments,
        dynamic,
        tls_size,
        notes,
        eh_frame_hdr,
        position_independent: header.e_type(LE) == elf::ET_DYN,
        interpreted,
        entry: LinkAddr(header.e_entry(LE).into()),
        section_header_offset: header.e_shoff(LE).into(),
    })
}

impl Image {
    /// Reads the ELF header and the program headers.
    pub fn parse(source: Box<dyn Source>) -> Result<Self, ImageError> {
        let mut head = [0u8; 64];
        if source.len() < 64 || !source.read_at(0, &mut head) || head[..4] != elf::ELFMAG {
            return Err(ImageError::NotElf);
        }
        if head[5] != elf::ELFDATA2LSB.0 {
            return Err(ImageError::BigEndian);
        }
        let machine = u16::from_le_bytes([head[18], head[19]]);
        let wide = match elf::FileClass(head[4]) {
            elf::ELFCLASS64 => true,
            elf::ELFCLASS32 => false,
            _ => return Err(ImageError::NotElf),
        };
        let parsed = if wide {
            read_headers::<elf::FileHeader64<LE>>(&*source, &head)
        } else {
            read_headers::<elf::FileHeader32<LE>>(&*source, &head)
        };
        let Headers {
            mut segments,
            dynamic,
            tls_size,
            notes,
            eh_frame_hdr,
            position_independent,
            interpreted,
            entry,
            section_header_offset,
        } = parsed?;
        if segments.is_empty() {
            return Err(ImageError::ProgramHeaders);
        }
        segments.sort_by_key(|s| s.start);
        let blocks = source.len().div_ceil(BLOCK as u64).min(MAX_BLOCKS);
        Ok(Image {
            arch: match elf::Machine(machine) {
                elf::EM_X86_64 => Arch::Amd64,
                elf::EM_AARCH64 => Arch::Arm64,
                _ => Arch::Other(machine),
            },
            pointer_size: if wide { 8 } else { 4 },
            position_independent,
            interpreted,
            entry,
            section_header_offset,
            segments,
            dynamic,
            tls_size,
            notes,
            eh_frame_hdr,
            blocks: (0..blocks).map(|_| OnceLock::new()).collect(),
            kept: AtomicUsize::new(0),
            relocations: OnceLock::new(),
            source: Arc::from(source),
        })
    }

    /// The machine it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// How many bytes a pointer has: 8, or 4 in a 32-bit ELF. Of the latter only the build info is read.
    pub fn pointer_size(&self) -> usize {
        self.pointer_size
    }

    /// Linked to be loaded anywhere (PIE, shared object).
    pub fn is_position_independent(&self) -> bool {
        self.position_independent
    }

    /// A program that a dynamic loader starts (`PT_INTERP`): it can load shared objects.
    pub fn is_interpreted(&self) -> bool {
        self.interpreted
    }

    /// The entry point.
    pub fn entry(&self) -> LinkAddr {
        self.entry
    }

    /// Size and alignment of the thread-local segment, if there is one.
    pub fn tls(&self) -> Option<(u64, u64)> {
        self.tls_size
    }

    /// Where the table of call frame information is (`PT_GNU_EH_FRAME`).
    pub fn eh_frame_hdr(&self) -> Option<LinkAddr> {
        self.eh_frame_hdr
    }

    /// The bytes of each of its note segments, cut off where one is longer than any real one.
    pub fn notes(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.notes.iter().filter_map(|&(offset, len)| {
            let mut bytes = vec![0; usize::try_from(len.min(MAX_NOTE)).ok()?];
            self.read_file(offset, &mut bytes).then_some(bytes)
        })
    }

    /// The loadable segments, by address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The bytes underneath, for readers of sections (symbols, DWARF).
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// The bytes underneath from those that are linked at `addr` on, for who reads them piece by piece: where in the file they
    /// are, and how many of them the segment has there.
    pub(crate) fn part(&self, addr: LinkAddr) -> Result<(Arc<dyn Source>, Range<u64>), ImageError> {
        let segment = self.segment(addr).ok_or(ImageError::Unmapped(addr))?;
        let skip = addr.0 - segment.start.0;
        let start = segment.file_offset.checked_add(skip).ok_or(ImageError::Unmapped(addr))?;
        let len = segment.file_size.saturating_sub(skip);
        Ok((Arc::clone(&self.source), start..start.saturating_add(len)))
    }

    /// How many bytes of it are kept in memory.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed).saturating_mul(BLOCK) + size_of_val(self.blocks.as_slice())
    }

    /// Whether the header claims to have section headers. A hint only.
    pub fn claims_sections(&self) -> bool {
        self.section_header_offset != 0
    }

    /// The segment that holds `addr`.
    pub fn segment(&self, addr: LinkAddr) -> Option<&Segment> {
        let i = self.segments.partition_point(|s| s.start <= addr).checked_sub(1)?;
        self.segments.get(i).filter(|s| s.contains(addr))
    }

    /// Fills `buf` with the bytes linked at `addr`, without relocations. What a segment has beyond its bytes in
    /// the file reads as zero.
    ///
    /// # Errors
    /// [`ImageError::Unmapped`] where one segment does not hold all of it.
    pub fn read(&self, addr: LinkAddr, buf: &mut [u8]) -> Result<(), ImageError> {
        let fail = ImageError::Unmapped(addr);
        let segment = self.segment(addr).ok_or(fail.clone())?;
        let skip = addr.0 - segment.start.0;
        if (buf.len() as u64) > segment.mem_size - skip {
            return Err(fail);
        }
        let in_file = usize::try_from(segment.file_size.saturating_sub(skip)).unwrap_or(usize::MAX);
        let (bytes, zero) = buf.split_at_mut(in_file.min(buf.len()));
        zero.fill(0);
        if bytes.is_empty() || self.read_file(segment.file_offset + skip, bytes) { Ok(()) } else { Err(fail) }
    }

    /// Up to `len` bytes linked at `addr`: fewer where the segment ends before.
    pub fn read_vec(&self, addr: LinkAddr, len: usize) -> Result<Vec<u8>, ImageError> {
        let segment = self.segment(addr).ok_or(ImageError::Unmapped(addr))?;
        let left = segment.file_size.saturating_sub(addr.0 - segment.start.0);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// The little-endian word at `addr`, without relocations.
    pub fn word(&self, addr: LinkAddr) -> Result<u64, ImageError> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// As [`Image::read_vec`], with relocations applied at load bias 0, so that pointers in the data of
    /// a position-independent image are link addresses too.
    pub fn read_relocated(&self, addr: LinkAddr, len: usize) -> Result<Vec<u8>, ImageError> {
        let mut bytes = self.read_vec(addr, len)?;
        self.relocate(addr, &mut bytes);
        Ok(bytes)
    }

    /// Applies relocations at load bias 0 to the bytes that were read at `addr`.
    pub(crate) fn relocate(&self, addr: LinkAddr, bytes: &mut [u8]) {
        let relocations = self.relocations();
        let first = relocations.partition_point(|&(at, _)| at < addr.0);
        for &(at, value) in relocations.get(first..).unwrap_or_default() {
            let offset = usize::try_from(at - addr.0).unwrap_or(usize::MAX);
            if offset >= bytes.len() {
                break;
            }
            if let Some(slot) = offset.checked_add(8).and_then(|end| bytes.get_mut(offset..end)) {
                slot.copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// The bytes of the segments, one after the other, in pieces of at most `piece` that overlap by `overlap`, with
    /// their addresses. Ends early where the segments claim more than any program has ([`MAX_SEARCH`]).
    pub(crate) fn pieces<'i>(
        &'i self,
        segments: impl IntoIterator<Item = &'i Segment> + 'i,
        piece: usize,
        overlap: usize,
    ) -> impl Iterator<Item = (LinkAddr, Vec<u8>)> + 'i {
        let step = piece.max(1) as u64;
        let starts = segments.into_iter().flat_map(move |s| {
            (0..s.file_size.div_ceil(step))
                .map(move |i| (s.start.plus(i * step), step.min(s.file_size - i * step)))
        });
        let mut left = MAX_SEARCH;
        starts
            .map_while(move |(addr, len)| {
                left = left.checked_sub(len)?;
                Some(addr)
            })
            .filter(move |&addr| !self.is_hole(addr, piece + overlap))
            .filter_map(move |addr| Some((addr, self.read_vec(addr, piece + overlap).ok()?)))
    }

    /// Whether nothing but zeros is linked there, which takes no reading to know: a hole of the file, without relocations.
    fn is_hole(&self, addr: LinkAddr, len: usize) -> bool {
        let Some(segment) = self.segment(addr) else { return false };
        let skip = addr.0 - segment.start.0;
        let len = (len as u64).min(segment.file_size.saturating_sub(skip));
        let Some(start) = segment.file_offset.checked_add(skip).filter(|&at| at < self.source.len()) else {
            return false;
        };
        let end = start.saturating_add(len).min(self.source.len());
        if self.source.data(start).is_some_and(|data| data.start < end) {
            return false;
        }
        let relocations = self.relocations();
        let first = relocations.partition_point(|&(at, _)| at < addr.0);
        relocations.get(first).is_none_or(|&(at, _)| at - addr.0 >= len)
    }

    fn read_file(&self, offset: u64, buf: &mut [u8]) -> bool {
        // Large reads would only be copied twice through the blocks.
        if buf.len() >= 4 * BLOCK {
            return self.source.read_at(offset, buf);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (index, inner) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let Some(slot) = usize::try_from(index).ok().and_then(|i| self.blocks.get(i)) else {
                return self.source.read_at(at, &mut buf[done..]);
            };
            if slot.get().is_none() && self.kept.fetch_add(1, Ordering::Relaxed) >= MAX_KEPT {
                self.kept.fetch_sub(1, Ordering::Relaxed);
                return self.source.read_at(at, &mut buf[done..]);
            }
            let block = slot.get_or_init(|| {
                let start = index * BLOCK as u64;
                let len = (self.source.len() - start).min(BLOCK as u64) as usize;
                let mut bytes = vec![0; len].into_boxed_slice();
                self.source.read_at(start, &mut bytes).then_some(bytes)
            });
            let Some(rest) = block.as_ref().and_then(|b| b.get(inner..)).filter(|r| !r.is_empty()) else {
                return false;
            };
            let n = rest.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        true
    }

    /// Relocations, `(address, value)` by address; empty for an image without any. Those that name a symbol are among them
    /// where the image itself defines it. The loader may take the definition of another image instead (a plugin's reference
    /// to `runtime.textsectionmap` leads to its program's): what is read here is what this image means by it.
    fn relocations(&self) -> &[(u64, u64)] {
        self.relocations.get_or_init(|| self.load_relocations().unwrap_or_default())
    }

    fn load_relocations(&self) -> Option<Vec<(u64, u64)>> {
        let (addr, size) = self.dynamic.filter(|_| self.pointer_size == 8)?;
        let bytes = self.read_vec(LinkAddr(addr), usize::try_from(size.min(1 << 16)).ok()?).ok()?;
        let whole = bytes.len() / 16 * 16;
        let entries = object::pod::slice_from_all_bytes::<elf::Dyn64<LE>>(&bytes[..whole]).ok()?;
        let value = |tag: elf::DynamicTag| entries.iter().find(|d| d.d_tag(LE) == tag).map(|d| d.d_val(LE));
        let (table, size) = (value(elf::DT_RELA)?, value(elf::DT_RELASZ)?);
        let (relative, symbolic) = arch::relocations(self.arch)?;
        let symbols = value(elf::DT_SYMTAB).map(LinkAddr);
        let mut list: Vec<(u64, u64)> = Vec::new();
        let mut left = (size / 24).min(MAX_RELOCATIONS);
        let mut named = 0;
        let mut at = LinkAddr(table);
        // In pieces: a hostile file may claim a large table where it has nothing but a hole.
        while left > 0 {
            let count = left.min(RELOCATIONS_AT_A_TIME);
            let Ok(bytes) = self.read_vec(at, usize::try_from(count * 24).ok()?) else { break };
            let whole = bytes.len() / 24 * 24;
            let relas = object::pod::slice_from_all_bytes::<elf::Rela64<LE>>(bytes.get(..whole)?).ok()?;
            for rela in relas {
                let (kind, addend) = (rela.r_type(LE, false), rela.r_addend(LE).cast_unsigned());
                if kind == relative {
                    list.push((rela.r_offset(LE), addend));
                } else if let Some(table) = symbols.filter(|_| symbolic.contains(&kind)) {
                    named += 1;
                    if named <= MAX_SYMBOLIC
                        && let Some(symbol) = self.defined_symbol(table, rela.r_sym(LE, false))
                    {
                        list.push((rela.r_offset(LE), symbol.wrapping_add(addend)));
                    }
                }
            }
            if whole as u64 != count * 24 {
                break;
            }
            at = at.plus(count * 24);
            left -= count;
        }
        // The last one for a place counts, as for the loader; others would only be work for each reader.
        list.sort_by_key(|&(at, _)| at);
        list.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        Some(list)
    }

    /// The value of a dynamic symbol that this image defines.
    fn defined_symbol(&self, table: LinkAddr, index: u32) -> Option<u64> {
        let mut bytes = [0; 24];
        self.read(table.plus(24 * u64::from(index)), &mut bytes).ok()?;
        let (symbol, _) = object::pod::from_bytes::<elf::Sym64<LE>>(&bytes).ok()?;
        (index != 0 && symbol.st_shndx(LE) != elf::SHN_UNDEF).then(|| symbol.st_value(LE))
    }
}
