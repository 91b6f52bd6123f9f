//! `runtime.allgs`, and reading all of its gs in few large pieces.

use symbols::addr::RuntimeAddr;

use crate::memory::{Memory, MemoryError, Span};

/// Sixteen million goroutines have 32 GB of stack at least.
const MAX_GOROUTINES: u64 = 1 << 24;
/// A piece that stays in the processor's second-level cache while it is copied and parsed.
pub(super) const PIECE: usize = 512 << 10;
/// gs lie in heap spans, one behind the other: reading the gap between two is cheaper than another range.
const MAX_GAP: u64 = 1024;

/// Why the list of goroutines could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GListError {
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The same g twice: not the list of all gs.
    #[error("allgs lists the same goroutine twice")]
    Duplicate,
    /// A length that cannot be.
    #[error("allglen says {0} goroutines")]
    Length(u64),
}

/// Where `allglen` and `allgptr` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllGs {
    /// `runtime.allglen`.
    pub len: RuntimeAddr,
    /// `runtime.allgptr`.
    pub ptr: RuntimeAddr,
}

impl AllGs {
    /// The addresses of all gs from index `from` on.
    ///
    /// The length is read before the pointer, as the runtime's `atomicAllG` does: the array only grows, so the
    /// one read later holds at least so many.
    pub fn read(&self, memory: &dyn Memory, from: usize) -> Result<Vec<u64>, GListError> {
        let len = memory.word(self.len)?;
        if len > MAX_GOROUTINES {
            return Err(GListError::Length(len));
        }
        let ptr = memory.word(self.ptr)?;
        let count = usize::try_from(len).unwrap_or(0).saturating_sub(from);
        let bytes = memory.bytes(RuntimeAddr(ptr).plus(8 * from as u64), 8 * count)?;
        Ok(bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect())
    }
}

/// Neighbouring gs.
#[derive(Debug, Clone, Copy)]
struct Run {
    addr: u64,
    len: usize,
    /// Range in `GList::order`.
    first: usize,
    count: usize,
}

/// All gs of a process, in the order of `allgs`.
#[derive(Debug, Clone)]
pub struct GList {
    addrs: Vec<u64>,
    /// Indices into `addrs`, by address.
    order: Vec<u32>,
    runs: Vec<Run>,
    g_size: usize,
}

impl GList {
    /// Arranges gs of `g_size` bytes at `addrs` for reading.
    pub fn new(addrs: Vec<u64>, g_size: usize) -> Self {
        let mut list = GList { addrs, order: Vec::new(), runs: Vec::new(), g_size };
        list.arrange();
        list
    }

    /// How many gs there are.
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// Whether a g is listed twice, which the runtime never does.
    pub fn has_duplicates(&self) -> bool {
        self.order.windows(2).any(|pair| match pair {
            [a, b] => self.addr(*a as usize) == self.addr(*b as usize),
            _ => false,
        })
    }

    /// Adds gs that were created meanwhile. They are part of no piece before [`GList::arrange`].
    pub fn append(&mut self, addrs: &[u64]) {
        self.addrs.extend_from_slice(addrs);
    }

    /// The address of the g at `index` of `allgs`.
    pub fn addr(&self, index: usize) -> u64 {
        self.addrs.get(index).copied().unwrap_or(0)
    }

    /// Arranges all gs in pieces for reading.
    pub fn arrange(&mut self) {
        let plausible = |a: u64| a != 0 && a.is_multiple_of(8) && a < 1 << 56;
        self.order = (0..self.addrs.len()).filter(|&i| plausible(self.addrs[i])).map(|i| i as u32).collect();
        let addrs = &self.addrs;
        self.order.sort_unstable_by_key(|&i| addrs[i as usize]);
        self.runs.clear();
        for (position, &index) in self.order.iter().enumerate() {
            let addr = addrs[index as usize];
            let end = addr + self.g_size as u64;
            match self.runs.last_mut() {
                Some(run)
                    if addr >= run.addr + run.len as u64
                        && addr - (run.addr + run.len as u64) <= MAX_GAP
                        && end - run.addr <= PIECE as u64 =>
                {
                    run.len = (end - run.addr) as usize;
                    run.count += 1;
                }
                _ => self.runs.push(Run { addr, len: self.g_size, first: position, count: 1 }),
            }
        }
    }

