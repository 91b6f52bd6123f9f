//! Abbreviation lists of DWARF. Each list is parsed once, however many units use it.
//!
//! A list ends with a mark, so a list can begin within another. Overlapping lists would cost the square of
//! the section's size in time and memory. Lists of real programs do not overlap; together they have no more
//! bytes than the section.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, Reader as _};

use super::DwarfError;

/// Cache of parsed abbreviation lists.
#[derive(Debug)]
pub(crate) struct Abbreviations<'a> {
    section: &'a [u8],
    known: HashMap<usize, Arc<gimli::Abbreviations>>,
    /// Number of bytes of lists that may still be parsed.
    left: usize,
}

/// Maximum number of bytes of all lists. Even a program with much C code has fewer. Parsed lists need ten
/// times as much memory.
const MAX_BYTES: usize = 32 << 20;

impl<'a> Abbreviations<'a> {
    pub(crate) fn new(section: &'a [u8]) -> Self {
        Abbreviations { section, known: HashMap::new(), left: section.len().min(MAX_BYTES) }
    }

    /// Returns the list at an offset in the section.
    pub(crate) fn at(&mut self, offset: usize) -> Result<Arc<gimli::Abbreviations>, DwarfError> {
        if let Some(list) = self.known.get(&offset) {
            return Ok(Arc::clone(list));
        }
        let rest = self.section.get(offset..).unwrap_or_default();
        let allowed = rest.get(..self.left).unwrap_or(rest);
        let bytes = match size(allowed) {
            Ok(size) => allowed.get(..size).unwrap_or_default(),
            Err(_) if allowed.len() < rest.len() => return Err(DwarfError::TooMuch),
            Err(why) => return Err(DwarfError::Dwarf(why)),
        };
        self.left -= bytes.len();
        let list = gimli::DebugAbbrev::new(bytes, LittleEndian).abbreviations(gimli::DebugAbbrevOffset(0))?;
        let list = Arc::new(list);
        self.known.insert(offset, Arc::clone(&list));
        Ok(list)
    }
}

/// Returns the length in bytes of the list at the start of `bytes`.
fn size(bytes: &[u8]) -> gimli::Result<usize> {
    let mut rest = EndianSlice::new(bytes, LittleEndian);
    while rest.read_uleb128()? != 0 {
        // Skipped fields: the tag, and the flag for children.
        rest.skip_leb128()?;
        rest.skip(1)?;
        loop {
            let (name, form) = (rest.read_uleb128()?, rest.read_uleb128()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                rest.skip_leb128()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
    }
    Ok(bytes.len() - rest.len())
}
