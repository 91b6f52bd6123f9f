//! Sections by name, and functions of symbol tables.

use std::sync::Arc;

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::{SectionHeader as _, Sym as _};

use crate::image::Source;

/// Maximum number of sections; linkers write fewer.
const MAX_SECTIONS: usize = 1 << 16;
const MAX_SECTION_NAMES: u64 = 4 << 20;
/// Maximum size of the symbols or of their names, in bytes.
const MAX_TABLE: u64 = 256 << 20;
const MAX_NAME: usize = 64 << 10;
/// Maximum compression ratio. Real data compressed by deflate or zstd does not expand more.
const MAX_EXPANSION: u64 = 1100;
const HEADER: usize = size_of::<elf::SectionHeader64<LE>>();
const SYMBOL: usize = size_of::<elf::Sym64<LE>>();
/// Maximum number of symbols before an address that are checked for one that contains it.
const MAX_NESTED: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Section {
    name: Vec<u8>,
    kind: elf::SectionType,
    flags: elf::SectionFlags,
    addr: u64,
    offset: u64,
    size: u64,
    link: usize,
}

/// Sections of a 64-bit little-endian file. Empty if the section table is damaged.
pub(super) struct Sections<'s> {
    source: &'s dyn Source,
    list: Vec<Section>,
}

impl<'s> Sections<'s> {
    pub(super) fn read(source: &'s dyn Source) -> Self {
        Sections { list: table(source).unwrap_or_default(), source }
    }

    pub(super) fn named(&self, name: &str) -> Option<&Section> {
        self.list.iter().find(|s| s.name == name.as_bytes())
    }

    /// Returns the decompressed bytes of a section. `None` if there is no such section, if the file has no
    /// bytes for it, or if it has more than `limit` bytes.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Option<Arc<[u8]>> {
        let section = self.named(name)?;
        if section.kind == elf::SHT_NOBITS {
            return None;
        }
        if !section.flags.contains(elf::SHF_COMPRESSED) {
            return read_shared(self.source, section.offset, section.size, limit);
        }
        let packed = read(self.source, section.offset, section.size, limit)?;
        let (head, data) = packed.split_at_checked(size_of::<elf::CompressionHeader64<LE>>())?;
        let (head, _) = object::pod::from_bytes::<elf::CompressionHeader64<LE>>(head).ok()?;
        let size = head.ch_size.get(LE);
        if size > limit || size > (data.len() as u64).saturating_mul(MAX_EXPANSION) {
            return None;
        }
        let format = match head.ch_type.get(LE) {
            elf::ELFCOMPRESS_ZLIB => object::CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => object::CompressionFormat::Zstandard,
            _ => return None,
        };
        let packed = object::CompressedData { format, data, uncompressed_size: size };
        Some(packed.decompress().ok()?.into_owned().into())
    }

    /// Returns the size of the result of [`Sections::bytes`] as the file claims it, and the additional size
    /// in memory while it is decompressed. Both are in bytes.
    pub(super) fn size(&self, name: &str) -> (u64, u64) {
        let Some(section) = self.named(name).filter(|s| s.kind != elf::SHT_NOBITS) else { return (0, 0) };
        if !section.flags.contains(elf::SHF_COMPRESSED) {
            return (section.size.min(self.source.len()), 0);
        }
        let head =
            read(self.source, section.offset, size_of::<elf::CompressionHeader64<LE>>() as u64, MAX_TABLE);
        let size = head.as_deref().and_then(|head| {
            let (head, _) = object::pod::from_bytes::<elf::CompressionHeader64<LE>>(head).ok()?;
            Some(head.ch_size.get(LE))
        });
        let size = size.unwrap_or(0).min(section.size.saturating_mul(MAX_EXPANSION));
        // Temporary memory: the compressed bytes, and one copy of the decompressed bytes.
        (size, size.saturating_add(section.size))
    }

    /// Returns the maximum size in memory of the functions from the symbol tables, in bytes.
    pub(super) fn functions_size(&self) -> u64 {
        let tables = [elf::SHT_SYMTAB, elf::SHT_DYNSYM];
        let tables = tables.iter().filter_map(|kind| self.list.iter().find(|s| s.kind == *kind));
        let size = |table: &Section| {
            let names = headers_link(self, table).map_or(0, |names| names.size);
            let entries =
                (table.size / SYMBOL as u64).saturating_mul((SYMBOL + size_of::<Function>()) as u64);
            if table.size > MAX_TABLE || names > MAX_TABLE { 0 } else { entries.saturating_add(names) }
        };
        tables.map(size).fold(0, u64::saturating_add)
    }
}

/// Reads bytes like [`read`], into shared memory without a copy.
fn read_shared(source: &dyn Source, offset: u64, len: u64, limit: u64) -> Option<Arc<[u8]>> {
    if len > limit || offset.checked_add(len)? > source.len() {
        return None;
    }
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, usize::try_from(len).ok()?).collect();
    source.read_at(offset, Arc::get_mut(&mut bytes)?).then_some(bytes)
}

