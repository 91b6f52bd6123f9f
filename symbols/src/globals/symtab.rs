//! Variables from the symbol table, if a program has one.

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::{SectionHeader as _, Sym as _};

use super::{Evidence, FoundGlobal, Globals};
use crate::addr::LinkAddr;
use crate::image::{Image, Source};

/// Maximum number of sections; linkers write fewer.
const MAX_SECTIONS: usize = 1 << 16;
/// Maximum size of a symbol table or string table, in bytes.
const MAX_TABLE: u64 = 1 << 30;
const SYMBOL_SIZE: usize = size_of::<elf::Sym64<LE>>();

/// Returns the addresses of the `wanted` variables from the symbol table. Names include the package
/// (`runtime.allgs`). The result is empty if there is no table or the table is damaged. Only the section
/// headers, the symbols and their names are read.
pub fn from_symtab(image: &Image, wanted: &[&str]) -> Globals {
    if !image.claims_sections() {
        return Globals::default();
    }
    search(image, image.source(), wanted).unwrap_or_default()
}

fn search(image: &Image, source: &dyn Source, wanted: &[&str]) -> Option<Globals> {
    let mut head = [0u8; 64];
    source.read_at(0, &mut head).then_some(())?;
    let (header, _) = object::pod::from_bytes::<elf::FileHeader64<LE>>(&head).ok()?;
    let count = usize::from(header.e_shnum.get(LE)).min(MAX_SECTIONS);
    if usize::from(header.e_shentsize.get(LE)) != size_of::<elf::SectionHeader64<LE>>() {
        return None;
    }
    let bytes = read(source, header.e_shoff.get(LE), (count * size_of::<elf::SectionHeader64<LE>>()) as u64)?;
    let sections = object::pod::slice_from_all_bytes::<elf::SectionHeader64<LE>>(&bytes).ok()?;
    // Dynamic symbols too: plugin hosts and shared builds export their variables, and `strip` keeps these
    // names for the loader.
    let mut globals = Globals::default();
    for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        if globals.found.len() < wanted.len() {
            globals.fill(in_table(image, source, sections, kind, wanted).unwrap_or_default());
        }
    }
    Some(globals)
}

fn in_table(
    image: &Image,
    source: &dyn Source,
    sections: &[elf::SectionHeader64<LE>],
    kind: elf::SectionType,
    wanted: &[&str],
) -> Option<Globals> {
    let symtab = sections.iter().find(|s| s.sh_type(LE) == kind)?;
    let strtab = sections.get(usize::try_from(symtab.sh_link(LE)).ok()?)?;
    let names = read(source, strtab.sh_offset(LE), strtab.sh_size(LE))?;
    let mut bytes = read(source, symtab.sh_offset(LE), symtab.sh_size(LE))?;
    bytes.truncate(bytes.len() / SYMBOL_SIZE * SYMBOL_SIZE);
    let symbols = object::pod::slice_from_all_bytes::<elf::Sym64<LE>>(&bytes).ok()?;
    let wanted: std::collections::HashSet<&[u8]> = wanted.iter().map(|w| w.as_bytes()).collect();
    // Limit of the compared text: most names differ from the wanted ones in length or in the first letters.
    let longest = wanted.iter().map(|w| w.len()).max().unwrap_or(0);
    let mut globals = Globals::default();
    for symbol in symbols {
        let address = LinkAddr(symbol.st_value(LE));
        // Reference to a symbol that another image defines.
        let undefined = symbol.st_shndx(LE) == elf::SHN_UNDEF;
        if undefined || symbol.st_type() != elf::STT_OBJECT || globals.found.len() == wanted.len() {
            continue;
        }
        let start = symbol.st_name(LE) as usize;
        let window = start..start.saturating_add(longest + 1).min(names.len());
        let Some(rest) = names.get(window) else { continue };
        let Some(name) = memchr::memchr(0, rest).and_then(|end| rest.get(..end)) else { continue };
        if !wanted.contains(name) || image.segment(address).is_none_or(|s| s.executable) {
            continue;
        }
        if let Ok(name) = std::str::from_utf8(name) {
            globals
                .found
                .entry(name.to_owned())
                .or_insert(FoundGlobal { address, evidence: Evidence::SymbolTable });
        }
    }
    Some(globals)
}

fn read(source: &dyn Source, offset: u64, len: u64) -> Option<Vec<u8>> {
    if len > MAX_TABLE || offset.checked_add(len)? > source.len() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    source.read_at(offset, &mut bytes).then_some(bytes)
}
