//! Whether an image is a Go program, which release built it, and how that is known.

use std::fmt;

use crate::addr::LinkAddr;
use crate::buildinfo::{self, BuildInfo};
use crate::globals;
use crate::image::Image;
use crate::moduledata::{self, Moduledata};
use crate::pclntab::Pclntab;
use crate::pclntab::header::{Format, HEADER_SIZE, Header};
use crate::sections::{self, Section};
use crate::version::{GoVersion, OLDEST_MINOR};

mod inventory;

/// What an image says about the release that built it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// This version.
    Exact(GoVersion),
    /// One of the minor releases from the first to the second; `None` is "or any later one".
    Between(u32, Option<u32>),
}

impl Release {
    /// The oldest minor release that it can be.
    pub fn oldest_minor(&self) -> u32 {
        match self {
            Release::Exact(version) => version.minor,
            Release::Between(from, _) => *from,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Release::Exact(version) => version.fmt(f),
            Release::Between(from, Some(to)) if from == to => write!(f, "go1.{from}"),
            Release::Between(from, Some(to)) => write!(f, "go1.{from}-go1.{to}"),
            Release::Between(from, None) => write!(f, "go1.{from}+"),
        }
    }
}

/// One way in which a fact about a program was established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The build info blob of the linker.
    BuildInfo,
    /// A pclntab whose function table and names make sense.
    FunctionTable,
    /// A pclntab header and the moduledata that points at each of its tables.
    Moduledata,
    /// The moduledata's shape, which differs between releases.
    ModuledataShape,
    /// Runtime functions that only some releases have.
    FunctionInventory,
    /// The string `runtime.buildVersion`.
    VersionString,
    /// A section that only Go's linker writes.
    Section,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::BuildInfo => "build info",
            Evidence::FunctionTable => "function table",
            Evidence::Moduledata => "pclntab and moduledata",
            Evidence::ModuledataShape => "moduledata shape",
            Evidence::FunctionInventory => "runtime functions",
            Evidence::VersionString => "runtime.buildVersion",
            Evidence::Section => "section names",
        })
    }
}

/// A Go program or shared object.
#[derive(Debug, Clone)]
pub struct GoProgram {
    /// The release that built it.
    pub release: Release,
    /// What the linker wrote about the build, unless that was removed.
    pub build_info: Option<BuildInfo>,
    /// How it was recognised and its release found.
    pub evidence: Vec<Evidence>,
    /// The first and the last minor release that its function table can be of, where the release that it names is none of
    /// them: whoever links can name any (`-X runtime.buildVersion=…`).
    pub contradicted: Option<(u32, Option<u32>)>,
    /// Its pclntab header and moduledata. `None` where [`identify`] needed none, and for releases whose moduledata has
    /// a shape that is not known.
    pub module: Option<(Header, Moduledata)>,
}

/// Recognises a Go image, and finds its pclntab and moduledata. `None` where it is none, though it may hold Go's magic
/// numbers as data.
pub fn recognise(image: &Image) -> Option<GoProgram> {
    let mut program = identify(image)?;
    if program.module.is_none() && image.pointer_size() == 8 {
        let version = program.build_info.as_ref().and_then(BuildInfo::go_version);
        let named = named_headers(image, &sections::read(image).unwrap_or_default());
        program.module = find_module(image, &named, version.as_ref());
        if program.module.is_some() {
            program.evidence.push(Evidence::Moduledata);
        }
    }
    Some(program)
}

/// Says as cheaply as it can be known whether this is a Go image, and of which release.
///
/// With section names to go by, this reads a few pages. Without, or where the build info was removed, it searches the
/// image.
pub fn identify(image: &Image) -> Option<GoProgram> {
    let sections = sections::read(image).filter(|s| s.iter().any(|s| s.name == ".shstrtab"));
    match &sections {
        Some(sections) if !sections.iter().any(is_of_go) => None,
        Some(sections) => by_sections(image, sections).or_else(|| by_search(image, Some(sections))),
        None => by_search(image, None),
    }
}

