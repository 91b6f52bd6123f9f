//! Pclntab (pc-line table): functions, and values for each of their instructions (frame size, line, liveness,
//! inlined calls). The Go runtime reads the same table (`runtime/symtab.go`).

pub mod args;
mod bytes;
pub mod function;
pub mod header;
pub mod inline;
mod named;
pub mod pcvalue;
mod shortcuts;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, Pieces};
use named::Named;

use crate::addr::LinkAddr;
use crate::image::{Image, ImageError};
use crate::moduledata::{Moduledata, TextSection};
pub use function::{Func, FuncFlags};
use header::{Format, Header};
use shortcuts::Shortcuts;

/// Pclntab, read from its image on demand. Program counters are link addresses.
#[derive(Debug)]
pub struct Pclntab {
    header: Header,
    bytes: Bytes,
    named: OnceLock<Arc<Named>>,
    shortcuts: Shortcuts,
    text: LinkAddr,
    end: LinkAddr,
    gofunc: LinkAddr,
    sections: Vec<TextSection>,
}

/// Parts of a [`Pclntab`] that were read, kept for the next process of the same program.
#[derive(Debug, Clone)]
pub struct Excerpt {
    header: Header,
    size: usize,
    pieces: Pieces,
    named: Option<Arc<Named>>,
}

/// Maximum number of pieces (40 KiB each) in an excerpt. Attaching to a process needs about a dozen.
const MAX_EXCERPT: usize = 32;

/// Error of loading a pclntab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PclntabError {
    /// Pclntab bytes missing in the image.
    #[error("pclntab: {0}")]
    Image(#[from] ImageError),
    /// Function table that contradicts itself.
    #[error("pclntab: the function table is damaged")]
    FunctionTable,
    /// Pclntab larger than that of any program, with its size in bytes.
    #[error("pclntab: it claims to have {0} bytes")]
    Size(usize),
}

/// Maximum size of a pclntab in bytes; no program needs it. The table of a program with a quarter of a
/// million functions has 40 MB.
const MAX_TABLE: usize = 512 << 20;

impl Pclntab {
    /// Locates the table and checks whether it can be valid. The table extends from its header to its last
    /// function record. Almost nothing of it is read.
    pub fn load(image: &Image, header: &Header, module: &Moduledata) -> Result<Self, PclntabError> {
        let damaged = PclntabError::FunctionTable;
        let nfunc = header.nfunc as usize;
        let ftab = usize::try_from(header.pcln).map_err(|_| damaged.clone())?;
        let ftab_end = ftab + 8 * nfunc + 4;
        let (source, part) = image.part(header.addr)?;
        let available = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        if available < ftab_end {
            return Err(damaged);
        }
        // Order of the records: the record of the last function is the last one. Its size is unknown before
        // it is read, but no record is larger than a page.
        let record = |index: usize| -> Result<u32, PclntabError> {
            let (at, mut bytes) = ((ftab + 8 * index + 4) as u64, [0; 4]);
            let read = part.start.checked_add(at).is_some_and(|there| source.read_at(there, &mut bytes));
            if read {
                Ok(u32::from_le_bytes(bytes))
            } else {
                Err(ImageError::Unmapped(header.addr.plus(at)).into())
            }
        };
        // Check before a large table is read, because a hole in a file can have any size. Each function has
        // at least one instruction, and its record is after the function table.
        let text = module.pcs.end.since(module.text.start).unwrap_or(0);
        let (first, last) = (record(0)? as usize, record(nfunc - 1)? as usize);
        if nfunc as u64 > text || first < 8 * nfunc + 4 || last < first {
            return Err(damaged);
        }
        let size = ftab.saturating_add(last).saturating_add(4096);
        if size > MAX_TABLE {
            return Err(PclntabError::Size(size));
        }
        let bytes = Bytes::new(source, part.start, size.min(available));
        Ok(Self::new(header, module, bytes))
    }

    fn new(header: &Header, module: &Moduledata, bytes: Bytes) -> Self {
        let pctab_size = header.pcln.saturating_sub(header.pctab);
        Pclntab {
            header: *header,
            bytes,
            named: OnceLock::new(),
            shortcuts: Shortcuts::new(usize::try_from(pctab_size).unwrap_or(usize::MAX)),
            text: module.text.start,
            end: module.pcs.end,
            gofunc: module.gofunc,
            sections: if module.text_sections.len() > 1 { module.text_sections.clone() } else { Vec::new() },
        }
    }

