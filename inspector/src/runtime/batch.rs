//! Batched reads of many places in a process. One batch keeps the reads as close to one instant as possible.

use symbols::addr::RuntimeAddr;
use symbols::layout::Field;

use crate::memory::{Memory, MemoryError, Span};

/// Maximum total size of one batch, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Places to read, in the order of the requests.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Span>,
    total: usize,
}

/// Handle of one requested place; gives access to its bytes after the read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(usize);

impl Batch {
    /// Requests `len` bytes at `at`.
    pub fn add(&mut self, at: RuntimeAddr, len: usize) -> Ticket {
        self.total = self.total.saturating_add(len);
        self.spans.push(Span { addr: at.0, len });
        Ticket(self.spans.len() - 1)
    }

    /// Requests a field of the struct at `at`.
    pub fn field(&mut self, at: RuntimeAddr, field: Field) -> Ticket {
        self.add(at.plus(field.offset), usize::try_from(field.size).unwrap_or_default())
    }

    /// Reads all requested places. A single unreadable place is absent from the result.
    ///
    /// # Errors
    /// Returns a [`MemoryError`] if the memory of the target cannot be read at all. Returns
    /// [`MemoryError::Unmapped`] if the batch is larger than any answer needs.
    pub fn read(self, memory: &dyn Memory) -> Result<Pieces, MemoryError> {
        if self.total > MAX_BYTES {
            return Err(MemoryError::Unmapped(RuntimeAddr(self.spans.first().map_or(0, |s| s.addr))));
        }
        let (mut bytes, mut failed) = (vec![0; self.total], Vec::new());
        if !self.spans.is_empty() {
            memory.read_spans(&self.spans, &mut bytes, &mut failed)?;
        }
        let mut places = Vec::with_capacity(self.spans.len());
        let mut at = 0;
        for span in &self.spans {
            places.push(Some((at, span.len)));
            at += span.len;
        }
        for index in failed {
            if let Some(place) = places.get_mut(index) {
                *place = None;
            }
        }
        Ok(Pieces { bytes, places })
    }
}

/// Bytes that a batch read.
#[derive(Debug)]
pub struct Pieces {
    bytes: Vec<u8>,
    places: Vec<Option<(usize, usize)>>,
}

impl Pieces {
    /// Returns the bytes of a place, or `None` if it was unreadable.
    pub fn get(&self, ticket: Ticket) -> Option<&[u8]> {
        let (at, len) = (*self.places.get(ticket.0)?)?;
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// Returns a place of one, two, four or eight bytes as an unsigned number.
    pub fn number(&self, ticket: Ticket) -> Option<u64> {
        unsigned(self.get(ticket)?)
    }
}

/// Decodes a little-endian unsigned number of one, two, four or eight bytes.
pub fn unsigned(bytes: &[u8]) -> Option<u64> {
    if !matches!(bytes.len(), 1 | 2 | 4 | 8) {
        return None;
    }
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RecordedMemory;

    #[test]
    fn holes_are_absent() {
        let memory = RecordedMemory::default().with(0x1000, (0..32).collect());
        let mut batch = Batch::default();
        let a = batch.add(RuntimeAddr(0x1000), 2);
        let hole = batch.add(RuntimeAddr(0x9000), 8);
        let b = batch.field(RuntimeAddr(0x1000), Field { offset: 4, size: 4 });
        let pieces = batch.read(&memory).unwrap();
        assert_eq!(pieces.number(a), Some(0x0100));
        assert_eq!(pieces.get(hole), None);
        assert_eq!(pieces.number(b), Some(0x0706_0504));
        let mut batch = Batch::default();
        batch.add(RuntimeAddr(0x1000), usize::MAX);
        assert!(batch.read(&memory).is_err());
    }
}