/// The cheap way: build info and function table are where the section names say, and make sense.
fn by_sections(image: &Image, sections: &[Section]) -> Option<GoProgram> {
    let blob = sections.iter().find(|s| s.name == ".go.buildinfo")?;
    let build_info = buildinfo::at(image, blob.addr)?;
    let version = build_info.go_version()?;
    // Of 32-bit programs only the build info is read.
    let known_table = version.minor >= OLDEST_MINOR && image.pointer_size() == 8;
    let headers = if image.pointer_size() == 8 { named_headers(image, sections) } else { Vec::new() };
    let mut header = headers.first();
    let mut evidence = vec![Evidence::BuildInfo, Evidence::Section];
    if known_table {
        header = Some(headers.iter().find(|h| has_functions(image, h))?);
        evidence = vec![Evidence::BuildInfo, Evidence::FunctionTable];
    }
    let contradicted = header.and_then(|header| contradiction(&version, header));
    let release = Release::Exact(version);
    Some(GoProgram { release, build_info: Some(build_info), evidence, contradicted, module: None })
}

fn by_search(image: &Image, sections: Option<&[Section]>) -> Option<GoProgram> {
    if image.pointer_size() != 8 {
        // Magic bytes may be data of a program of any language, and there is no table that would confirm them, so
        // section names have to.
        let build_info = sections.and_then(|_| buildinfo::find(image))?;
        let release = Release::Exact(build_info.go_version()?);
        let evidence = vec![Evidence::BuildInfo, Evidence::Section];
        let build_info = Some(build_info);
        return Some(GoProgram { release, build_info, evidence, contradicted: None, module: None });
    }
    let build_info = buildinfo::find(image);
    let version = build_info.as_ref().and_then(BuildInfo::go_version);
    let named = sections.map(|s| named_headers(image, s)).unwrap_or_default();
    let module = find_module(image, &named, version.as_ref());
    let (mut evidence, mut contradicted) = (Vec::new(), None);
    let release = match (version, &module) {
        (Some(version), Some((header, _))) => {
            evidence.extend([Evidence::BuildInfo, Evidence::Moduledata]);
            contradicted = contradiction(&version, header);
            Release::Exact(version)
        }
        // A release with another pclntab, or with a moduledata of a shape that is not known.
        (Some(version), None) if named.iter().any(|h| has_functions(image, h)) => {
            evidence.extend([Evidence::BuildInfo, Evidence::FunctionTable]);
            Release::Exact(version)
        }
        (None, Some((header, module))) => {
            evidence.push(Evidence::Moduledata);
            release_of(image, header, module, &mut evidence)
        }
        _ => return None,
    };
    Some(GoProgram { release, build_info, evidence, contradicted, module })
}

/// The minor releases that have such a table, where that of a version is none of them.
fn contradiction(version: &GoVersion, header: &Header) -> Option<(u32, Option<u32>)> {
    let (from, to) = of_format(header.format);
    let fits = from <= version.minor && to.is_none_or(|to| version.minor <= to);
    (!fits).then_some((from, to))
}

/// The first and the last minor release whose tables have a form.
fn of_format(format: Format) -> (u32, Option<u32>) {
    match format {
        Format::Go116 => (16, Some(17)),
        Format::Go118 => (18, Some(19)),
        Format::Go120 => (20, None),
    }
}

/// Tries the headers that section names lead to before it searches.
fn find_module(image: &Image, named: &[Header], version: Option<&GoVersion>) -> Option<(Header, Moduledata)> {
    moduledata::confirm(image, named, version).or_else(|| moduledata::find(image, version))
}

/// Sections that Go's linker writes, and that survive `strip` and external linkers.
fn is_of_go(section: &Section) -> bool {
    let name = section.name.as_str();
    name.starts_with(".go.")
        || matches!(name, ".gopclntab" | ".gosymtab" | ".note.go.buildid" | ".typelink" | ".itablink")
        || name.strip_prefix(".data.rel.ro.").is_some_and(|n| n == "gopclntab" || n == "typelink")
}

/// The pclntab header where a section of its name says that it is.
fn named_headers(image: &Image, sections: &[Section]) -> Vec<Header> {
    sections
        .iter()
        .filter(|s| s.name == ".gopclntab" || s.name == ".data.rel.ro.gopclntab")
        .filter_map(|s| Header::parse(s.addr, &read::<HEADER_SIZE>(image, s.addr)?))
        .collect()
}

