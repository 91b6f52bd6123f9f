//! Recognition of Go programs, and the release that built them, with the evidence.

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

/// Release that built an image, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// Exactly this version.
    Exact(GoVersion),
    /// Range of minor releases, first and last. `None` as the last means "or any later one".
    Between(u32, Option<u32>),
}

impl Release {
    /// Oldest possible minor release.
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

/// Evidence for a fact about a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Build info blob of the linker.
    BuildInfo,
    /// Pclntab with a plausible function table and plausible names.
    FunctionTable,
    /// Pclntab header and the moduledata that points to each of its tables.
    Moduledata,
    /// Shape of the moduledata, which differs between releases.
    ModuledataShape,
    /// Runtime functions that only some releases have.
    FunctionInventory,
    /// String `runtime.buildVersion`.
    VersionString,
    /// Section that only Go's linker writes.
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

/// Go program or shared object.
#[derive(Debug, Clone)]
pub struct GoProgram {
    /// Release that built the program.
    pub release: Release,
    /// Build info of the linker, unless it was removed.
    pub build_info: Option<BuildInfo>,
    /// Evidence for the recognition and for the release.
    pub evidence: Vec<Evidence>,
    /// First and last minor release that the function table allows, if the named release is not among them. A
    /// linker option can set any version text (`-X runtime.buildVersion=…`).
    pub contradicted: Option<(u32, Option<u32>)>,
    /// Header of the pclntab, and moduledata. `None` if [`identify`] did not need them, or if the release has
    /// a moduledata of unknown shape.
    pub module: Option<(Header, Moduledata)>,
}

/// Recognises a Go image, and finds its pclntab and moduledata. `None` if it is no Go image, even if it
/// contains Go's magic numbers as data.
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

/// Checks with minimal cost whether an image is a Go image, and finds its release.
///
/// With section names, this function reads a few pages. Without them, or if the build info was removed, it
/// searches the image.
pub fn identify(image: &Image) -> Option<GoProgram> {
    let sections = sections::read(image).filter(|s| s.iter().any(|s| s.name == ".shstrtab"));
    match &sections {
        Some(sections) if !sections.iter().any(is_of_go) => None,
        Some(sections) => by_sections(image, sections).or_else(|| by_search(image, Some(sections))),
        None => by_search(image, None),
    }
}

/// Checks build info and function table at the addresses of the named sections. This check is cheap.
fn by_sections(image: &Image, sections: &[Section]) -> Option<GoProgram> {
    let blob = sections.iter().find(|s| s.name == ".go.buildinfo")?;
    let build_info = buildinfo::at(image, blob.addr)?;
    let version = build_info.go_version()?;
    // Exclusion of 32-bit programs: only their build info is read.
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
        // Section names are necessary here: magic bytes can be data in a program of any language, and there
        // is no function table that would confirm them.
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
        // Release with another pclntab format, or with a moduledata of unknown shape.
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

/// Returns the first and last minor release that have this pclntab format. `None` if `version` is among them.
fn contradiction(version: &GoVersion, header: &Header) -> Option<(u32, Option<u32>)> {
    let (from, to) = of_format(header.format);
    let fits = from <= version.minor && to.is_none_or(|to| version.minor <= to);
    (!fits).then_some((from, to))
}

/// Returns the first and the last minor release of a pclntab format.
fn of_format(format: Format) -> (u32, Option<u32>) {
    match format {
        Format::Go116 => (16, Some(17)),
        Format::Go118 => (18, Some(19)),
        Format::Go120 => (20, None),
    }
}

/// Finds pclntab and moduledata. Headers in named sections are tried before a search.
fn find_module(image: &Image, named: &[Header], version: Option<&GoVersion>) -> Option<(Header, Moduledata)> {
    moduledata::confirm(image, named, version).or_else(|| moduledata::find(image, version))
}

/// Returns true for sections of Go's linker that remain after `strip` and after external linking.
fn is_of_go(section: &Section) -> bool {
    let name = section.name.as_str();
    name.starts_with(".go.")
        || matches!(name, ".gopclntab" | ".gosymtab" | ".note.go.buildid" | ".typelink" | ".itablink")
        || name.strip_prefix(".data.rel.ro.").is_some_and(|n| n == "gopclntab" || n == "typelink")
}

/// Returns the pclntab headers in sections that are named for them.
fn named_headers(image: &Image, sections: &[Section]) -> Vec<Header> {
    sections
        .iter()
        .filter(|s| s.name == ".gopclntab" || s.name == ".data.rel.ro.gopclntab")
        .filter_map(|s| Header::parse(s.addr, &read::<HEADER_SIZE>(image, s.addr)?))
        .collect()
}

/// Returns true if a function table follows the header: entries in order, and a printable name for the first.
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

/// Returns the text offset of the function, which its record repeats.
fn entry_offset(record: &[u8; 8]) -> Option<u32> {
    Some(u32::from_le_bytes(record.get(..4)?.try_into().ok()?))
}

/// Reads a few bytes from the source itself. A read through the image would cache a block around them.
fn read<const N: usize>(image: &Image, addr: LinkAddr) -> Option<[u8; N]> {
    let segment = image.segment(addr)?;
    let skip = addr.since(segment.start)?;
    let mut bytes = [0; N];
    let inside = skip.checked_add(N as u64)? <= segment.file_size;
    (inside && image.source().read_at(segment.file_offset.checked_add(skip)?, &mut bytes)).then_some(bytes)
}

/// Returns the first and the last minor release that are possible by the pclntab format, the moduledata and
/// the runtime functions, whatever the build info says. `None` as the last means that the newest known
/// release is possible.
pub fn minors(header: &Header, module: &Moduledata, pclntab: &Pclntab) -> (u32, Option<u32>) {
    bounds(header, module, inventory::minors(pclntab), &mut Vec::new())
}

/// Finds the release, or a range of releases, without build info.
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

/// Reads the string `runtime.buildVersion` from the file. In a position-independent program, the string's
/// address exists only at runtime.
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
    // Use of the shape only without an inventory and without a contradiction. Shapes overlap in the fields
    // that can be checked, so a contradiction means a wrongly chosen shape.
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
