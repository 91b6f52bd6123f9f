//! Section table of an image, if there is one. It is only a hint: a loader ignores it, so it can be missing
//! or wrong.

use crate::addr::LinkAddr;
use crate::image::Image;

/// Maximum number of sections; no program has more. Without extensions, the format allows 65,279.
const MAX_SECTIONS: usize = 8192;
const MAX_NAMES: u64 = 1 << 20;
const MAX_NAME: usize = 256;

/// Byte offsets of fields in the file header and in entries of the section table, for one ELF class.
struct Shape {
    word: usize,
    /// File header: offset of the table's file offset (`table`), and of the first of the table's three
    /// numbers (`counts`).
    table: usize,
    counts: usize,
    /// Table entry: its size, and the offsets of its fields for address, file offset and size.
    entry: usize,
    addr: usize,
    offset: usize,
    size: usize,
}

const WIDE: Shape = Shape { word: 8, table: 40, counts: 58, entry: 64, addr: 16, offset: 24, size: 32 };
const NARROW: Shape = Shape { word: 4, table: 32, counts: 46, entry: 40, addr: 12, offset: 16, size: 20 };

/// Name, address and size of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name of the section.
    pub name: String,
    /// Link address; 0 for a section that is not loaded.
    pub addr: LinkAddr,
    /// Size in bytes.
    pub size: u64,
}

/// Reads the section table. `None` if the image has none or it is damaged.
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

/// Reads a little-endian word of `size` bytes, 4 or 8.
fn word(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}