    /// Returns the parts that were read, without the file. Only some parts are returned if many were read.
    pub fn excerpt(&self) -> Excerpt {
        Excerpt {
            header: self.header,
            size: self.size(),
            pieces: self.bytes.pieces(MAX_EXCERPT),
            named: self.named.get().cloned(),
        }
    }

    /// Loads a pclntab like [`Pclntab::load`], from an image with the same contents as the image of
    /// `excerpt`. Bytes in `excerpt` are not read again.
    pub fn resume(image: &Image, module: &Moduledata, excerpt: &Excerpt) -> Result<Self, PclntabError> {
        let Excerpt { header, size, pieces, named } = excerpt;
        let (source, part) = image.part(header.addr)?;
        if part.end - part.start < *size as u64 {
            return Err(PclntabError::FunctionTable);
        }
        let table = Self::new(header, module, Bytes::new(source, part.start, *size).with(pieces));
        if let Some(named) = named {
            // Ignored result: the table is new, so the cell is empty.
            let _ = table.named.set(Arc::clone(named));
        }
        Ok(table)
    }

    /// Header of the pclntab.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Size of the pclntab in bytes. After a complete read, its size in memory too.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Reads all remaining bytes. Call this function before look-ups while a process is stopped, because
    /// files can be slow.
    pub fn read_all(&self) {
        self.bytes.load();
    }

    /// Number of functions.
    pub fn len(&self) -> u32 {
        self.header.nfunc
    }

