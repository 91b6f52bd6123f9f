//! Reader of DWARF with a limit.
//!
//! Parts of DWARF refer to each other. If a part is read once for each reference, the cost in time and memory
//! can grow with any power of the file's size. The code that follows references counts nothing, so this
//! reader counts the bytes.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gimli::{EndianArcSlice, Error, LittleEndian, ReaderOffsetId, Result};

/// Remaining number of bytes that may be read.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(super) fn new(limit: u64) -> Self {
        Meter(Arc::new(AtomicU64::new(limit)))
    }

    /// Subtracts the number of bytes that are read.
    fn spend(&self, amount: usize) -> Result<()> {
        // Separate load and store: only one reader works at a time, so no count is lost in between.
        let left =
            self.0.load(Ordering::Relaxed).checked_sub(amount as u64).ok_or(Error::UnsupportedOffset)?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// Bytes of a section, with a meter.
#[derive(Debug, Clone)]
pub(super) struct Metered {
    bytes: EndianArcSlice<LittleEndian>,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(bytes: Arc<[u8]>, meter: &Meter) -> Self {
        Metered { bytes: EndianArcSlice::new(bytes, LittleEndian), meter: meter.clone() }
    }
}

impl gimli::Reader for Metered {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        gimli::Reader::len(&self.bytes)
    }

    fn empty(&mut self) {
        self.bytes.empty();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.bytes.truncate(len)
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.bytes.offset_from(&base.bytes)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        self.bytes.offset_id()
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        self.bytes.lookup_offset_id(id)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let rest: &[u8] = self.bytes.bytes();
        let found = memchr::memchr(byte, rest);
        self.meter.spend(1 + found.unwrap_or(rest.len()))?;
        found.ok_or_else(|| Error::UnexpectedEof(self.offset_id()))
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        self.meter.spend(1)?;
        self.bytes.skip(len)
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        self.meter.spend(1)?;
        Ok(Metered { bytes: self.bytes.split(len)?, meter: self.meter.clone() })
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.meter.spend(1 + gimli::Reader::len(self))?;
        self.bytes.to_slice()
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.meter.spend(1 + gimli::Reader::len(self))?;
        self.bytes.to_string()
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.meter.spend(1 + gimli::Reader::len(self))?;
        self.bytes.to_string_lossy()
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.meter.spend(buf.len().max(1))?;
        self.bytes.read_slice(buf)
    }
}
