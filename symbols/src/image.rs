//! ELF image by its program headers, as the loader sees it. Section headers are never necessary: they can be
//! missing or wrong in a running program.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _, Rela as _, Sym as _};

use crate::addr::LinkAddr;
use crate::arch;

/// Source of the bytes of an image: a file, a copy in memory, or a mapping of a process.
pub trait Source: Send + Sync {
    /// Number of bytes.
    fn len(&self) -> u64;

    /// Returns true if there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset`. Returns false if not all of them exist.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool;

    /// Returns the next range of data from `offset` on, after any hole of a sparse file; holes read as zeros.
    /// `None` if only a hole is left. A source that does not know its holes reports none.
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

/// Error of reading bytes as an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not an ELF file: no ELF magic, or shorter than a header.
    #[error("not an ELF file")]
    NotElf,
    /// Big-endian ELF file.
    #[error("a big-endian ELF file; only little-endian programs are supported")]
    BigEndian,
    /// Program headers that are missing, too many, or outside of the file.
    #[error("its program headers are damaged")]
    ProgramHeaders,
    /// Address outside of all segments, or with bytes that the file does not contain.
    #[error("no bytes at link address {0}")]
    Unmapped(LinkAddr),
}

/// Machine of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// Machine x86-64; Go calls it amd64.
    Amd64,
    /// Machine AArch64; Go calls it arm64.
    Arm64,
    /// Other machine, by its ELF number.
    Other(u16),
}

/// Loadable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Link address of the segment.
    pub start: LinkAddr,
    /// Size in memory, in bytes.
    pub mem_size: u64,
    /// File offset of the first byte.
    pub file_offset: u64,
    /// Number of bytes in the file; the rest of the segment is zero.
    pub file_size: u64,
    /// True if the segment is writable.
    pub writable: bool,
    /// True if the segment is executable.
    pub executable: bool,
}

impl Segment {
    /// Returns true if `addr` is inside the segment.
    pub fn contains(&self, addr: LinkAddr) -> bool {
        addr.since(self.start).is_some_and(|d| d < self.mem_size)
    }
}

const BLOCK: usize = 64 << 10;
/// Maximum number of blocks that can be cached. Bytes beyond, in an absurdly large file, are read each time.
const MAX_BLOCKS: u64 = (4 << 30) / BLOCK as u64;
/// Maximum number of cached blocks (64 MiB). The blocks requested first are kept; later ones are read each
/// time.
const MAX_KEPT: usize = (64 << 20) / BLOCK;
const MAX_SEGMENTS: usize = 4096;
/// Maximum number of relocations. A large program has half a million.
const MAX_RELOCATIONS: u64 = 1 << 23;
/// Maximum number of relocations by symbols. The plugin of a small program has some thousands.
const MAX_SYMBOLIC: u64 = 1 << 20;
/// Number of relocations that are read at once (1.5 MiB).
const RELOCATIONS_AT_A_TIME: u64 = 1 << 16;
/// Maximum number of bytes that a search reads, for all segments together. Go programs are not larger,
/// because operands of amd64 reach no further. Segments of a hostile file can claim any size, and the same
/// bytes many times.
pub(crate) const MAX_SEARCH: u64 = 2 << 30;
const MAX_NOTES: usize = 16;
const MAX_NOTE: u64 = 16 << 10;

/// ELF image: segments, and reads by link address.
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
    /// File offset and length of each segment of notes.
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

