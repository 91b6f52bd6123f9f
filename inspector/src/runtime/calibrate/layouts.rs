//! Candidate layouts: of a known release, or from the program's own DWARF.

use symbols::image::Image;
use symbols::layout::{self, Table};
use symbols::sections;
use symbols::version::GoVersion;

/// Selects the layout for `version`. Prefers a table of exactly this release, then the program's own DWARF,
/// then a neighbouring release.
pub(super) fn layout_for(image: &Image, version: &GoVersion) -> Option<layout::FoundLayout> {
    let found = layout::lookup(image.arch(), version);
    if found.as_ref().is_some_and(|f| f.evidence == layout::Evidence::Exact) {
        return found;
    }
    let dwarf = own_dwarf(image).map(|table| match &found {
        Some(neighbour) => table.with_wait_reasons_of(&neighbour.table),
        None => table,
    });
    dwarf.map(|table| layout::FoundLayout { table, evidence: layout::Evidence::Dwarf }).or(found)
}

/// Maximum size of an executable file for reading its debug information, in bytes. A larger file takes too
/// long.
const MAX_FILE: u64 = 1 << 30;

/// Returns true if a program has debug information. It may still be unusable.
pub(crate) fn has_debug_info(image: &Image) -> bool {
    let sections = sections::read(image).unwrap_or_default();
    sections.iter().any(|s| s.name == ".debug_info" || s.name == ".zdebug_info")
}

/// Reads the layouts from the program's own debug information.
pub(crate) fn own_dwarf(image: &Image) -> Option<Table> {
    let source = image.source();
    // Most programs have no debug information. Reading a hundred megabytes takes longer than everything
    // else.
    if !has_debug_info(image) || source.len() > MAX_FILE {
        return None;
    }
    let mut elf = vec![0; usize::try_from(source.len()).ok()?];
    source.read_at(0, &mut elf).then_some(())?;
    layout::from_dwarf(&elf).ok()
}
