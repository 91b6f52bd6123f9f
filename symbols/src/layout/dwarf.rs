//! Layouts from DWARF, of the target itself or of the program that a table is made from.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gimli::{AttributeValue, DebugInfoOffset, EndianSlice, LittleEndian, UnitOffset};
use object::{Object as _, ObjectSection as _};

use super::wanted::{ATOMIC_PACKAGES, TYPES, VARIABLES};
use super::{Field, Struct, Table};

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = gimli::DebuggingInformationEntry<Reader<'a>>;

/// A unit without what its root entry refers to (line programs, ranges): those sections are not loaded.
struct Unit<'a> {
    /// Where it begins in `.debug_info`.
    start: usize,
    header: gimli::UnitHeader<Reader<'a>>,
    abbreviations: Arc<gimli::Abbreviations>,
}

impl<'a> Unit<'a> {
    fn entry(&self, offset: UnitOffset) -> Option<Entry<'a>> {
        self.header.entry(&self.abbreviations, offset).ok()
    }
}

/// More uncompressed DWARF than any Go program has.
const MAX_SECTION: u64 = 2 << 30;
/// deflate and zstd do not expand more than this in earnest.
const MAX_EXPANSION: u64 = 1100;
/// Structs within structs.
const MAX_DEPTH: usize = 12;
/// Fields of one struct with those of its inner structs.
const MAX_FIELDS: usize = 4096;
/// Type names behind type names.
const MAX_TYPEDEFS: usize = 16;
const MAX_NAME: usize = 128;

/// Why a file's DWARF gives no layouts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DwarfError {
    /// Not an ELF file, or its sections are damaged.
    #[error("the sections of the file are damaged: {0}")]
    Elf(#[from] object::Error),
    /// A compressed section claims an impossible size.
    #[error("section {0} claims an impossible size")]
    Size(&'static str),
    /// There is no `.debug_info`.
    #[error("no DWARF in the file")]
    Missing,
    /// The DWARF is damaged.
    #[error("the DWARF of the file is damaged: {0}")]
    Dwarf(#[from] gimli::Error),
    /// There is DWARF, but it does not describe the Go runtime (`runtime.g`, `runtime.m`).
    #[error("the DWARF of the file does not describe the Go runtime")]
    NoRuntime,
}

/// The layouts that the DWARF of an ELF file describes. They are right for this very file, whatever its version
/// and GOEXPERIMENTs. Wait reasons are not in DWARF.
///
/// # Errors
/// Where the file has no DWARF or it is damaged.
pub fn from_dwarf(elf: &[u8]) -> Result<Table, DwarfError> {
    let file = object::File::parse(elf)?;
    let info = section(&file, ".debug_info")?.ok_or(DwarfError::Missing)?;
    let abbrev = section(&file, ".debug_abbrev")?.ok_or(DwarfError::Missing)?;
    // Go writes names in place; a C compiler's units do not, and are not looked at.
    let mut dwarf = gimli::Dwarf::<Reader<'_>> {
        debug_info: gimli::DebugInfo::new(&info, LittleEndian),
        debug_abbrev: gimli::DebugAbbrev::new(&abbrev, LittleEndian),
        ..gimli::Dwarf::default()
    };
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    Reading::open(&dwarf)?.table()
}

fn section<'a>(file: &object::File<'a>, name: &'static str) -> Result<Option<Cow<'a, [u8]>>, DwarfError> {
    let Some(section) = file.section_by_name(name) else { return Ok(None) };
    let compressed = section.compressed_data()?;
    let (packed, unpacked) = (compressed.data.len() as u64, compressed.uncompressed_size);
    if unpacked > MAX_SECTION || unpacked > packed.saturating_mul(MAX_EXPANSION) {
        return Err(DwarfError::Size(name));
    }
    Ok(Some(compressed.decompress()?))
}

struct Reading<'a> {
    /// By start.
    units: Vec<Unit<'a>>,
}

/// Where a type is described: the index of the unit, and the place in it.
type Place = (usize, UnitOffset);

/// A type without its names.
struct Shape {
    place: Place,
    size: u64,
    is_struct: bool,
    name: Option<String>,
}

