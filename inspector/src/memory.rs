//! Interface to the memory of a process.

use std::fmt;

use nix::errno::Errno;
use symbols::addr::RuntimeAddr;

/// Reason why memory could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No readable memory is mapped at this address.
    #[error("no readable memory at {0}")]
    Unmapped(RuntimeAddr),
    /// The process has exited.
    #[error("the process exited")]
    Exited,
    /// The kernel denies access.
    #[error("the kernel denies reading its memory")]
    Denied,
    /// Other error of the kernel.
    #[error("reading memory: {0}")]
    Os(Errno),
}

/// Address range to read in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Start address.
    pub addr: u64,
    /// Length in bytes.
    pub len: usize,
}

/// Cost of reading so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCost {
    /// Bytes copied out of the target.
    pub bytes: u64,
    /// Number of system calls made.
    pub calls: u64,
}

/// Memory by runtime address: of a running process, or recorded pieces for tests; later of a core
/// file. Users take `&dyn Memory` and do not depend on the kind.
///
/// A reader belongs to one thread; [`Memory::another`] makes one for a second thread.
pub trait Memory: fmt::Debug + Send {
    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// Returns [`MemoryError`] if not all of the range can be read; the contents of `buf` are
    /// unspecified then.
    fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError>;

    /// Reads `spans` back to back into `out`, which has exactly their total length. Appends the
    /// indices of unreadable spans to `failed`; the bytes of these spans are unspecified.
    ///
    /// # Errors
    /// Returns [`MemoryError`] only if nothing can be read any more: exited, denied.
    fn read_spans(&self, spans: &[Span], out: &mut [u8], failed: &mut Vec<usize>) -> Result<(), MemoryError> {
        let mut rest = out;
        for (i, span) in spans.iter().enumerate() {
            let Some((buf, tail)) = rest.split_at_mut_checked(span.len) else { break };
            match self.read(RuntimeAddr(span.addr), buf) {
                Ok(()) => {}
                Err(MemoryError::Unmapped(_)) => failed.push(i),
                Err(other) => return Err(other),
            }
            rest = tail;
        }
        Ok(())
    }

    /// Makes another reader of the same memory, for another thread. The cost of that reader is
    /// counted separately.
    fn another(&self) -> Box<dyn Memory>;

    /// Cost of reading so far.
    fn cost(&self) -> ReadCost {
        ReadCost::default()
    }

    /// Adds the cost of another reader of the same memory.
    fn add_cost(&self, _cost: ReadCost) {}

    /// Prepares everything that a stop needs, so that no preparation is done during the stop.
    fn prepare_stop(&self) {}

    /// Notes that the process stands still from now on, or runs on. Called by [`InStop`].
    fn set_stopped(&self, _stopped: bool) {}

    /// Asks the kernel to fetch the pages that were missed in stops, while the process runs.
    /// Returns true if one of them has arrived, so that another stop is worthwhile.
    fn fetch_absent(&self) -> bool {
        false
    }

    /// Reads the little-endian 64-bit word at `addr`.
    fn word(&self, addr: RuntimeAddr) -> Result<u64, MemoryError> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// Reads `len` bytes from `addr`.
    fn bytes(&self, addr: RuntimeAddr, len: usize) -> Result<Vec<u8>, MemoryError> {
        let mut buf = vec![0; len];
        self.read(addr, &mut buf)?;
        Ok(buf)
    }
}

/// Marks a stop of the process. Must be dropped before the process runs on. During the stop, a page
/// that is not in physical memory counts as unmapped, as fetching it can take for ever. Missed
/// pages are remembered for [`Memory::fetch_absent`].
#[derive(Debug)]
pub struct InStop<'m>(&'m dyn Memory);

impl<'m> InStop<'m> {
    /// Marks the begin of a stop. The process must already be stopped by us.
    pub fn begin(memory: &'m dyn Memory) -> Self {
        memory.set_stopped(true);
        InStop(memory)
    }
}

impl Drop for InStop<'_> {
    fn drop(&mut self) {
        self.0.set_stopped(false);
    }
}

/// Recorded pieces of memory, for tests and fuzzing.
#[derive(Debug, Clone, Default)]
pub struct RecordedMemory {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl RecordedMemory {
    /// Adds a piece that holds `bytes` from `addr`.
    pub fn with(mut self, addr: u64, bytes: Vec<u8>) -> Self {
        self.pieces.push((addr, bytes));
        self
    }
}

impl Memory for RecordedMemory {
    fn another(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }

    fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError> {
        let found = self.pieces.iter().find_map(|(start, bytes)| {
            let skip = usize::try_from(addr.0.checked_sub(*start)?).ok()?;
            bytes.get(skip..skip.checked_add(buf.len())?)
        });
        match found {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(MemoryError::Unmapped(addr)),
        }
    }
}
