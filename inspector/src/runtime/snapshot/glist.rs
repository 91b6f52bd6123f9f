//! List of all gs (`runtime.allgs`), and reading them in few large pieces.

use symbols::addr::RuntimeAddr;

use crate::memory::{Memory, MemoryError, Span};

/// Maximum number of goroutines. Sixteen million goroutines have at least 32 GB of stacks.
const MAX_GOROUTINES: u64 = 1 << 24;
/// Size of a piece in bytes, chosen to stay in the processor's second-level cache while it is copied and
/// parsed.
pub(super) const PIECE: usize = 512 << 10;
/// Maximum gap between two gs of one range, in bytes. gs are adjacent in heap spans, and reading a gap is
/// cheaper than reading another range.
const MAX_GAP: u64 = 1024;

/// Reason why the list of goroutines could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GListError {
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The list contains the same g twice, so it is not the list of all gs.
    #[error("allgs lists the same goroutine twice")]
    Duplicate,
    /// The length of the list is impossible.
    #[error("allglen says {0} goroutines")]
    Length(u64),
}

/// Addresses of `allglen` and `allgptr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllGs {
    /// Address of `runtime.allglen`.
    pub len: RuntimeAddr,
    /// Address of `runtime.allgptr`.
    pub ptr: RuntimeAddr,
}

impl AllGs {
    /// Reads the addresses of all gs from index `from` on.
    ///
    /// The length is read before the pointer, as in the runtime's `atomicAllG`. The array only grows, so an
    /// array read later holds at least this number of gs.
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

/// Neighbouring gs that are read as one range.
#[derive(Debug, Clone, Copy)]
struct Run {
    addr: u64,
    len: usize,
    /// Start of the range in `GList::order`.
    first: usize,
    count: usize,
}

/// All gs of a process, in the order of `allgs`.
#[derive(Debug, Clone)]
pub struct GList {
    addrs: Vec<u64>,
    /// Indices into `addrs`, sorted by address.
    order: Vec<u32>,
    runs: Vec<Run>,
    g_size: usize,
}

impl GList {
    /// Creates the list of gs of `g_size` bytes at `addrs`, and arranges it for reading.
    pub fn new(addrs: Vec<u64>, g_size: usize) -> Self {
        let mut list = GList { addrs, order: Vec::new(), runs: Vec::new(), g_size };
        list.arrange();
        list
    }

    /// Returns the number of gs.
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// Returns true if the list has no gs.
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// Returns true if a g is listed twice, which the runtime never does.
    pub fn has_duplicates(&self) -> bool {
        self.order.windows(2).any(|pair| match pair {
            [a, b] => self.addr(*a as usize) == self.addr(*b as usize),
            _ => false,
        })
    }

    /// Adds gs that were created later. They belong to no piece before [`GList::arrange`].
    pub fn append(&mut self, addrs: &[u64]) {
        self.addrs.extend_from_slice(addrs);
    }

    /// Returns the address of the g at `index` of `allgs`.
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

    /// Returns the pieces for [`GList::read_piece`].
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

    /// Returns the indices in `allgs` of the gs of a piece.
    pub fn indices(&self, piece: std::ops::Range<usize>) -> Vec<usize> {
        let runs = self.runs.get(piece).unwrap_or_default();
        runs.iter()
            .flat_map(|run| self.order.get(run.first..run.first + run.count).unwrap_or_default())
            .map(|&index| index as usize)
            .collect()
    }

    /// Reads one of [`GList::pieces`]. Calls `each` with the index in `allgs`, the address and the bytes of
    /// each g; the bytes are `None` for an unreadable g. `buffer` can be reused by the next call.
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
                    // One unreadable g must not hide the others of its range.
                    let alone = memory.bytes(RuntimeAddr(addr), self.g_size).ok();
                    each(index as usize, addr, alone.as_deref());
                } else {
                    each(index as usize, addr, bytes.get(start..start + self.g_size));
                }
            }
        }
        Ok(())
    }

    /// Reads all gs, piece by piece with [`GList::read_piece`].
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
