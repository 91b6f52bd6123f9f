//! The section table, where there is one. Only ever a hint: a loader ignores it, so it may be missing or lie.

use crate::addr::LinkAddr;
use crate::image::Image;

/// No program has more sections; the format itself ends at 65,279 without extensions.
const MAX_SECTIONS: usize = 8192;
const MAX_NAMES: u64 = 1 << 20;
const MAX_NAME: usize = 256;

/// Where the fields of header and entries are, by class.
struct Shape {
    word: usize,
    /// In the file header: the table's offset, and the first of the table's three numbers.
    table: usize,
    counts: usize,
    /// An entry's size, and its address, offset and size.
    entry: usize,
    addr: usize,
    offset: usize,
    size: usize,
}

const WIDE: Shape = Shape { word: 8, table: 40, counts: 58, entry: 64, addr: 16, offset: 24, size: 32 };
const NARROW: Shape = Shape { word: 4, table: 32, counts: 46, entry: 40, addr: 12, offset: 16, size: 20 };

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
    let shape = if image.pointer_size() == 8 { WIDE } else { NARROW };
    let word = |bytes: &[u8], at: usize| word(bytes, at, shape.word);
    let mut header = [0u8; 64];
    if !source.read_at(0, &mut header) {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let table = word(&header, shape.table)?;
    let (size, count, names) =
        (half(shape.counts)?, usize::from(half(shape.counts + 2)?), usize::from(half(shape.counts + 4)?));
    if table == 0 || count == 0 || count > MAX_SECTIONS || usize::from(size) != shape.entry || names >= count
    {
        return None;
    }
    let mut entries = vec![0u8; count * shape.entry];
    if !source.read_at(table, &mut entries) {
        return None;
    }
    let strings = entries.get(names * shape.entry..(names + 1) * shape.entry)?;
    let (at, len) = (word(strings, shape.offset)?, word(strings, shape.size)?);
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
        .chunks_exact(shape.entry)
        .map(|e| {
            Some(Section {
                name: name(u32::from_le_bytes(e.get(..4)?.try_into().ok()?))?,
                addr: LinkAddr(word(e, shape.addr)?),
                size: word(e, shape.size)?,
            })
        })
        .collect()
}

/// A little-endian word of `size` bytes, 4 or 8.
fn word(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}