    /// How many pieces [`GList::read_piece`] takes.
    pub fn pieces(&self) -> Vec<std::ops::Range<usize>> {
        let mut pieces: Vec<std::ops::Range<usize>> = Vec::new();
        let mut filled = 0;
        for (i, run) in self.runs.iter().enumerate() {
            match pieces.last_mut() {
                Some(piece) if filled + run.len <= PIECE && piece.len() < 1024 => {
                    piece.end = i + 1;
                    filled += run.len;
                }
                _ => {
                    pieces.push(i..i + 1);
                    filled = run.len;
                }
            }
        }
        pieces
    }

    /// The indices in `allgs` of the gs of a piece.
    pub fn indices(&self, piece: std::ops::Range<usize>) -> Vec<usize> {
        let runs = self.runs.get(piece).unwrap_or_default();
        runs.iter()
            .flat_map(|run| self.order.get(run.first..run.first + run.count).unwrap_or_default())
            .map(|&index| index as usize)
            .collect()
    }

    /// Reads one of [`GList::pieces`] and hands out each g's index in `allgs`, its address and its bytes; `None`
    /// for a g that cannot be read. `buffer` is for use by the next call again.
    pub fn read_piece(
        &self,
        memory: &dyn Memory,
        piece: std::ops::Range<usize>,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(usize, u64, Option<&[u8]>),
    ) -> Result<(), MemoryError> {
        let runs = self.runs.get(piece).unwrap_or_default();
        let spans: Vec<Span> = runs.iter().map(|r| Span { addr: r.addr, len: r.len }).collect();
        let total: usize = spans.iter().map(|s| s.len).sum();
        if buffer.len() < total {
            buffer.resize(total.max(PIECE), 0);
        }
        let mut failed = Vec::new();
        memory.read_spans(&spans, &mut buffer[..total], &mut failed)?;
        let mut at = 0;
        for (i, run) in runs.iter().enumerate() {
            let bytes = &buffer[at..at + run.len];
            at += run.len;
            for &index in &self.order[run.first..run.first + run.count] {
                let addr = self.addrs[index as usize];
                let start = (addr - run.addr) as usize;
                if failed.contains(&i) {
                    // One hole must not hide the others of its run.
                    let alone = memory.bytes(RuntimeAddr(addr), self.g_size).ok();
                    each(index as usize, addr, alone.as_deref());
                } else {
                    each(index as usize, addr, bytes.get(start..start + self.g_size));
                }
            }
        }
        Ok(())
    }

    /// Reads all gs: see [`GList::read_piece`].
    pub fn read_all(
        &self,
        memory: &dyn Memory,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(usize, u64, Option<&[u8]>),
    ) -> Result<(), MemoryError> {
        for piece in self.pieces() {
            self.read_piece(memory, piece, buffer, &mut each)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RecordedMemory;

    #[test]
    fn each_g_is_handed_out_once_in_whatever_order_they_lie() {
        let mut bytes = vec![0u8; 4096];
        let addrs = vec![0x1800, 0x1000, 0x1200, 0x9000, 0x1201, 0];
        for a in [0x1800u64, 0x1000, 0x1200] {
            bytes[(a - 0x1000) as usize] = (a >> 8) as u8;
        }
        let memory = RecordedMemory::default().with(0x1000, bytes);
        let list = GList::new(addrs, 256);
        let mut seen = Vec::new();
        list.read_all(&memory, &mut Vec::new(), |i, addr, bytes| seen.push((i, addr, bytes.map(|b| b[0]))))
            .unwrap();
        seen.sort_unstable();
        assert_eq!(
            seen,
            [(0, 0x1800, Some(0x18)), (1, 0x1000, Some(0x10)), (2, 0x1200, Some(0x12)), (3, 0x9000, None)]
        );
    }
}
