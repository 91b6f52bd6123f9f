//! Layouts from DWARF, of the examined program itself or of the program that a table is made from.

pub(crate) mod abbreviations;
mod work;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abbreviations::Abbreviations;
use gimli::{AttributeValue, DebugInfoOffset, EndianSlice, LittleEndian, UnitOffset};
use object::{Object as _, ObjectSection as _};

use super::wanted::{ATOMIC_PACKAGES, TYPES, VARIABLES};
use super::{Entry as Layout, Field, Struct, Table};
use work::Work;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = gimli::DebuggingInformationEntry<Reader<'a>>;

/// Compilation unit without the sections that its root entry refers to (line programs, ranges): they are not
/// loaded.
struct Unit<'a> {
    /// Offset of the unit in `.debug_info`.
    start: usize,
    header: gimli::UnitHeader<Reader<'a>>,
    abbreviations: Arc<gimli::Abbreviations>,
}

impl<'a> Unit<'a> {
    fn entry(&self, offset: UnitOffset) -> Option<Entry<'a>> {
        self.header.entry(&self.abbreviations, offset).ok()
    }
}

/// Maximum size of an uncompressed section in bytes; no Go program has more.
const MAX_SECTION: u64 = 2 << 30;
/// Maximum number of compilation units. Go has one for each package.
const MAX_UNITS: usize = 1 << 18;
/// Maximum cost of following the wanted types, in attributes and bytes of text. A real program costs one
/// percent of it.
const MAX_FOLLOWED: usize = 64 << 20;
/// Maximum compression ratio. Real data compressed by deflate or zstd does not expand more.
const MAX_EXPANSION: u64 = 1100;
/// Maximum depth of structs within structs.
const MAX_DEPTH: usize = 12;
/// Maximum number of fields of one struct, including the fields of its inner structs.
const MAX_FIELDS: usize = 1024;
/// Maximum length of a chain of type names, each an alias of the next.
const MAX_TYPEDEFS: usize = 16;
const MAX_NAME: usize = 128;
/// Maximum length of a dotted field name in bytes.
const MAX_PATH: usize = 256;