    /// Returns true if there are no functions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the function at `index` of the function table.
    pub fn func(&self, index: u32) -> Option<Func<'_>> {
        if index >= self.header.nfunc {
            return None;
        }
        let (offset, record) = self.ftab(index)?;
        let record = usize::try_from(self.header.pcln).ok()?.checked_add(record as usize)?;
        Func::new(self, index, self.text_addr(offset), record)
    }

    /// Iterates over all functions, by address. Functions with damaged records are left out.
    pub fn functions(&self) -> impl Iterator<Item = Func<'_>> {
        (0..self.header.nfunc).filter_map(|i| self.func(i))
    }

    /// Returns the function whose code contains `pc`.
    pub fn lookup(&self, pc: LinkAddr) -> Option<Func<'_>> {
        if pc < self.text || pc >= self.end {
            return None;
        }
        let offset = u32::try_from(self.text_offset(pc)?).ok()?;
        let (mut low, mut high) = (0u32, self.header.nfunc);
        while low < high {
            let mid = low + (high - low) / 2;
            if self.ftab(mid)?.0 <= offset { low = mid + 1 } else { high = mid }
        }
        self.func(low.checked_sub(1)?)
    }

    /// Returns the first function of exactly this name. Fast for functions of the runtime.
    pub fn find(&self, name: &str) -> Option<Func<'_>> {
        if name.as_bytes().starts_with(named::PACKAGE) {
            return self.of_runtime(name).next();
        }
        self.functions().find(|f| f.name() == name.as_bytes())
    }

    /// Returns the functions of a name in the runtime (`runtime.allgadd`), by address. One name can have
    /// several functions: an ABI wrapper has the name of the wrapped function.
    pub fn of_runtime(&self, name: &str) -> impl Iterator<Item = Func<'_>> {
        let named = self.named.get_or_init(|| Arc::new(Named::find(self)));
        named.get(self, name.as_bytes()).filter_map(|index| self.func(index))
    }

    /// Format of the table.
    pub fn format(&self) -> Format {
        self.header.format
    }

    /// Returns true if `pc` is in Go code of this module.
    pub fn contains(&self, pc: LinkAddr) -> bool {
        self.text <= pc && pc < self.end
    }

    /// Returns the address after the function at `index`.
    fn func_end(&self, index: u32) -> LinkAddr {
        self.ftab(index.saturating_add(1)).map_or(self.end, |(offset, _)| self.text_addr(offset))
    }

    /// Returns text offset and record offset of an entry. The entry after the last function has a text offset
    /// only.
    fn ftab(&self, index: u32) -> Option<(u32, u32)> {
        let at = usize::try_from(self.header.pcln).ok()?.checked_add(8 * index as usize)?;
        Some((self.u32(at)?, self.u32(at + 4).unwrap_or(0)))
    }

    fn text_addr(&self, offset: u32) -> LinkAddr {
        let offset = u64::from(offset);
        for s in &self.sections {
            if s.offset <= offset && offset < s.end {
                return s.base.plus(offset - s.offset);
            }
        }
        self.text.plus(offset)
    }

    fn text_offset(&self, pc: LinkAddr) -> Option<u64> {
        for s in &self.sections {
            if let Some(d) = pc.since(s.base)
                && d < s.end.saturating_sub(s.offset)
            {
                return Some(s.offset + d);
            }
        }
        pc.since(self.text)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        bytes::word(self.bytes.window(at..at.checked_add(4)?), 0)
    }

    /// Returns the range of a table in the pclntab, from its start to the start of the next table. Empty if
    /// the range is impossible.
    fn table(&self, start: u64, end: u64) -> Range<usize> {
        let range = || Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        range().filter(|range| range.end <= self.bytes.len()).unwrap_or_default()
    }

    fn names(&self) -> Range<usize> {
        self.table(self.header.funcname, self.header.cutab)
    }

    /// Returns a name by its offset in the name table.
    fn name_at(&self, offset: u32) -> &[u8] {
        self.c_string(self.names(), offset as usize)
    }

    fn name_starts_with(&self, offset: u32, prefix: &[u8]) -> bool {
        self.bytes.window(behind(self.names(), offset as usize)).starts_with(prefix)
    }

    fn file_at(&self, cu_offset: u32, index: i32) -> Option<&[u8]> {
        let index = u32::try_from(index).ok()?;
        let at = 4 * (cu_offset as usize).checked_add(index as usize)?;
        let cutab = self.table(self.header.cutab, self.header.filetab);
        let offset = bytes::word(self.bytes.window(behind(cutab, at)), 0)?;
        if offset == u32::MAX {
            return None;
        }
        Some(self.c_string(self.table(self.header.filetab, self.header.pctab), offset as usize))
    }

    /// Returns the text at offset `at` of a table, up to its zero byte.
    fn c_string(&self, table: Range<usize>, at: usize) -> &[u8] {
        let mut range = behind(table, at);
        range.end = range.end.min(range.start.saturating_add(MAX_NAME));
        let ends = |bytes: &[u8]| memchr::memchr(0, bytes);
        let bytes = self.bytes.window(range.clone());
        let (bytes, end) = match ends(bytes) {
            Some(end) => (bytes, end),
            None => {
                let bytes = self.bytes.long(range);
                (bytes, ends(bytes).unwrap_or(bytes.len()))
            }
        };
        bytes.get(..end).unwrap_or_default()
    }

    /// Returns the value at `pc` of the pc-value table at `offset`, for the function `func`.
    fn value_at(&self, offset: u32, func: &Func<'_>, pc: LinkAddr) -> Option<i32> {
        let pctab = self.table(self.header.pctab, self.header.pcln);
        let table = behind(pctab, offset as usize);
        if offset == 0 || table.is_empty() {
            return None;
        }
        let (entry, quantum) = (func.entry(), self.header.min_lc);
        // Limit by code size: each value covers at least one instruction.
        let most = || {
            let size = func.end().since(entry).unwrap_or(0) / u64::from(quantum.max(1));
            usize::try_from(size).map_or(MAX_RUNS, |n| n.min(MAX_RUNS))
        };
        let bytes = |used: usize| self.bytes.window(behind(table.clone(), used));
        let table = shortcuts::Table { bytes, entry, quantum };
        self.shortcuts.value_at(&table, most, (offset, func.index()), pc)
    }
}

/// Returns the part of `range` after its first `skip` places.
fn behind(range: Range<usize>, skip: usize) -> Range<usize> {
    range.start.saturating_add(skip).min(range.end)..range.end
}

/// Maximum number of values in a table. A function with more would need tens of megabytes of code.
const MAX_RUNS: usize = 1 << 22;

/// Maximum length of a name in bytes. Names that Go's linker writes are shorter, generics included.
const MAX_NAME: usize = 64 << 10;
