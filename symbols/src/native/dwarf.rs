//! Lines and inlined functions by DWARF.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use addr2line::Context;
use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian, SectionId, UnitOffset};

use super::elf::Sections;
use super::reader::{Meter, Metered};
use crate::layout::dwarf::abbreviations::Abbreviations;

/// Uncompressed DWARF of a file. What has more is shown without lines.
const MAX_DWARF: u64 = 768 << 20;
/// What is read of ranges, and of lines: more is kept of them than there is in the file.
const MAX_RANGES: u64 = 192 << 20;
const MAX_LINES: u64 = 256 << 20;
/// Units of a file: what is kept of one is more than the few bytes that it takes there.
const MAX_UNITS: usize = 1 << 18;
/// Entries within entries: addr2line follows them by recursion.
const MAX_DEPTH: isize = 200;
/// Functions inlined into each other.
const MAX_INLINED: usize = 64;
const MAX_TEXT: usize = 16 << 10;
/// Entries that refer to entries.
const MAX_ORIGINS: usize = 8;
const MAX_STARTS: usize = 1 << 20;

/// The DWARF of a file.
pub(super) struct Lines {
    context: Context<Metered>,
    /// The lines where functions begin, by unit and entry.
    starts: Mutex<HashMap<(usize, usize), u32>>,
}

/// A function at an address: of those inlined there, or the one that is called.
pub(super) struct FoundName {
    pub(super) name: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: u32,
    pub(super) start_line: u32,
}

impl Lines {
    /// `alt` is what `.gnu_debugaltlink` refers to. `None` where there is no DWARF, or it is too large or too damaged.
    pub(super) fn load(sections: &Sections<'_>, alt: Option<&Sections<'_>>) -> Option<Self> {
        let mut left = MAX_DWARF;
        let mut dwarf = load(sections, &mut left)?;
        if let Some(alt) = alt.and_then(|alt| load(alt, &mut left)) {
            dwarf.set_sup(alt);
        }
        let context = Context::from_dwarf(dwarf).ok()?;
        Some(Lines { context, starts: Mutex::default() })
    }

    /// The functions at an address, innermost first; empty where nothing is known.
    pub(super) fn at(&self, addr: u64) -> Vec<FoundName> {
        let mut all = Vec::new();
        let Ok(mut frames) = self.context.find_frames(addr).skip_all_loads() else { return all };
        while let Ok(Some(frame)) = frames.next() {
            if all.len() >= MAX_INLINED {
                break;
            }
            let name = frame
                .function
                .and_then(|f| f.raw_name().ok().filter(|n| n.len() <= MAX_TEXT).map(Into::into));
            let start_line = frame.dw_die_offset.map_or(0, |offset| self.start_line(addr, offset));
            let (file, line) = frame.location.map_or((None, 0), |l| (l.file, l.line.unwrap_or(0)));
            let file = file.filter(|f| f.len() <= MAX_TEXT).map(str::to_owned);
            all.push(FoundName { name, file, line, start_line });
        }
        all
    }

    /// Where the function of an entry begins: 0 for unknown.
    fn start_line(&self, addr: u64, offset: UnitOffset) -> u32 {
        let Some(unit) = self.context.find_dwarf_and_unit(addr).skip_all_loads() else { return 0 };
        let key = (unit.header.debug_info_offset().map_or(usize::MAX, |o| o.0), offset.0);
        if let Some(&line) = self.starts.lock().ok().and_then(|s| s.get(&key).copied()).as_ref() {
            return line;
        }
        let line = declared(&unit, offset).unwrap_or(0);
        if let Ok(mut starts) = self.starts.lock()
            && starts.len() < MAX_STARTS
        {
            starts.insert(key, line);
        }
        line
    }
}

/// The line of an entry's declaration, or of the one that it is an instance of, in the same unit.
fn declared(unit: &gimli::UnitRef<'_, Metered>, mut offset: UnitOffset) -> Option<u32> {
    for _ in 0..MAX_ORIGINS {
        let entry = unit.entry(offset).ok()?;
        if let Some(line) = entry.attr_value(gimli::DW_AT_decl_line).and_then(|v| v.udata_value()) {
            return u32::try_from(line).ok();
        }
        let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
        offset = match origin.or_else(|| entry.attr_value(gimli::DW_AT_specification))? {
            AttributeValue::UnitRef(offset) => offset,
            AttributeValue::DebugInfoRef(at) => at.to_unit_offset(unit)?,
            _ => return None,
        };
    }
    None
}

