//! Look-up of call frame information for an instruction.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EhFrameOffset, EndianSlice, LittleEndian, Pointer, UnwindContext,
    UnwindSection as _,
};

use super::row::Row;
use crate::addr::{CodeAddr, LinkAddr};
use crate::arch;
use crate::image::Image;
use crate::sections;

type Bytes<'b> = EndianSlice<'b, LittleEndian>;
type Fde<'b> = gimli::FrameDescriptionEntry<Bytes<'b>>;

/// Maximum size of the section in bytes. The largest known programs have a third of it.
const MAX_SECTION: usize = 64 << 20;
/// Maximum number of functions in a table.
const MAX_FUNCTIONS: usize = 8 << 20;
/// Maximum length of an entry in bytes. An entry describes one function, or the common part of several
/// functions.
const MAX_ENTRY: usize = 64 << 10;
/// Maximum number of bytes of entries that are read in the life of a table. A scan for functions reads each
/// entry once. Afterwards, a look-up of an instruction reads the entry of its function.
const MAX_READ: usize = 512 << 20;
/// Maximum number of cached instructions, and maximum size of their rows in bytes.
const MAX_ROWS: usize = 1 << 17;
const MAX_ROWS_SIZE: usize = 16 << 20;
/// Size of an entry in the map of rows, in bytes.
const ROW: usize = 48;
const HEADER: usize = 12;

/// Call frame information of an image.
pub struct FrameTable {
    image: Image,
    section: Vec<u8>,
    /// Link address of the section.
    addr: LinkAddr,
    bases: BaseAddresses,
    index: Index,
    /// Number of bytes of entries that may still be read.
    left: usize,
    context: UnwindContext<usize>,
    rows: HashMap<CodeAddr, Option<Arc<Row>>>,
    rows_size: usize,
}

/// Index from a function to its entry in the section.
enum Index {
    /// Index that the linker sorted: pairs of a function and its entry, relative to `header`.
    Sorted { header: u64, pairs: Vec<u8> },
    /// Index from a scan of the section: first address, end address and offset of the entry.
    FoundRule(Vec<(u64, u64, usize)>),
}

impl std::fmt::Debug for FrameTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameTable").field("functions", &self.len()).finish_non_exhaustive()
    }
}

impl FrameTable {
    /// Reads the table of a program. The table is empty if there is no call frame information or the machine
    /// is not supported.
    pub fn load(image: Image) -> Self {
        let found = FoundRule::of(&image).unwrap_or_default();
        let mut table = FrameTable {
            image,
            section: found.section,
            addr: found.addr,
            bases: BaseAddresses::default().set_eh_frame(found.addr.0),
            index: Index::FoundRule(Vec::new()),
            left: MAX_READ,
            context: UnwindContext::new(),
            rows: HashMap::new(),
            rows_size: 0,
        };
        table.index = found.index.unwrap_or_else(|| Index::FoundRule(table.scan()));
        table
    }

    /// Image that the table belongs to.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Number of functions in the table.
    pub fn len(&self) -> usize {
        match &self.index {
            Index::Sorted { pairs, .. } => pairs.len() / 8,
            Index::FoundRule(found) => found.len(),
        }
    }

    /// Returns true if the table has no functions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the table in memory, in bytes.
    pub fn size(&self) -> usize {
        let index = match &self.index {
            Index::Sorted { pairs, .. } => pairs.len(),
            Index::FoundRule(found) => size_of_val(found.as_slice()),
        };
        self.section.len() + index + self.rows_size + self.image.kept()
    }

    /// Returns the row for an instruction. `None` if no call frame information covers it.
    pub fn row(&mut self, at: CodeAddr) -> Option<Arc<Row>> {
        if let Some(known) = self.rows.get(&at) {
            return known.clone();
        }
        let row = self.look_up(at.lookup(LinkAddr(0))).or_else(|| self.by_code(at)).map(Arc::new);
        let size = ROW + row.as_ref().map_or(0, |row| row.size());
        if self.rows.len() >= MAX_ROWS || self.rows_size + size > MAX_ROWS_SIZE {
            self.rows.clear();
            self.rows_size = 0;
        }
        self.rows_size += size;
        self.rows.insert(at, row.clone());
        row
    }

    fn look_up(&mut self, at: LinkAddr) -> Option<Row> {
        let offset = self.index.find(at.0, self.addr.0)?;
        let columns = arch::machine(self.image.arch())?.columns();
        let section = EhFrame::new(&self.section, LittleEndian);
        let fde = fde_at(&section, &self.bases, offset, &mut self.left)?;
        if !fde.contains(at.0) {
            return None;
        }
        let row = fde.unwind_info_for_address(&section, &self.bases, &mut self.context, at.0).ok()?;
        Row::of(columns, row, &section, fde.is_signal_trampoline(), fde.cie().return_address_register())
    }

    /// Returns the row of known code that libraries and linkers write without call frame information.
    fn by_code(&self, at: CodeAddr) -> Option<Row> {
        self.image.segment(at.addr()).filter(|s| s.executable)?;
        let read = |at, length| self.image.read_vec(at, length).ok();
        arch::machine(self.image.arch())?.row_of_code(at, &read)
    }

