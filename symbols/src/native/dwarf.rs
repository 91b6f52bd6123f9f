//! Source lines and inlined functions from DWARF.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use addr2line::Context;
use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian, SectionId, UnitOffset};

use super::elf::Sections;
use super::reader::{Meter, Metered};
use crate::layout::dwarf::abbreviations::Abbreviations;

/// Maximum size of a file's uncompressed DWARF in bytes. Frames of a file with more are shown without lines.
const MAX_DWARF: u64 = 768 << 20;
/// Maximum number of bytes that are read of ranges, and of lines. In memory, both need more than in the file.
const MAX_RANGES: u64 = 192 << 20;
const MAX_LINES: u64 = 256 << 20;
/// Maximum number of compilation units in a file. A unit can have few bytes in the file, but needs more in
/// memory.
const MAX_UNITS: usize = 1 << 18;
/// Maximum depth of entries within entries. The crate `addr2line` follows them by recursion.
const MAX_DEPTH: isize = 200;
/// Maximum number of functions inlined into each other.
const MAX_INLINED: usize = 64;
const MAX_TEXT: usize = 16 << 10;
/// Maximum length of a chain of entries that refer to entries.
const MAX_ORIGINS: usize = 8;
const MAX_STARTS: usize = 1 << 20;

/// DWARF of a file, for line look-ups.
pub(super) struct Lines {
    context: Context<Metered>,
    /// Line where a function begins, by unit and entry.
    starts: Mutex<HashMap<(usize, usize), u32>>,
}

/// Function at an address: an inlined one, or the called one that contains them.
pub(super) struct FoundName {
    pub(super) name: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: u32,
    pub(super) start_line: u32,
}

impl Lines {
    /// Loads the DWARF of a file. `alt` is the file that `.gnu_debugaltlink` refers to. `None` if there is no
    /// DWARF, or if it is too large or too damaged.
    pub(super) fn load(sections: &Sections<'_>, alt: Option<&Sections<'_>>) -> Option<Self> {
        let mut left = MAX_DWARF;
        let mut dwarf = load(sections, &mut left)?;
        if let Some(alt) = alt.and_then(|alt| load(alt, &mut left)) {
            dwarf.set_sup(alt);
        }
        let context = Context::from_dwarf(dwarf).ok()?;
        Some(Lines { context, starts: Mutex::default() })
    }

    /// Returns the functions at an address, innermost first. Empty if nothing is known.
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

    /// Returns the line where the function of an entry begins; 0 if unknown.
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

/// Returns the line of an entry's declaration. An instance has the line of its origin in the same unit.
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

/// Sections besides `.debug_info` and `.debug_abbrev`.
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

/// Returns the maximum size in memory for [`Lines::load`], in bytes. The sum contains the sections, the data
/// kept for ranges, lines and entries, and the temporary memory for the largest section while it is
/// decompressed.
pub(super) fn size(sections: &Sections<'_>, alt: Option<&Sections<'_>>) -> u64 {
    let of = |sections: &Sections<'_>, id: SectionId| sections.size(id.name());
    let all = PARTS.into_iter().chain([SectionId::DebugInfo, SectionId::DebugAbbrev]);
    let both = std::iter::once(sections).chain(alt);
    let (mut kept, mut meanwhile) = (0u64, 0);
    for (sections, id) in both.flat_map(|sections| all.clone().map(move |id| (sections, id))) {
        let (size, more) = of(sections, id);
        // Exclusion of sections above the limit, which are not read.
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
    // Limits in proportion to the sections: for ranges and lines, more is kept than is read.
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

/// Returns true if the number of units and the depth of entries are within the limits, and all abbreviations
/// can be read.
fn is_flat(info: &[u8], abbrev: &[u8]) -> bool {
    let info = gimli::DebugInfo::from(EndianSlice::new(info, LittleEndian));
    let mut known = Abbreviations::new(abbrev);
    let mut units = info.units();
    let mut count = 0;
    // Early end at damaged data; later reading ends there too.
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
