//! Function records (`runtime._func`).

use std::borrow::Cow;

use super::Pclntab;
use super::header::Format;
use crate::addr::LinkAddr;

/// Indices of per-pc tables (`internal/abi`, Go 1.18–1.27).
pub mod pcdata {
    /// Whether the runtime may stop here.
    pub const UNSAFE_POINT: u32 = 0;
    /// Index into stack maps.
    pub const STACK_MAP_INDEX: u32 = 1;
    /// Index into the inline tree.
    pub const INL_TREE_INDEX: u32 = 2;
    /// Which arguments' stack slots are live.
    pub const ARG_LIVE_INDEX: u32 = 3;
}

/// Indices of function data (`internal/abi`, Go 1.18–1.27).
pub mod funcdata {
    /// The inline tree.
    pub const INL_TREE: u8 = 3;
    /// How a traceback prints the arguments.
    pub const ARG_INFO: u8 = 5;
    /// Liveness of the arguments' stack slots.
    pub const ARG_LIVE_INFO: u8 = 6;
    /// The function that a wrapper wraps.
    pub const WRAP_INFO: u8 = 7;
}

/// Properties of a function (`abi.FuncFlag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncFlags(pub u8);

impl FuncFlags {
    /// The outermost function of its stack: unwinding ends here, complete.
    pub fn top_frame(self) -> bool {
        self.0 & 1 != 0
    }

    /// Writes an arbitrary value to the stack pointer: its caller cannot be found from its frame size.
    pub fn writes_sp(self) -> bool {
        self.0 & 2 != 0
    }

    /// Written in assembly.
    pub fn assembly(self) -> bool {
        self.0 & 4 != 0
    }
}

/// A function of a pclntab.
#[derive(Clone, Copy)]
pub struct Func<'t> {
    table: &'t Pclntab,
    index: u32,
    entry: LinkAddr,
    record: &'t [u8],
}

impl std::fmt::Debug for Func<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.name_text(), self.entry)
    }
}

impl<'t> Func<'t> {
    pub(super) fn new(table: &'t Pclntab, index: u32, entry: LinkAddr, record: usize) -> Option<Self> {
        let record = table.bytes.window(record..usize::MAX);
        let func = Func { table, index, entry, record };
        (record.len() >= func.fixed_size()).then_some(func)
    }

    /// Its index in the function table.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its first instruction.
    pub fn entry(&self) -> LinkAddr {
        self.entry
    }

    /// One past its code (with padding).
    pub fn end(&self) -> LinkAddr {
        self.table.func_end(self.index)
    }

    /// Its name as the linker wrote it.
    pub fn name(&self) -> &'t [u8] {
        self.table.name_at(self.name_offset())
    }

    /// Whether its name begins so. Quicker than [`Func::name`], which looks for the end.
    pub fn name_starts_with(&self, prefix: &[u8]) -> bool {
        self.table.name_starts_with(self.name_offset(), prefix)
    }

    /// Its name as text.
    pub fn name_text(&self) -> Cow<'t, str> {
        String::from_utf8_lossy(self.name())
    }

    /// Offset of its name: equal for equal names, so that it can stand for the name.
    pub fn name_offset(&self) -> u32 {
        self.u32(4)
    }

    /// The runtime's number for a function it treats specially (`abi.FuncID`); its meaning depends on the release.
    pub fn func_id(&self) -> u8 {
        self.byte(if self.has_start_line() { 40 } else { 36 })
    }

    /// Its properties.
    pub fn flags(&self) -> FuncFlags {
        FuncFlags(self.byte(if self.has_start_line() { 41 } else { 37 }))
    }

    /// The line of its `func` keyword, from Go 1.20.
    pub fn start_line(&self) -> Option<u32> {
        self.has_start_line().then(|| self.u32(36))
    }

    /// Bytes from the stack pointer to the return address (amd64) or to the caller's frame (arm64), at `pc`.
    /// `None` where the table says nothing: not Go code, or a damaged table.
    pub fn sp_delta(&self, pc: LinkAddr) -> Option<u32> {
        let offset = self.u32(16);
        if offset == 0 {
            return None;
        }
        self.value_at(offset, pc).and_then(|v| u32::try_from(v).ok())
    }

    /// Source file and line at `pc`; "?" and 0 where unknown, as the runtime prints it.
    pub fn file_line(&self, pc: LinkAddr) -> (&'t [u8], u32) {
        let file = self.value_at(self.u32(20), pc).and_then(|i| self.table.file_at(self.u32(32), i));
        let line = self.value_at(self.u32(24), pc);
        match (file, line) {
            (Some(file), Some(line)) if line >= 0 => (file, line.cast_unsigned()),
            _ => (b"?", 0),
        }
    }

    /// The value of a per-pc table at `pc`; -1 where the function has no such table or no value.
    pub fn pcdata(&self, table: u32, pc: LinkAddr) -> i32 {
        if table >= self.npcdata() {
            return -1;
        }
        match self.u32(self.fixed_size() + 4 * table as usize) {
            0 => -1,
            offset => self.value_at(offset, pc).unwrap_or(-1),
        }
    }

    /// The link address of function data `index`.
    pub fn funcdata(&self, index: u8) -> Option<LinkAddr> {
        let count = self.byte(if self.has_start_line() { 43 } else { 39 });
        if index >= count {
            return None;
        }
        let npcdata = usize::try_from(self.npcdata()).ok().filter(|&n| n < 1 << 10)?;
        match self.u32(self.fixed_size() + 4 * (npcdata + usize::from(index))) {
            u32::MAX => None,
            offset => Some(self.table.gofunc.plus(u64::from(offset))),
        }
    }

    /// The table it belongs to.
    pub fn table(&self) -> &'t Pclntab {
        self.table
    }

    fn npcdata(&self) -> u32 {
        self.u32(28)
    }

    fn has_start_line(&self) -> bool {
        self.table.header.format >= Format::Go120
    }

    fn fixed_size(&self) -> usize {
        if self.has_start_line() { 44 } else { 40 }
    }

    fn value_at(&self, offset: u32, pc: LinkAddr) -> Option<i32> {
        self.table.value_at(offset, self, pc)
    }

    fn byte(&self, at: usize) -> u8 {
        self.record.get(at).copied().unwrap_or(0)
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self.record.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }
}