    /// Finds all functions in the section.
    fn scan(&mut self) -> Vec<(u64, u64, usize)> {
        let section = EhFrame::new(&self.section, LittleEndian);
        let (mut found, mut offset) = (Vec::new(), 0);
        // Length zero, which marks the end of the section.
        while let Some(length) = entry_length(&self.section, offset).filter(|&l| l > 0)
            && self.left > 0
            && found.len() < MAX_FUNCTIONS
        {
            self.left = self.left.saturating_sub(8);
            if let Some(fde) = fde_at(&section, &self.bases, offset, &mut self.left)
                && fde.end_address() > fde.initial_address()
            {
                found.push((fde.initial_address(), fde.end_address(), offset));
            }
            offset += 4 + length;
        }
        found.sort_unstable();
        found
    }
}

impl Index {
    /// Returns the offset of the entry for the last function that begins at `at` or before.
    fn find(&self, at: u64, section: u64) -> Option<usize> {
        match self {
            Index::FoundRule(found) => {
                let next = found.partition_point(|&(start, ..)| start <= at);
                found.get(next.checked_sub(1)?).map(|&(.., offset)| offset)
            }
            Index::Sorted { header, pairs } => {
                let relative = |index: usize, part: usize| -> Option<u64> {
                    let at = index.checked_mul(8)?.checked_add(part)?;
                    let word = pairs.get(at..at.checked_add(4)?)?.try_into().ok()?;
                    Some(header.wrapping_add_signed(i32::from_le_bytes(word).into()))
                };
                let (mut low, mut high) = (0, pairs.len() / 8);
                while low < high {
                    let middle = low + (high - low) / 2;
                    if relative(middle, 0)? <= at { low = middle + 1 } else { high = middle }
                }
                let entry = relative(low.checked_sub(1)?, 4)?;
                usize::try_from(entry.checked_sub(section)?).ok()
            }
        }
    }
}

/// Section of call frame information, and the linker's index for it, if any.
#[derive(Default)]
struct FoundRule {
    addr: LinkAddr,
    section: Vec<u8>,
    index: Option<Index>,
}

impl FoundRule {
    fn of(image: &Image) -> Option<Self> {
        arch::machine(image.arch()).filter(|_| image.pointer_size() == 8)?;
        let by_header = image.eh_frame_hdr().and_then(|at| Self::by_header(image, at));
        by_header.or_else(|| {
            let section = sections::read(image)?.into_iter().find(|s| s.name == ".eh_frame")?;
            let size = usize::try_from(section.size).ok()?.min(MAX_SECTION);
            Some(FoundRule {
                addr: section.addr,
                section: image.read_vec(section.addr, size).ok()?,
                index: None,
            })
        })
    }

    /// Reads the section that `.eh_frame_hdr` refers to. The header has only the beginning of the section.
    /// The end is an entry of length zero, or the end of the segment.
    fn by_header(image: &Image, at: LinkAddr) -> Option<Self> {
        let head = image.read_vec(at, 32).ok()?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
        let parsed = EhFrameHdr::new(&head, LittleEndian).parse(&bases, 8).ok()?;
        let Pointer::Direct(addr) = parsed.eh_frame_ptr() else { return None };
        let addr = LinkAddr(addr);
        let section = image.read_vec(addr, MAX_SECTION).ok()?;
        // Only form that linkers write: four bytes for each value, relative to the beginning of the header.
        const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
        let index = || {
            let count = u32::from_le_bytes(head.get(8..HEADER)?.try_into().ok()?);
            let count = usize::try_from(count).ok().filter(|&n| n > 0 && n <= MAX_FUNCTIONS)?;
            let mut pairs = image.read_vec(at.plus(HEADER as u64), count * 8).ok()?;
            pairs.truncate(pairs.len() / 8 * 8);
            (pairs.len() == count * 8).then_some(Index::Sorted { header: at.0, pairs })
        };
        let index = if head.starts_with(&FORM) { index() } else { None };
        Some(FoundRule { addr, section, index })
    }
}

/// Returns the length of an entry without its first four bytes; 0 at the end of the section.
fn entry_length(section: &[u8], offset: usize) -> Option<usize> {
    let length = u32::from_le_bytes(section.get(offset..offset.checked_add(4)?)?.try_into().ok()?);
    // Exclusion of 64-bit entries: an entry above four gigabytes states its length in another way.
    usize::try_from(length).ok().filter(|&l| l < section.len() - offset)
}

/// Reads the entry of a function. `None` if the bytes are no such entry, or are longer than [`MAX_ENTRY`].
fn fde_at<'b>(
    section: &EhFrame<Bytes<'b>>,
    bases: &BaseAddresses,
    offset: usize,
    left: &mut usize,
) -> Option<Fde<'b>> {
    let bytes = gimli::Section::reader(section).slice();
    let length = entry_length(bytes, offset).filter(|&l| l <= MAX_ENTRY)?;
    // Reference to the common entry (CIE), as a distance from this field. A CIE itself has 0 in this field.
    let at = offset.checked_add(4)?;
    let back = u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?);
    let common = at.checked_sub(usize::try_from(back).ok().filter(|&back| back > 0)?)?;
    let common_length = entry_length(bytes, common).filter(|&l| l <= MAX_ENTRY)?;
    *left = left.checked_sub(length + common_length)?;
    section.fde_from_offset(bases, EhFrameOffset(offset), EhFrame::cie_from_offset).ok()
}
