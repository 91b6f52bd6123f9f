//! The pc-line table: functions, and what holds at each of their instructions (frame size, line, liveness,
//! inlined calls), as the Go runtime itself reads it (`runtime/symtab.go`).

pub mod args;
pub mod function;
pub mod header;
pub mod inline;
pub mod pcvalue;
mod shortcuts;

use std::ops::Range;

use crate::addr::LinkAddr;
use crate::image::{Image, ImageError};
use crate::moduledata::{Moduledata, TextSection};
pub use function::{Func, FuncFlags};
use header::{Format, Header};
use shortcuts::Shortcuts;

/// A loaded pclntab. Program counters are link addresses.
#[derive(Debug)]
pub struct Pclntab {
    header: Header,
    data: Vec<u8>,
    shortcuts: Shortcuts,
    text: LinkAddr,
    end: LinkAddr,
    gofunc: LinkAddr,
    sections: Vec<TextSection>,
}

/// Why a pclntab could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PclntabError {
    /// Its bytes are not all in the image.
    #[error("pclntab: {0}")]
    Image(#[from] ImageError),
    /// The function table contradicts itself.
    #[error("pclntab: the function table is damaged")]
    FunctionTable,
    /// It is larger than that of any program: so many bytes.
    #[error("pclntab: it claims to have {0} bytes")]
    Size(usize),
}

/// The table of a program with a quarter of a million functions has 40 MB; no program is large enough for this.
const MAX_TABLE: usize = 512 << 20;

impl Pclntab {
    /// Copies the table out of the image: from its header to its last function record.
    pub fn load(image: &Image, header: &Header, module: &Moduledata) -> Result<Self, PclntabError> {
        let damaged = PclntabError::FunctionTable;
        let nfunc = header.nfunc as usize;
        let ftab = usize::try_from(header.pcln).map_err(|_| damaged.clone())?;
        let ftab_end = ftab + 8 * nfunc + 4;
        // The records follow the function table in order, so the last function's is the last. Its size is not
        // known before it is read; no record is larger than a page.
        let record = |index: usize| -> Result<u32, PclntabError> {
            let bytes = image.read_vec(header.addr.plus((ftab + 8 * index + 4) as u64), 4)?;
            Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| PclntabError::FunctionTable)?))
        };
        // Each function has an instruction at least, and its record is behind the table: known before a large
        // table is copied, for a hole in a file may be of any size.
        let text = module.pcs.end.since(module.text.start).unwrap_or(0);
        let (first, last) = (record(0)? as usize, record(nfunc - 1)? as usize);
        if nfunc as u64 > text || first < 8 * nfunc + 4 || last < first {
            return Err(damaged);
        }
        let size = ftab.saturating_add(last).saturating_add(4096);
        if size > MAX_TABLE {
            return Err(PclntabError::Size(size));
        }
        let data = image.read_vec(header.addr, size)?;
        if data.len() < ftab_end {
            return Err(damaged);
        }
        Ok(Pclntab {
            header: *header,
            data,
            shortcuts: Shortcuts::new(ftab.saturating_sub(usize::try_from(header.pctab).unwrap_or(ftab))),
            text: module.text.start,
            end: module.pcs.end,
            gofunc: module.gofunc,
            sections: if module.text_sections.len() > 1 { module.text_sections.clone() } else { Vec::new() },
        })
    }

    /// The header it was loaded by.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// How many functions there are.
    pub fn len(&self) -> u32 {
        self.header.nfunc
    }

    /// Whether there is no function.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The function at `index` of the function table.
    pub fn func(&self, index: u32) -> Option<Func<'_>> {
        if index >= self.header.nfunc {
            return None;
        }
        let (offset, record) = self.ftab(index)?;
        let record = usize::try_from(self.header.pcln).ok()?.checked_add(record as usize)?;
        Func::new(self, index, self.text_addr(offset), record)
    }

    /// All functions, by address. Damaged records are left out.
    pub fn functions(&self) -> impl Iterator<Item = Func<'_>> {
        (0..self.header.nfunc).filter_map(|i| self.func(i))
    }

    /// The function whose code holds `pc`.
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

    /// The first function of exactly this name.
    pub fn find(&self, name: &str) -> Option<Func<'_>> {
        self.functions().find(|f| f.name() == name.as_bytes())
    }

    /// The releases that share this table's format.
    pub fn format(&self) -> Format {
        self.header.format
    }

    /// Whether `pc` is in Go code of this module.
    pub fn contains(&self, pc: LinkAddr) -> bool {
        self.text <= pc && pc < self.end
    }

    /// One past the function at `index`.
    fn func_end(&self, index: u32) -> LinkAddr {
        self.ftab(index.saturating_add(1)).map_or(self.end, |(offset, _)| self.text_addr(offset))
    }

    /// Text offset and record offset of an entry. The entry past the last function has an offset only.
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
        Some(u32::from_le_bytes(self.data.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    /// The bytes of a table of the header, up to the next one's start.
    fn table(&self, start: u64, end: u64) -> &[u8] {
        let range =
            || -> Option<Range<usize>> { Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?) };
        range().and_then(|r| self.data.get(r)).unwrap_or_default()
    }

    /// A name by its offset in the name table.
    fn name_at(&self, offset: u32) -> &[u8] {
        c_string(self.table(self.header.funcname, self.header.cutab), offset as usize)
    }

    fn name_starts_with(&self, offset: u32, prefix: &[u8]) -> bool {
        let names = self.table(self.header.funcname, self.header.cutab);
        names.get(offset as usize..).is_some_and(|rest| rest.starts_with(prefix))
    }

    fn file_at(&self, cu_offset: u32, index: i32) -> Option<&[u8]> {
        let index = u32::try_from(index).ok()?;
        let at = 4 * (cu_offset as usize).checked_add(index as usize)?;
        let cutab = self.table(self.header.cutab, self.header.filetab);
        let offset = u32::from_le_bytes(cutab.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if offset == u32::MAX {
            return None;
        }
        Some(c_string(self.table(self.header.filetab, self.header.pctab), offset as usize))
    }

    fn pctab(&self) -> &[u8] {
        self.table(self.header.pctab, self.header.pcln)
    }

    /// The value at `pc` of the pc-value table at `offset`, which is of `func`.
    fn value_at(&self, offset: u32, func: &Func<'_>, pc: LinkAddr) -> Option<i32> {
        let start = offset as usize;
        let bytes = self.pctab().get(start..).filter(|_| offset != 0)?;
        let (entry, quantum) = (func.entry(), self.header.min_lc);
        // A value holds for an instruction at least: there are no more of them than the function has code.
        let most = || {
            let size = func.end().since(entry).unwrap_or(0) / u64::from(quantum.max(1));
            usize::try_from(size).map_or(MAX_RUNS, |n| n.min(MAX_RUNS))
        };
        self.shortcuts.value_at(&pcvalue::runs(bytes, entry, quantum), most, (offset, func.index()), pc)
    }
}

/// More values than any table of a function has: the function would have to have tens of megabytes of code.
const MAX_RUNS: usize = 1 << 22;

/// Longer than any name that Go's linker writes, generics included.
const MAX_NAME: usize = 64 << 10;

fn c_string(table: &[u8], at: usize) -> &[u8] {
    let rest = table.get(at..).unwrap_or_default();
    let rest = rest.get(..MAX_NAME).unwrap_or(rest);
    rest.split(|&b| b == 0).next().unwrap_or_default()
}
