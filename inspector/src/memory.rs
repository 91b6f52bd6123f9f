//! The one seam to a process's memory.

use std::fmt;

use nix::errno::Errno;
use symbols::addr::RuntimeAddr;

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

/// What reading has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCost {
    /// Bytes copied out of the target.
    pub bytes: u64,
    /// System calls made for it.
    pub calls: u64,
}

/// Memory by runtime address: of a running process, or in pieces for tests; later of a core file. Who needs it takes
/// `&dyn Memory` and does not ask which it is.
///
/// One reader is of one thread; [`Memory::another`] is for a second one.
pub trait Memory: fmt::Debug + Send {
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

    /// Another reader of the same memory, for another thread. What it costs counts for itself.
    fn another(&self) -> Box<dyn Memory>;

    /// What reading has cost so far.
    fn cost(&self) -> ReadCost {
        ReadCost::default()
    }

    /// Counts what another reader of the same memory has read.
    fn add_cost(&self, _cost: ReadCost) {}

    /// Makes ready what a stop needs, so that nothing of it is done in the stop.
    fn prepare_stop(&self) {}

    /// Says that the process stands still from now on, or runs on. Called by [`InStop`].
    fn set_stopped(&self, _stopped: bool) {}

    /// Has the kernel fetch the pages that were missed in stops, while the process runs. Whether one of them has come, so that it is
    /// worth while to stop it again.
    fn fetch_absent(&self) -> bool {
        false
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

/// A stop of the process: while this lives, which has to end before the process runs on, a page that is not in its memory counts as
/// unmapped. To fetch such a page can take for ever. It is remembered for [`Memory::fetch_absent`].
#[derive(Debug)]
pub struct InStop<'m>(&'m dyn Memory);

impl<'m> InStop<'m> {
    /// Begins: the process has been stopped by us.
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