impl<'a> Reading<'a> {
    fn open(dwarf: &gimli::Dwarf<Reader<'a>>) -> Result<Self, DwarfError> {
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(DebugInfoOffset(start)) = header.debug_info_offset() else { continue };
            let abbreviations = dwarf.abbreviations(&header)?;
            units.push(Unit { start, header, abbreviations });
        }
        Ok(Reading { units })
    }

    fn table(&self) -> Result<Table, DwarfError> {
        let (types, variables) = self.find();
        let mut table = Table::default();
        for (&name, &place) in &types {
            if let Some(shape) = self.shape(place) {
                table.structs.insert(Cow::Borrowed(name), self.flatten(&shape));
            }
        }
        for (&name, &place) in &variables {
            let Some(shape) = self.shape(place) else { continue };
            match shape.name.as_deref().and_then(|n| TYPES.iter().find(|t| **t == n)) {
                Some(known) if table.structs.contains_key(*known) => {
                    table.variables.insert(Cow::Borrowed(name), Cow::Borrowed(known));
                }
                _ => {
                    table.structs.insert(Cow::Borrowed(name), self.flatten(&shape));
                }
            }
        }
        let complete = ["runtime.g", "runtime.m"].iter().all(|t| table.structs.contains_key(*t));
        if complete { Ok(table) } else { Err(DwarfError::NoRuntime) }
    }

    /// Where the wanted types, and the types of the wanted variables, are described.
    fn find(&self) -> (BTreeMap<&'static str, Place>, BTreeMap<&'static str, Place>) {
        let wanted_types: BTreeSet<&'static str> = TYPES.iter().copied().collect();
        let wanted_variables: BTreeSet<&'static str> = VARIABLES.iter().copied().collect();
        let (mut types, mut variables) = (BTreeMap::new(), BTreeMap::new());
        for (index, unit) in self.units.iter().enumerate() {
            let mut entries = unit.header.entries(&unit.abbreviations);
            // A unit that is damaged, or in a form that only C compilers write, ends early.
            while let Ok(Some(entry)) = entries.next_dfs() {
                if entry.depth() != 1 {
                    continue;
                }
                let offset = entry.offset();
                match entry.tag() {
                    gimli::DW_TAG_structure_type | gimli::DW_TAG_typedef | gimli::DW_TAG_base_type => {
                        if let Some(name) = known(entry, &wanted_types) {
                            types.entry(name).or_insert((index, offset));
                        }
                    }
                    gimli::DW_TAG_variable => {
                        if let Some(name) = known(entry, &wanted_variables)
                            && let Some(place) = self.type_of(index, entry)
                        {
                            variables.entry(name).or_insert(place);
                        }
                    }
                    _ => {}
                }
            }
        }
        (types, variables)
    }

    fn type_of(&self, unit: usize, entry: &Entry<'a>) -> Option<Place> {
        match entry.attr_value(gimli::DW_AT_type)? {
            AttributeValue::UnitRef(offset) => Some((unit, offset)),
            AttributeValue::DebugInfoRef(DebugInfoOffset(at)) => {
                let index = self.units.partition_point(|u| u.start <= at).checked_sub(1)?;
                Some((index, UnitOffset(at - self.units.get(index)?.start)))
            }
            _ => None,
        }
    }

    /// Follows type names to the type itself. The first struct's name is kept, for `type a b` is a `b`.
    fn shape(&self, mut place: Place) -> Option<Shape> {
        for _ in 0..MAX_TYPEDEFS {
            let unit = self.units.get(place.0)?;
            let entry = unit.entry(place.1)?;
            let size = || entry.attr_value(gimli::DW_AT_byte_size).and_then(|v| v.udata_value());
            let (size, is_struct) = match entry.tag() {
                gimli::DW_TAG_typedef => {
                    place = self.type_of(place.0, &entry)?;
                    continue;
                }
                gimli::DW_TAG_structure_type => (size()?, true),
                // Go gives a pointer no size: it is the machine's.
                gimli::DW_TAG_pointer_type | gimli::DW_TAG_subroutine_type => {
                    (size().unwrap_or(u64::from(unit.header.encoding().address_size)), false)
                }
                _ => (size()?, false),
            };
            return Some(Shape { place, size, is_struct, name: name(&entry) });
        }
        None
    }

    fn flatten(&self, shape: &Shape) -> Struct {
        let mut fields = HashMap::new();
        if shape.is_struct {
            self.members(shape.place, "", 0, 0, &mut fields);
        }
        let mut fields: Vec<(Cow<'static, str>, Field)> =
            fields.into_iter().map(|(name, field)| (Cow::Owned(name), field)).collect();
        fields.retain(|(_, f)| f.offset.checked_add(f.size).is_some_and(|end| end <= shape.size));
        fields.sort();
        Struct { size: shape.size, fields }
    }

    fn members(
        &self,
        place: Place,
        prefix: &str,
        base: u64,
        depth: usize,
        fields: &mut HashMap<String, Field>,
    ) -> Option<()> {
        let unit = self.units.get(place.0)?;
        let mut tree = unit.header.entries_tree(&unit.abbreviations, Some(place.1)).ok()?;
        let mut children = tree.root().ok()?.children();
        while let Ok(Some(child)) = children.next() {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_member || fields.len() >= MAX_FIELDS {
                continue;
            }
            let Some(name) = name(entry) else { continue };
            let Some(offset) = member_offset(entry, unit.header.encoding()) else { continue };
            let Some(shape) = self.type_of(place.0, entry).and_then(|p| self.shape(p)) else { continue };
            let Some(offset) = base.checked_add(offset) else { continue };
            if name == "_" || shape.size == 0 {
                continue;
            }
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let atomic =
                shape.name.as_deref().is_some_and(|n| ATOMIC_PACKAGES.iter().any(|p| n.starts_with(p)));
            if shape.is_struct && !atomic && depth < MAX_DEPTH {
                self.members(shape.place, &path, offset, depth + 1, fields);
            }
            fields.insert(path, Field { offset, size: shape.size });
        }
        Some(())
    }
}

fn name(entry: &Entry<'_>) -> Option<String> {
    match entry.attr_value(gimli::DW_AT_name)? {
        AttributeValue::String(s) if s.len() <= MAX_NAME => {
            std::str::from_utf8(s.slice()).ok().map(str::to_owned)
        }
        _ => None,
    }
}

/// The wanted name that the entry has, without a copy.
fn known(entry: &Entry<'_>, wanted: &BTreeSet<&'static str>) -> Option<&'static str> {
    match entry.attr_value(gimli::DW_AT_name)? {
        AttributeValue::String(s) => wanted.get(std::str::from_utf8(s.slice()).ok()?).copied(),
        _ => None,
    }
}

fn member_offset(entry: &Entry<'_>, encoding: gimli::Encoding) -> Option<u64> {
    match entry.attr_value(gimli::DW_AT_data_member_location)? {
        // DWARF 2 form: DW_OP_plus_uconst N.
        AttributeValue::Exprloc(expression) => match expression.operations(encoding).next().ok()?? {
            gimli::Operation::PlusConstant { value } => Some(value),
            gimli::Operation::UnsignedConstant { value } => Some(value),
            _ => None,
        },
        other => other.udata_value(),
    }
}