/// Contents of the ELF header and the program headers, for 32-bit and 64-bit files.
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

    /// Machine of the image.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Size of a pointer in bytes: 8, or 4 in a 32-bit ELF file. From 32-bit files, only the build info is
    /// read.
    pub fn pointer_size(&self) -> usize {
        self.pointer_size
    }

    /// Returns true if the image can be loaded at any address (PIE, shared object).
    pub fn is_position_independent(&self) -> bool {
        self.position_independent
    }

    /// Returns true if a dynamic loader starts the program (`PT_INTERP`). Such a program can load shared
    /// objects.
    pub fn is_interpreted(&self) -> bool {
        self.interpreted
    }

    /// Link address of the entry point.
    pub fn entry(&self) -> LinkAddr {
        self.entry
    }

    /// Size and alignment of the thread-local segment in bytes, if there is one.
    pub fn tls(&self) -> Option<(u64, u64)> {
        self.tls_size
    }

    /// Link address of the header of call frame information (`PT_GNU_EH_FRAME`).
    pub fn eh_frame_hdr(&self) -> Option<LinkAddr> {
        self.eh_frame_hdr
    }

    /// Bytes of each segment of notes, cut off at the maximum length of a real one.
    pub fn notes(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.notes.iter().filter_map(|&(offset, len)| {
            let mut bytes = vec![0; usize::try_from(len.min(MAX_NOTE)).ok()?];
            self.read_file(offset, &mut bytes).then_some(bytes)
        })
    }

    /// Loadable segments, sorted by address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Source of the image's bytes, for readers of sections (symbols, DWARF).
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Returns the source and a range of file offsets, for reading in pieces. The range begins with the byte
    /// at `addr` and ends with the file bytes of its segment.
    pub(crate) fn part(&self, addr: LinkAddr) -> Result<(Arc<dyn Source>, Range<u64>), ImageError> {
        let segment = self.segment(addr).ok_or(ImageError::Unmapped(addr))?;
        let skip = addr.0 - segment.start.0;
        let start = segment.file_offset.checked_add(skip).ok_or(ImageError::Unmapped(addr))?;
        let len = segment.file_size.saturating_sub(skip);
        Ok((Arc::clone(&self.source), start..start.saturating_add(len)))
    }

    /// Number of bytes of the image that are cached in memory.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed).saturating_mul(BLOCK) + size_of_val(self.blocks.as_slice())
    }

    /// Returns true if the header claims to have section headers. A hint only.
    pub fn claims_sections(&self) -> bool {
        self.section_header_offset != 0
    }

    /// Returns the segment that contains `addr`.
    pub fn segment(&self, addr: LinkAddr) -> Option<&Segment> {
        let i = self.segments.partition_point(|s| s.start <= addr).checked_sub(1)?;
        self.segments.get(i).filter(|s| s.contains(addr))
    }

    /// Fills `buf` with the bytes at `addr`, without relocations. Bytes of a segment that are not in the file
    /// read as zero.
    ///
    /// # Errors
    /// Returns [`ImageError::Unmapped`] if one segment does not contain the whole range.
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

    /// Reads up to `len` bytes at `addr`. Returns fewer bytes if the file bytes of the segment end before.
    pub fn read_vec(&self, addr: LinkAddr, len: usize) -> Result<Vec<u8>, ImageError> {
        let segment = self.segment(addr).ok_or(ImageError::Unmapped(addr))?;
        let left = segment.file_size.saturating_sub(addr.0 - segment.start.0);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the little-endian word at `addr`, without relocations.
    pub fn word(&self, addr: LinkAddr) -> Result<u64, ImageError> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// Reads bytes like [`Image::read_vec`], with relocations applied at load bias 0. Pointers in the data of
    /// a position-independent image are then link addresses too.
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

    /// Returns the bytes of the segments, with their addresses, in pieces of at most `piece` bytes. Each
    /// piece continues for `overlap` bytes into the next. The iteration ends early if the segments claim more
    /// than [`MAX_SEARCH`] bytes.
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

    /// Returns true if the range is known to be zero without reading it: a hole of the file, without
    /// relocations.
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
        // Direct read of large ranges: blocks would only cause a second copy.
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

    /// Returns relocations as `(address, value)`, sorted by address. The list is empty for an image without
    /// any. A relocation that names a symbol is in the list if the image itself defines the symbol. The
    /// loader can use the definition of another image instead (a plugin's reference to
    /// `runtime.textsectionmap` leads to its program). The value here is the definition of this image.
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
        // Reads in pieces: a hostile file can claim a large table in a hole.
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
        // Only the last relocation for an address, as for the loader: others would only cause work for each
        // reader.
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

    /// Returns the value of a dynamic symbol that this image defines.
    fn defined_symbol(&self, table: LinkAddr, index: u32) -> Option<u64> {
        let mut bytes = [0; 24];
        self.read(table.plus(24 * u64::from(index)), &mut bytes).ok()?;
        let (symbol, _) = object::pod::from_bytes::<elf::Sym64<LE>>(&bytes).ok()?;
        (index != 0 && symbol.st_shndx(LE) != elf::SHN_UNDEF).then(|| symbol.st_value(LE))
    }
}
