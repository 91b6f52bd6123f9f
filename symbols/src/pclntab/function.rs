//! Function records of a pclntab (`runtime._func`).

use std::borrow::Cow;

use super::Pclntab;
use super::header::Format;
use crate::addr::LinkAddr;

/// Indices of per-pc tables (`internal/abi`, Go 1.18–1.27).
pub mod pcdata {
    /// Index of the table of unsafe points: instructions where the runtime may not stop.
    pub const UNSAFE_POINT: u32 = 0;
    /// Index of the table of indices into stack maps.
    pub const STACK_MAP_INDEX: u32 = 1;
    /// Index of the table of indices into the inline tree.
    pub const INL_TREE_INDEX: u32 = 2;
    /// Index of the table for live stack slots of arguments.
    pub const ARG_LIVE_INDEX: u32 = 3;
}

/// Indices of function data (`internal/abi`, Go 1.18–1.27).
pub mod funcdata {
    /// Index of the inline tree.
    pub const INL_TREE: u8 = 3;
    /// Index of the description of arguments for tracebacks.
    pub const ARG_INFO: u8 = 5;
    /// Index of the liveness of the arguments' stack slots.
    pub const ARG_LIVE_INFO: u8 = 6;
    /// Index of the reference from a wrapper to the wrapped function.
    pub const WRAP_INFO: u8 = 7;
}

/// Properties of a function (`abi.FuncFlag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncFlags(pub u8);

impl FuncFlags {
    /// Returns true for the outermost function of a stack. Unwinding ends at this function and is complete.
    pub fn top_frame(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns true if the function writes an arbitrary value to the stack pointer. The frame size cannot
    /// lead to the caller then.
    pub fn writes_sp(self) -> bool {
        self.0 & 2 != 0
    }

    /// Returns true if the function is written in assembly.
    pub fn assembly(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Function of a pclntab.
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

    /// Index in the function table.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Link address of the first instruction.
    pub fn entry(&self) -> LinkAddr {
        self.entry
    }

    /// Link address after the code, padding included.
    pub fn end(&self) -> LinkAddr {
        self.table.func_end(self.index)
    }

    /// Name as the linker wrote it.
    pub fn name(&self) -> &'t [u8] {
        self.table.name_at(self.name_offset())
    }

    /// Returns true if the name begins with `prefix`. Faster than [`Func::name`], which searches for the end
    /// of the name.
    pub fn name_starts_with(&self, prefix: &[u8]) -> bool {
        self.table.name_starts_with(self.name_offset(), prefix)
    }

    /// Name as text.
    pub fn name_text(&self) -> Cow<'t, str> {
        String::from_utf8_lossy(self.name())
    }

    /// Offset of the name in the name table. Equal names have equal offsets, so the offset can identify the
    /// name.
    pub fn name_offset(&self) -> u32 {
        self.u32(4)
    }

    /// Number of a function that the runtime treats specially (`abi.FuncID`). The meaning of a number depends
    /// on the release.
    pub fn func_id(&self) -> u8 {
        self.byte(if self.has_start_line() { 40 } else { 36 })
    }

    /// Properties of the function.
    pub fn flags(&self) -> FuncFlags {
        FuncFlags(self.byte(if self.has_start_line() { 41 } else { 37 }))
    }

    /// Line of the `func` keyword, from Go 1.20 on.
    pub fn start_line(&self) -> Option<u32> {
        self.has_start_line().then(|| self.u32(36))
    }

    /// Returns the number of bytes from the stack pointer to the return address (amd64) or to the caller's
    /// frame (arm64), at `pc`. `None` if the table has no value: not Go code, or a damaged table.
    pub fn sp_delta(&self, pc: LinkAddr) -> Option<u32> {
        let offset = self.u32(16);
        if offset == 0 {
            return None;
        }
        self.value_at(offset, pc).and_then(|v| u32::try_from(v).ok())
    }

    /// Returns the source file and line at `pc`; "?" and 0 if unknown, as the runtime prints them.
    pub fn file_line(&self, pc: LinkAddr) -> (&'t [u8], u32) {
        let file = self.value_at(self.u32(20), pc).and_then(|i| self.table.file_at(self.u32(32), i));
        let line = self.value_at(self.u32(24), pc);
        match (file, line) {
            (Some(file), Some(line)) if line >= 0 => (file, line.cast_unsigned()),
            _ => (b"?", 0),
        }
    }

    /// Returns the value of a per-pc table at `pc`; -1 if the function has no such table or no value.
    pub fn pcdata(&self, table: u32, pc: LinkAddr) -> i32 {
        if table >= self.npcdata() {
            return -1;
        }
        match self.u32(self.fixed_size() + 4 * table as usize) {
            0 => -1,
            offset => self.value_at(offset, pc).unwrap_or(-1),
        }
    }

    /// Link address of function data `index`.
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

    /// Pclntab of the function.
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