/// Whether a function table follows its header: entries in order, the first with a printable name.
fn has_functions(image: &Image, header: &Header) -> bool {
    let first = || -> Option<bool> {
        let table = header.addr.plus(header.pcln);
        let entries = read::<32>(image, table)?;
        let word = |at: usize| Some(u32::from_le_bytes(entries.get(at..at + 4)?.try_into().ok()?));
        let record = read::<8>(image, table.plus(u64::from(word(4)?)))?;
        let name = u32::from_le_bytes(record.get(4..8)?.try_into().ok()?);
        let name = read::<8>(image, header.addr.plus(header.funcname).plus(u64::from(name)))?;
        let in_order = header.nfunc < 4 || (word(0)? <= word(8)? && word(8)? <= word(16)?);
        Some(
            in_order
                && word(0)? == entry_offset(&record)?
                && name.iter().all(|&b| b.is_ascii_graphic() || b == 0),
        )
    };
    first() == Some(true)
}

/// A record repeats its function's offset.
fn entry_offset(record: &[u8; 8]) -> Option<u32> {
    Some(u32::from_le_bytes(record.get(..4)?.try_into().ok()?))
}

/// Reads a few bytes from the file itself: the image would keep a block around them.
fn read<const N: usize>(image: &Image, addr: LinkAddr) -> Option<[u8; N]> {
    let segment = image.segment(addr)?;
    let skip = addr.since(segment.start)?;
    let mut bytes = [0; N];
    let inside = skip.checked_add(N as u64)? <= segment.file_size;
    (inside && image.source().read_at(segment.file_offset.checked_add(skip)?, &mut bytes)).then_some(bytes)
}

/// The first and the last minor release that the form of a program's tables and its runtime's functions allow, whatever its
/// build info says; no last one where they are the newest known.
pub fn minors(header: &Header, module: &Moduledata, pclntab: &Pclntab) -> (u32, Option<u32>) {
    bounds(header, module, inventory::minors(pclntab), &mut Vec::new())
}

/// Narrows the release down without build info.
fn release_of(image: &Image, header: &Header, module: &Moduledata, evidence: &mut Vec<Evidence>) -> Release {
    let table = Pclntab::load(image, header, module).ok();
    let inventory = table.as_ref().and_then(inventory::minors);
    let (from, to) = bounds(header, module, inventory, evidence);
    match table.and_then(|table| in_file(image, &table, (from, to))) {
        Some(version) => {
            evidence.push(Evidence::VersionString);
            Release::Exact(version)
        }
        None => Release::Between(from, to),
    }
}

/// The string `runtime.buildVersion` of the file. That of a position-independent program has its address only when it runs.
fn in_file(image: &Image, table: &Pclntab, minors: (u32, Option<u32>)) -> Option<GoVersion> {
    let string = |at: LinkAddr| {
        let words = read::<16>(image, at)?;
        let (at, len) = words.split_at(8);
        Some((u64::from_le_bytes(at.try_into().ok()?), u64::from_le_bytes(len.try_into().ok()?)))
    };
    let text = |at, len| image.read_vec(LinkAddr(at), len).ok();
    globals::build_version(image, table, minors, string, text)
}

fn bounds(
    header: &Header,
    module: &Moduledata,
    inventory: Option<(u32, Option<u32>)>,
    evidence: &mut Vec<Evidence>,
) -> (u32, Option<u32>) {
    let (mut from, mut to) = of_format(header.format);
    if let Some((first, last)) = inventory {
        evidence.push(Evidence::FunctionInventory);
        from = from.max(first);
        to = match (to, last) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    let (first, last) = module.minors;
    // Shapes overlap in what can be checked of them, so a contradiction means that the shape was taken wrongly.
    if from <= last && to.is_none_or(|to| first <= to) && inventory.is_none() {
        evidence.push(Evidence::ModuledataShape);
        from = from.max(first);
        to = Some(to.map_or(last, |to| to.min(last)));
    }
    (from, to.filter(|to| from <= *to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_readable() {
        assert_eq!(Release::Between(27, Some(27)).to_string(), "go1.27");
        assert_eq!(Release::Between(25, Some(26)).to_string(), "go1.25-go1.26");
        assert_eq!(Release::Between(27, None).to_string(), "go1.27+");
    }
}
