//! The layouts to try: those of a release, or the program's own.

use symbols::image::Image;
use symbols::layout::{self, Table};
use symbols::sections;
use symbols::version::GoVersion;

/// The layout for `version`: made from this very release, else from the program's own DWARF, else from a
/// neighbouring release.
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

/// A program with more than this and debug information is not worth the time for a layout.
const MAX_FILE: u64 = 1 << 30;

/// Whether a program has debug information, which is not said to be usable.
pub(crate) fn has_debug_info(image: &Image) -> bool {
    let sections = sections::read(image).unwrap_or_default();
    sections.iter().any(|s| s.name == ".debug_info" || s.name == ".zdebug_info")
}

/// The layouts that a program's own debug information has.
pub(crate) fn own_dwarf(image: &Image) -> Option<Table> {
    let source = image.source();
    // Most have none, and to read a hundred megabytes takes longer than all the rest.
    if !has_debug_info(image) || source.len() > MAX_FILE {
        return None;
    }
    let mut elf = vec![0; usize::try_from(source.len()).ok()?];
    source.read_at(0, &mut elf).then_some(())?;
    layout::from_dwarf(&elf).ok()
}
