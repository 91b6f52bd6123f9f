//! Whether an image is a Go program, which release built it, and how that is known.

use std::fmt;

use crate::buildinfo::{self, BuildInfo};
use crate::image::Image;
use crate::moduledata::{self, Moduledata};
use crate::pclntab::header::{self, Format, HEADER_SIZE, Header};
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
            Release::Between(from, Some(to)) => write!(f, "go1.{from}..go1.{to}"),
            Release::Between(from, None) => write!(f, "go1.{from}.."),
        }
    }
}

/// One way in which a fact about a program was established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The build info blob of the linker.
    BuildInfo,
    /// A pclntab header and the moduledata that points at each of its tables.
    Moduledata,
    /// The moduledata's shape, which differs between releases.
    ModuledataShape,
    /// Runtime functions that only some releases have.
    FunctionInventory,
    /// A section that only Go's linker writes.
    Section,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::BuildInfo => "build info",
            Evidence::Moduledata => "pclntab and moduledata",
            Evidence::ModuledataShape => "moduledata shape",
            Evidence::FunctionInventory => "runtime functions",
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
    /// Its pclntab header and moduledata; `None` for releases whose shape is unknown.
    pub module: Option<(Header, Moduledata)>,
}

/// Recognises a Go image. `None` where it is none, though it may hold Go's magic numbers as data.
///
/// Reads the section table (if any), the writable segments and single pages of the rest; an image without a usable
/// section table is searched as a whole.
pub fn recognise(image: &Image) -> Option<GoProgram> {
    let sections = sections::read(image).filter(|s| s.iter().any(|s| s.name == ".shstrtab"));
    if sections.as_ref().is_some_and(|s| !s.iter().any(is_of_go)) {
        return None;
    }
    let build_info = buildinfo::find(image);
    let version = build_info.as_ref().and_then(|b| GoVersion::parse(&b.version));
    let headers = match sections.as_deref().map(|s| named_headers(image, s)) {
        Some(named) if !named.is_empty() => named,
        _ => header::candidates(image),
    };
    let module = moduledata::confirm(image, &headers, version.as_ref());
    let named = sections.as_ref().is_some_and(|s| s.iter().any(|s| s.name == ".go.buildinfo"));
    let mut evidence = Vec::new();
    let release = match (version, &module) {
        (Some(version), Some(_)) => {
            evidence.extend([Evidence::BuildInfo, Evidence::Moduledata]);
            Release::Exact(version)
        }
        // A release with another pclntab, or with a moduledata of a shape yet unknown.
        (Some(version), None) if named && (version.minor < OLDEST_MINOR || !headers.is_empty()) => {
            evidence.extend([Evidence::BuildInfo, Evidence::Section]);
            Release::Exact(version)
        }
        (None, Some((header, module))) => {
            evidence.push(Evidence::Moduledata);
            release_of(image, header, module, &mut evidence)
        }
        _ => return None,
    };
    Some(GoProgram { release, build_info, evidence, module })
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
        .filter_map(|s| Header::parse(s.addr, &image.read_vec(s.addr, HEADER_SIZE).ok()?))
        .collect()
}

/// Narrows the release down without build info.
fn release_of(image: &Image, header: &Header, module: &Moduledata, evidence: &mut Vec<Evidence>) -> Release {
    let (mut from, mut to) = match header.format {
        Format::Go116 => (16, Some(17)),
        Format::Go118 => (18, Some(19)),
        Format::Go120 => (20, None),
    };
    let inventory = inventory::minors(image, header, module);
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
    if to.is_some_and(|to| to < from) { Release::Between(from, None) } else { Release::Between(from, to) }
}