fn table(source: &dyn Source) -> Option<Vec<Section>> {
    let mut head = [0u8; 64];
    source.read_at(0, &mut head).then_some(())?;
    let (header, _) = object::pod::from_bytes::<elf::FileHeader64<LE>>(&head).ok()?;
    let wide = head.get(..6)? == [0x7f, b'E', b'L', b'F', elf::ELFCLASS64.0, elf::ELFDATA2LSB.0];
    if !wide || usize::from(header.e_shentsize.get(LE)) != HEADER {
        return None;
    }
    let count = usize::from(header.e_shnum.get(LE)).min(MAX_SECTIONS);
    let bytes = read(source, header.e_shoff.get(LE), (count * HEADER) as u64, MAX_TABLE)?;
    let headers = object::pod::slice_from_all_bytes::<elf::SectionHeader64<LE>>(&bytes).ok()?;
    let strings = headers.get(usize::from(header.e_shstrndx.get(LE).0))?;
    let strings = read(source, strings.sh_offset(LE), strings.sh_size(LE), MAX_SECTION_NAMES)?;
    let section = |h: &elf::SectionHeader64<LE>| {
        Some(Section {
            name: name_at(&strings, h.sh_name(LE), 256)?.to_vec(),
            kind: h.sh_type(LE),
            flags: h.sh_flags(LE),
            addr: h.sh_addr(LE),
            offset: h.sh_offset(LE),
            size: h.sh_size(LE),
            link: usize::try_from(h.sh_link(LE)).ok()?,
        })
    };
    headers.iter().map(section).collect()
}

fn name_at(strings: &[u8], offset: u32, limit: usize) -> Option<&[u8]> {
    let rest = strings.get(usize::try_from(offset).ok()?..)?;
    let rest = rest.get(..rest.len().min(limit))?;
    rest.get(..memchr::memchr(0, rest)?)
}

fn read(source: &dyn Source, offset: u64, len: u64, limit: u64) -> Option<Vec<u8>> {
    if len > limit || offset.checked_add(len)? > source.len() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    source.read_at(offset, &mut bytes).then_some(bytes)
}

/// Function of a symbol table.
#[derive(Debug, Clone, Copy)]
struct Function {
    start: u64,
    /// Size in bytes. 0 if the table has no size: the function then ends at the next one.
    size: u64,
    /// Index of the string table, and offset of the name in it.
    table: u32,
    name: u32,
    /// Rank among symbols at the same address. The lowest rank is shown.
    rank: u8,
}

/// Functions, sorted by address.
#[derive(Debug, Default)]
pub(super) struct Functions {
    list: Vec<Function>,
    strings: Vec<Vec<u8>>,
}

impl Functions {
    /// Adds the functions of `.symtab` and `.dynsym`.
    pub(super) fn add(&mut self, sections: &Sections<'_>) {
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            // Ignored error: a damaged table adds no further functions.
            let _damaged = self.add_table(sections, kind);
        }
        self.list.sort_by_key(|f| (f.start, f.rank, f.size == 0));
        self.list.dedup_by_key(|f| f.start);
    }

    fn add_table(&mut self, sections: &Sections<'_>, kind: elf::SectionType) -> Option<()> {
        let table = sections.list.iter().find(|s| s.kind == kind)?;
        let strings = headers_link(sections, table)?;
        let names = read(sections.source, strings.offset, strings.size, MAX_TABLE)?;
        let mut bytes = read(sections.source, table.offset, table.size, MAX_TABLE)?;
        bytes.truncate(bytes.len() / SYMBOL * SYMBOL);
        let symbols = object::pod::slice_from_all_bytes::<elf::Sym64<LE>>(&bytes).ok()?;
        let number = u32::try_from(self.strings.len()).ok()?;
        for symbol in symbols {
            let kind = symbol.st_type();
            let (start, size, section) = (symbol.st_value(LE), symbol.st_size(LE), symbol.st_shndx(LE));
            // Labels of assembly code, which have no type. Exclusion of labels on ARM ('$x'): they only mark
            // code and data.
            let label = kind == elf::STT_NOTYPE && section != elf::SHN_ABS;
            let function = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
            let name = name_at(&names, symbol.st_name(LE), MAX_NAME).unwrap_or_default();
            if !(function || label)
                || section == elf::SHN_UNDEF
                || start == 0
                || matches!(name, [] | [b'$', ..])
            {
                continue;
            }
            if label && !in_code(sections, start) {
                continue;
            }
            let binding = match symbol.st_bind() {
                elf::STB_GLOBAL => 0,
                elf::STB_WEAK => 1,
                _ => 2,
            };
            let rank = if function { binding } else { 4 + binding };
            self.list.push(Function { start, size, table: number, name: symbol.st_name(LE), rank });
        }
        self.strings.push(names);
        Some(())
    }

    /// Returns the name and the start of the function at an address.
    pub(super) fn at(&self, addr: u64) -> Option<(&[u8], u64)> {
        let next = self.list.partition_point(|f| f.start <= addr);
        let found = self.list.get(next.saturating_sub(MAX_NESTED)..next)?.iter().rev();
        // Restriction to the nearest function if it has no size, because it ends at the next one.
        let mut found = found.enumerate();
        let (_, function) =
            found.find(|&(i, f)| if f.size == 0 { i == 0 } else { addr - f.start < f.size })?;
        let name = name_at(self.strings.get(function.table as usize)?, function.name, MAX_NAME)?;
        Some((name, function.start))
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

fn headers_link<'t>(sections: &'t Sections<'_>, table: &Section) -> Option<&'t Section> {
    sections.list.get(table.link).filter(|s| s.kind == elf::SHT_STRTAB)
}

fn in_code(sections: &Sections<'_>, addr: u64) -> bool {
    sections
        .list
        .iter()
        .any(|s| s.flags.contains(elf::SHF_EXECINSTR) && addr.checked_sub(s.addr).is_some_and(|d| d < s.size))
}