/// Sections besides those of entries and abbreviations.
const PARTS: [SectionId; 8] = [
    SectionId::DebugLine,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugAranges,
    SectionId::DebugAddr,
    SectionId::DebugStr,
    SectionId::DebugLineStr,
    SectionId::DebugStrOffsets,
];

/// What [`Lines::load`] takes in memory at most, in bytes: the sections; what is kept of ranges, lines and entries besides; and
/// what the largest takes while it is unpacked.
pub(super) fn size(sections: &Sections<'_>, alt: Option<&Sections<'_>>) -> u64 {
    let of = |sections: &Sections<'_>, id: SectionId| sections.size(id.name());
    let all = PARTS.into_iter().chain([SectionId::DebugInfo, SectionId::DebugAbbrev]);
    let both = std::iter::once(sections).chain(alt);
    let (mut kept, mut meanwhile) = (0u64, 0);
    for (sections, id) in both.flat_map(|sections| all.clone().map(move |id| (sections, id))) {
        let (size, more) = of(sections, id);
        // What is larger is not read.
        if size > MAX_DWARF {
            continue;
        }
        let besides = match id {
            SectionId::DebugRanges | SectionId::DebugRngLists | SectionId::DebugAranges => {
                (3 * size).min(MAX_RANGES)
            }
            SectionId::DebugLine => (2 * size).min(MAX_LINES),
            SectionId::DebugInfo => size / 2,
            _ => 0,
        };
        kept += size + besides;
        meanwhile = meanwhile.max(more);
    }
    kept.saturating_add(meanwhile)
}

fn load(sections: &Sections<'_>, left: &mut u64) -> Option<Dwarf<Metered>> {
    let mut section = |name: &str| {
        let bytes = sections.bytes(name, *left).unwrap_or_default();
        *left = left.saturating_sub(bytes.len() as u64);
        bytes
    };
    let (info, abbrev) = (section(".debug_info"), section(".debug_abbrev"));
    if info.is_empty() || !is_flat(&info, &abbrev) {
        return None;
    }
    let parts: HashMap<SectionId, Arc<[u8]>> = PARTS
        .into_iter()
        .map(|id| (id, section(id.name())))
        .chain([(SectionId::DebugInfo, info), (SectionId::DebugAbbrev, abbrev)])
        .collect();
    // Each in proportion to what there is: of ranges and of lines more is kept than is read.
    let size = |id: SectionId| parts.get(&id).map_or(0, |p| p.len() as u64);
    let ranges =
        size(SectionId::DebugRanges) + size(SectionId::DebugRngLists) + size(SectionId::DebugAranges);
    let ranges = Meter::new((3 * ranges).min(MAX_RANGES) + (64 << 10));
    let lines = Meter::new((2 * size(SectionId::DebugLine)).min(MAX_LINES) + (64 << 10));
    let total: u64 = parts.values().map(|p| p.len() as u64).sum();
    let rest = Meter::new(8 * total + (4 << 20));
    let load = |id: SectionId| {
        let meter = match id {
            SectionId::DebugRanges | SectionId::DebugRngLists | SectionId::DebugAranges => &ranges,
            SectionId::DebugLine => &lines,
            _ => &rest,
        };
        Ok::<_, ()>(Metered::new(parts.get(&id).cloned().unwrap_or_default(), meter))
    };
    Dwarf::load(load).ok()
}

/// Whether no entries lie deeper within each other than a compiler puts them, and all can be read.
fn is_flat(info: &[u8], abbrev: &[u8]) -> bool {
    let info = gimli::DebugInfo::from(EndianSlice::new(info, LittleEndian));
    let mut known = Abbreviations::new(abbrev);
    let mut units = info.units();
    let mut count = 0;
    // What is damaged ends the search here as it will later.
    while let Ok(Some(unit)) = units.next() {
        count += 1;
        if count > MAX_UNITS {
            return false;
        }
        let Ok(abbreviations) = known.at(unit.debug_abbrev_offset().0) else { return false };
        let Ok(mut entries) = unit.entries_raw(&abbreviations, None) else { continue };
        while !entries.is_empty() {
            if entries.next_depth() > MAX_DEPTH {
                return false;
            }
            match entries.read_abbreviation() {
                Ok(Some(abbreviation)) if entries.skip_attributes(abbreviation.attributes()).is_err() => {
                    break;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    true
}
