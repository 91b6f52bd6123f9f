//! The section table, where there is one. Only ever a hint: a loader ignores it, so it may be missing or lie.

use crate::addr::LinkAddr;
use crate::image::Image;

/// No program has more sections; the format itself ends at 65,279 without extensions.
const MAX_SECTIONS: usize = 8192;
const MAX_NAMES: u64 = 1 << 20;
const MAX_NAME: usize = 256;
const ENTRY: usize = 64;

/// A section's name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it is linked; 0 for one that is not loaded.
    pub addr: LinkAddr,
    /// Its size in bytes.
    pub size: u64,
}

/// Reads the section table. `None` where the image claims none, or where it is damaged.
pub fn read(image: &Image) -> Option<Vec<Section>> {
    let source = image.source();
    let mut header = [0u8; 64];
    if !source.read_at(0, &mut header) {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let table = word(&header, 40)?;
    let (size, count, names) = (half(58)?, usize::from(half(60)?), usize::from(half(62)?));
    if table == 0 || count == 0 || count > MAX_SECTIONS || usize::from(size) != ENTRY || names >= count {
        return None;
    }
    let mut entries = vec![0u8; count * ENTRY];
    if !source.read_at(table, &mut entries) {
        return None;
    }
    let strings = entries.get(names * ENTRY..(names + 1) * ENTRY)?;
    let (at, len) = (word(strings, 24)?, word(strings, 32)?);
    if len > MAX_NAMES {
        return None;
    }
    let mut strings = vec![0u8; usize::try_from(len).ok()?];
    if !source.read_at(at, &mut strings) {
        return None;
    }
    let name = |offset: u32| {
        let rest = strings.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().take(MAX_NAME).position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
    };
    entries
        .chunks_exact(ENTRY)
        .map(|e| {
            Some(Section {
                name: name(u32::from_le_bytes(e.get(..4)?.try_into().ok()?))?,
                addr: LinkAddr(word(e, 16)?),
                size: word(e, 32)?,
            })
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