/// Error of reading layouts from a file's DWARF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DwarfError {
    /// Not an ELF file, or damaged sections.
    #[error("the sections of the file are damaged: {0}")]
    Elf(#[from] object::Error),
    /// Compressed section that claims an impossible size.
    #[error("section {0} claims an impossible size")]
    Size(&'static str),
    /// File without `.debug_info`.
    #[error("no DWARF in the file")]
    Missing,
    /// Damaged DWARF.
    #[error("the DWARF of the file is damaged: {0}")]
    Dwarf(#[from] gimli::Error),
    /// DWARF whose parts refer to each other or overlap, so that reading takes too long.
    #[error("the DWARF of the file takes too long to read")]
    TooMuch,
    /// DWARF that does not describe the Go runtime (`runtime.g`, `runtime.m`).
    #[error("the DWARF of the file does not describe the Go runtime")]
    NoRuntime,
}

/// Returns the layouts that the DWARF of an ELF file describes. They are correct for this file, whatever its
/// version and GOEXPERIMENTs. DWARF does not contain wait reasons.
///
/// # Errors
/// Returns [`DwarfError`] if the file has no DWARF, if the DWARF is damaged or too costly, or if it does not
/// describe the Go runtime.
pub fn from_dwarf(elf: &[u8]) -> Result<Table, DwarfError> {
    let file = object::File::parse(elf)?;
    let info = section(&file, ".debug_info")?.ok_or(DwarfError::Missing)?;
    let abbrev = section(&file, ".debug_abbrev")?.ok_or(DwarfError::Missing)?;
    read(&info, &abbrev)
}

fn read(info: &[u8], abbrev: &[u8]) -> Result<Table, DwarfError> {
    // Only names in place are read, as Go writes them. Units of C compilers have other names and are ignored.
    Reading::open(info, abbrev)?.table()
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
    /// Compilation units, sorted by offset.
    units: Vec<Unit<'a>>,
    /// Budget for finding the wanted names: little more than the cost of reading everything once.
    found: Work,
    followed: Work,
}

/// Place of a type description: index of the unit, and offset in it.
type Place = (usize, UnitOffset);

/// Description of a type, without the names of fields.
struct Shape {
    place: Place,
    size: u64,
    is_struct: bool,
    name: Option<String>,
}

impl<'a> Reading<'a> {
    fn open(info: &'a [u8], abbrev: &'a [u8]) -> Result<Self, DwarfError> {
        let debug_info = gimli::DebugInfo::new(info, LittleEndian);
        let mut known = Abbreviations::new(abbrev);
        let mut units = Vec::new();
        let mut headers = debug_info.units();
        while let Some(header) = headers.next()? {
            let Some(DebugInfoOffset(start)) = header.debug_info_offset() else { continue };
            if units.len() >= MAX_UNITS {
                return Err(DwarfError::TooMuch);
            }
            let abbreviations = known.at(header.debug_abbrev_offset().0)?;
            units.push(Unit { start, header, abbreviations });
        }
        // Budget by size: nearly every attribute has at least one byte; a few have none.
        let found = Work::new(2 * info.len() + (1 << 20));
        Ok(Reading { units, found, followed: Work::new(MAX_FOLLOWED) })
    }

    fn table(&self) -> Result<Table, DwarfError> {
        let (types, variables) = self.find();
        let mut table = Table::default();
        for (&name, &place) in &types {
            if let Some(shape) = self.shape(place) {
                table.structs.insert(Cow::Borrowed(name), Layout::Struct(self.flatten(&shape)));
            }
        }
        for (&name, &place) in &variables {
            let Some(shape) = self.shape(place) else { continue };
            match shape.name.as_deref().and_then(|n| TYPES.iter().find(|t| **t == n)) {
                Some(known) if table.structs.contains_key(*known) => {
                    table.variables.insert(Cow::Borrowed(name), Cow::Borrowed(known));
                }
                _ => {
                    table.structs.insert(Cow::Borrowed(name), Layout::Struct(self.flatten(&shape)));
                }
            }
        }
        if self.found.is_used_up() || self.followed.is_used_up() {
            return Err(DwarfError::TooMuch);
        }
        let complete = ["runtime.g", "runtime.m"].iter().all(|t| table.structs.contains_key(*t));
        if complete { Ok(table) } else { Err(DwarfError::NoRuntime) }
    }

    /// Finds the places of the wanted types, and of the types of the wanted variables.
    fn find(&self) -> (BTreeMap<&'static str, Place>, BTreeMap<&'static str, Place>) {
        let wanted_types: BTreeSet<&'static str> = TYPES.iter().copied().collect();
        let wanted_variables: BTreeSet<&'static str> = VARIABLES.iter().copied().collect();
        let (mut types, mut variables) = (BTreeMap::new(), BTreeMap::new());
        for (index, unit) in self.units.iter().enumerate() {
            let mut entries = unit.header.entries(&unit.abbreviations);
            // Early end of a unit that is damaged, or in a form that only C compilers write.
            while let Ok(Some(entry)) = entries.next_dfs() {
                if self.found.entry(entry).is_none() {
                    return (types, variables);
                }
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

    /// Follows type names to the type itself. For `type a b`, the name of the struct is `b`.
    fn shape(&self, mut place: Place) -> Option<Shape> {
        for _ in 0..MAX_TYPEDEFS {
            let unit = self.units.get(place.0)?;
            let entry = unit.entry(place.1)?;
            self.followed.entry(&entry)?;
            let size = || entry.attr_value(gimli::DW_AT_byte_size).and_then(|v| v.udata_value());
            let (size, is_struct) = match entry.tag() {
                gimli::DW_TAG_typedef => {
                    place = self.type_of(place.0, &entry)?;
                    continue;
                }
                gimli::DW_TAG_structure_type => (size()?, true),
                // Size of a pointer: Go's DWARF omits it, so the machine's address size counts.
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
        let mut fields = Vec::new();
        if shape.is_struct {
            self.members(shape.place, "", 0, 0, &mut fields);
        }
        fields.retain(|(_, f)| f.offset.checked_add(f.size).is_some_and(|end| end <= shape.size));
        fields.sort();
        fields.dedup_by(|a, b| a.0 == b.0);
        Struct { size: shape.size, fields }
    }

    fn members(
        &self,
        place: Place,
        prefix: &str,
        base: u64,
        depth: usize,
        fields: &mut Vec<(Cow<'static, str>, Field)>,
    ) -> Option<()> {
        let unit = self.units.get(place.0)?;
        let mut entries = unit.header.entries_at_offset(&unit.abbreviations, place.1).ok()?;
        entries.next_entry().ok()?;
        while entries.next_depth() > 0 && entries.next_entry().ok()? {
            // End of a list of children.
            let Some(entry) = entries.current() else {
                self.followed.spend(1)?;
                continue;
            };
            self.followed.entry(entry)?;
            if entry.depth() != 1 || entry.tag() != gimli::DW_TAG_member || fields.len() >= MAX_FIELDS {
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
            if path.len() > MAX_PATH {
                continue;
            }
            fields.push((Cow::Owned(path.clone()), Field { offset, size: shape.size }));
            if shape.is_struct && !atomic && depth < MAX_DEPTH {
                self.members(shape.place, &path, offset, depth + 1, fields);
            }
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

/// Returns the wanted name that the entry has, without a copy.
fn known(entry: &Entry<'_>, wanted: &BTreeSet<&'static str>) -> Option<&'static str> {
    match entry.attr_value(gimli::DW_AT_name)? {
        AttributeValue::String(s) => wanted.get(std::str::from_utf8(s.slice()).ok()?).copied(),
        _ => None,
    }
}

fn member_offset(entry: &Entry<'_>, encoding: gimli::Encoding) -> Option<u64> {
    match entry.attr_value(gimli::DW_AT_data_member_location)? {
        // Offset in the form of DWARF 2: DW_OP_plus_uconst N.
        AttributeValue::Exprloc(expression) => match expression.operations(encoding).next().ok()?? {
            gimli::Operation::PlusConstant { value } => Some(value),
            gimli::Operation::UnsignedConstant { value } => Some(value),
            _ => None,
        },
        other => other.udata_value(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Abbreviations: 1 unit, 2 struct, 3 member, 4 base type, 5 variable, 6 type name.
    const ABBREV: &[u8] = &[
        1, 0x11, 1, 0, 0, // compile unit with children
        2, 0x13, 1, 0x03, 0x08, 0x0b, 0x0b, 0, 0, // struct: name, byte size
        3, 0x0d, 0, 0x03, 0x08, 0x38, 0x0b, 0x49, 0x13, 0, 0, // member: name, location, type
        4, 0x24, 0, 0x03, 0x08, 0x0b, 0x0b, 0, 0, // base type: name, byte size
        5, 0x34, 0, 0x03, 0x08, 0x49, 0x13, 0, 0, // variable: name, type
        6, 0x16, 0, 0x03, 0x08, 0x49, 0x13, 0, 0, // type name: name, type
        0,
    ];

    /// Builder of a unit. Offsets of entries count from the start of the unit, whose header has 11 bytes.
    struct Unit {
        bytes: Vec<u8>,
    }

    impl Unit {
        fn new() -> Self {
            Unit { bytes: vec![0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1] }
        }

        fn entry(&mut self, code: u8, name: &str, rest: &[u8]) -> u32 {
            let at = self.bytes.len() as u32;
            self.bytes.push(code);
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.push(0);
            self.bytes.extend_from_slice(rest);
            at
        }

        fn member(&mut self, name: &str, at: u8, of: u32) {
            let rest: Vec<u8> = [at].into_iter().chain(of.to_le_bytes()).collect();
            self.entry(3, name, &rest);
        }

        fn end(&mut self) {
            self.bytes.push(0);
        }

        fn finish(mut self) -> Vec<u8> {
            self.end();
            let len = (self.bytes.len() - 4) as u32;
            self.bytes[..4].copy_from_slice(&len.to_le_bytes());
            self.bytes
        }
    }

    fn sample() -> Vec<u8> {
        let mut unit = Unit::new();
        let word = unit.entry(4, "uint64", &[8]);
        let gobuf = unit.entry(2, "runtime.gobuf", &[16]);
        unit.member("sp", 0, word);
        unit.member("pc", 8, word);
        unit.end();
        let atomic = unit.entry(2, "internal/runtime/atomic.Uint64", &[8]);
        unit.member("value", 0, word);
        unit.end();
        let alias = unit.entry(6, "runtime.buffer", &gobuf.to_le_bytes());
        unit.entry(2, "runtime.g", &[32]);
        unit.member("goid", 0, word);
        unit.member("sched", 8, alias);
        unit.member("atomicstatus", 24, atomic);
        unit.member("outside", 30, word);
        unit.end();
        let m = unit.entry(2, "runtime.m", &[8]);
        unit.member("id", 0, word);
        unit.end();
        unit.entry(5, "runtime.m0", &m.to_le_bytes());
        unit.finish()
    }

    #[test]
    fn structs_aliases_and_variables() {
        let table = read(&sample(), ABBREV).unwrap();
        let field = |name| table.field("runtime.g", name);
        assert_eq!(field("sched"), Some(Field { offset: 8, size: 16 }));
        assert_eq!(field("sched.pc"), Some(Field { offset: 16, size: 8 }));
        assert_eq!(field("atomicstatus"), Some(Field { offset: 24, size: 8 }));
        assert_eq!(field("atomicstatus.value"), None);
        assert_eq!(field("outside"), None);
        assert_eq!(table.size("runtime.m0"), Some(8));
        assert_eq!(table.variables().next(), Some(("runtime.m0", "runtime.m")));
    }

    #[test]
    fn what_is_no_elf_is_an_error() {
        assert!(matches!(from_dwarf(b""), Err(DwarfError::Elf(_))));
        assert!(matches!(read(&[], ABBREV), Err(DwarfError::NoRuntime)));
    }

    #[test]
    fn units_share_abbreviations() {
        let more: Vec<u8> = (0..100).flat_map(|_| Unit::new().finish()).chain(sample()).collect();
        assert_eq!(read(&more, ABBREV).unwrap(), read(&sample(), ABBREV).unwrap());
    }

    #[test]
    fn units_whose_abbreviations_overlap_are_too_much() {
        // Abbreviation lists that overlap: 20,000 kinds of entries, readable from each kind on.
        let kinds = 20_000usize;
        let mut abbrev = Vec::new();
        let mut starts = Vec::new();
        for code in 1..=kinds {
            starts.push(abbrev.len() as u32);
            let low = (code & 0x7f) as u8 | 0x80;
            abbrev.extend([low, (code >> 7 & 0x7f) as u8 | 0x80, (code >> 14) as u8, 0x24, 0, 0, 0]);
        }
        abbrev.push(0);
        let info: Vec<u8> = starts
            .iter()
            .flat_map(|start| {
                let mut unit = Unit::new().finish();
                unit[6..10].copy_from_slice(&start.to_le_bytes());
                unit
            })
            .collect();
        assert!(matches!(read(&info, &abbrev), Err(DwarfError::TooMuch)));
        let mut known = Abbreviations::new(&abbrev);
        let read = starts.iter().take_while(|s| known.at(**s as usize).is_ok()).count();
        assert!(read < 20, "{read}");
    }

    #[test]
    fn entries_that_cost_more_than_their_bytes_are_too_much() {
        // Attributes without bytes: a thousand in each of a million entries of one byte.
        let mut abbrev = ABBREV.strip_suffix(&[0]).unwrap().to_vec();
        abbrev.extend([7, 0x24, 0]);
        abbrev.extend([0x3f, 0x19].repeat(1000));
        abbrev.extend([0, 0, 0]);
        let mut unit = Unit::new();
        unit.bytes.extend(vec![7; 1 << 20]);
        assert!(matches!(read(&unit.finish(), &abbrev), Err(DwarfError::TooMuch)));
    }

    #[test]
    fn members_of_a_large_struct_within_each_other_are_too_much() {
        // Repeated type: a thousand members have it, and it has a hundred thousand entries that are no members.
        let mut unit = Unit::new();
        let word = unit.entry(4, "uint64", &[8]);
        let large = unit.entry(2, "x", &[8]);
        for _ in 0..100_000 {
            unit.entry(4, "", &[0]);
        }
        unit.end();
        unit.entry(2, "runtime.g", &[8]);
        for i in 0..1000 {
            unit.member(&format!("f{i}"), 0, large);
        }
        unit.member("goid", 0, word);
        unit.end();
        unit.entry(2, "runtime.m", &[8]);
        unit.end();
        assert!(matches!(read(&unit.finish(), ABBREV), Err(DwarfError::TooMuch)));
    }

    #[test]
    fn a_struct_within_itself_ends() {
        let mut unit = Unit::new();
        let this = unit.bytes.len() as u32;
        unit.entry(2, "runtime.g", &[8]);
        unit.member("self", 0, this);
        unit.end();
        unit.entry(2, "runtime.m", &[8]);
        unit.member("alias", 0, this);
        unit.end();
        let table = read(&unit.finish(), ABBREV).unwrap();
        assert!(table.get("runtime.g").unwrap().fields().count() <= MAX_DEPTH + 1);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes(elf in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = from_dwarf(&elf);
            let _ = read(&elf, ABBREV);
            let _ = read(&sample(), &elf);
        }

        #[test]
        fn damaged_bytes(at in 0usize..400, byte in any::<u8>()) {
            let mut info = sample();
            let at = at % info.len();
            info[at] = byte;
            let _ = read(&info, ABBREV);
        }
    }
}
