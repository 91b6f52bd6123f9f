//! The one seam to a process's memory.

mod live;
mod presence;

use nix::errno::Errno;
use symbols::addr::RuntimeAddr;

pub use live::{InStop, LiveMemory, ReadCost};

/// Why memory could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nothing readable is mapped there.
    #[error("no readable memory at {0}")]
    Unmapped(RuntimeAddr),
    /// The process is gone.
    #[error("the process exited")]
    Exited,
    /// The kernel denies access.
    #[error("the kernel denies reading its memory")]
    Denied,
    /// Something else that the kernel says.
    #[error("reading memory: {0}")]
    Os(Errno),
}

/// A range to read in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub addr: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Memory by runtime address: of a live process, later of a core file or a recording.
pub trait Memory {
    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// Where not all of it can be read; what `buf` holds is unspecified then.
    fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError>;

    /// Reads `spans` back to back into `out`, which holds exactly their total length. Indices of spans that
    /// could not be read are appended to `failed`; their bytes are unspecified.
    ///
    /// # Errors
    /// Only where nothing can be read any more: exited, denied.
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

    /// The little-endian word at `addr`.
    fn word(&self, addr: RuntimeAddr) -> Result<u64, MemoryError> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// `len` bytes from `addr`.
    fn bytes(&self, addr: RuntimeAddr, len: usize) -> Result<Vec<u8>, MemoryError> {
        let mut buf = vec![0; len];
        self.read(addr, &mut buf)?;
        Ok(buf)
    }
}

/// Memory in pieces, for tests and fuzzing.
#[derive(Debug, Clone, Default)]
pub struct RecordedMemory {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl RecordedMemory {
    /// Memory that holds `bytes` from `addr`.
    pub fn with(mut self, addr: u64, bytes: Vec<u8>) -> Self {
        self.pieces.push((addr, bytes));
        self
    }
}

impl Memory for RecordedMemory {
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
