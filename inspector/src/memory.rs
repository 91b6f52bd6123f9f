//! The one seam to a process's memory.

use std::cell::Cell;
use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
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

/// What reading has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCost {
    /// Bytes copied out of the target.
    pub bytes: u64,
    /// System calls made for it.
    pub calls: u64,
}

/// The memory of a running process, read by `process_vm_readv`: the target does not notice.
#[derive(Debug)]
pub struct LiveMemory {
    pid: Pid,
    bytes: Cell<u64>,
    calls: Cell<u64>,
}

/// `UIO_MAXIOV`: the kernel takes no more ranges in a call.
const MAX_IOVECS: usize = 1024;

impl LiveMemory {
    /// The memory of process `pid`.
    pub fn new(pid: i32) -> Self {
        LiveMemory { pid: Pid::from_raw(pid), bytes: Cell::new(0), calls: Cell::new(0) }
    }

    /// What reading has cost so far.
    pub fn cost(&self) -> ReadCost {
        ReadCost { bytes: self.bytes.get(), calls: self.calls.get() }
    }

    /// Counts what another reader of the same process has read.
    pub fn add_cost(&self, cost: ReadCost) {
        self.bytes.set(self.bytes.get() + cost.bytes);
        self.calls.set(self.calls.get() + cost.calls);
    }

    fn transfer(&self, local: &mut [u8], remote: &[RemoteIoVec]) -> Result<usize, Errno> {
        let result = process_vm_readv(self.pid, &mut [IoSliceMut::new(local)], remote);
        self.calls.set(self.calls.get() + 1);
        if let Ok(n) = result {
            self.bytes.set(self.bytes.get() + n as u64);
        }
        result
    }
}

fn error(errno: Errno, addr: u64) -> MemoryError {
    match errno {
        Errno::EFAULT | Errno::EIO | Errno::ENOMEM => MemoryError::Unmapped(RuntimeAddr(addr)),
        Errno::ESRCH => MemoryError::Exited,
        Errno::EPERM => MemoryError::Denied,
        other => MemoryError::Os(other),
    }
}

impl Memory for LiveMemory {
    fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError> {
        let unmapped = MemoryError::Unmapped(addr);
        let mut done = 0;
        while done < buf.len() {
            let Some(base) = usize::try_from(addr.0).ok().and_then(|a| a.checked_add(done)) else {
                return Err(unmapped);
            };
            let rest = &mut buf[done..];
            let remote = [RemoteIoVec { base, len: rest.len() }];
            match self.transfer(rest, &remote) {
                Ok(0) => return Err(unmapped),
                Ok(n) => done += n,
                Err(errno) => return Err(error(errno, addr.0)),
            }
        }
        Ok(())
    }

    fn read_spans(&self, spans: &[Span], out: &mut [u8], failed: &mut Vec<usize>) -> Result<(), MemoryError> {
        let mut remote: Vec<RemoteIoVec> = Vec::with_capacity(MAX_IOVECS.min(spans.len()));
        let (mut next, mut at) = (0, 0);
        while next < spans.len() {
            remote.clear();
            let mut len = 0;
            for span in spans[next..].iter().take(MAX_IOVECS) {
                let Ok(base) = usize::try_from(span.addr) else { break };
                remote.push(RemoteIoVec { base, len: span.len });
                len += span.len;
            }
            let Some(local) = out.get_mut(at..at + len) else { return Err(MemoryError::Os(Errno::EINVAL)) };
            let got = match self.transfer(local, &remote) {
                Ok(n) => n,
                Err(Errno::EFAULT | Errno::EIO | Errno::ENOMEM) => 0,
                Err(errno) => return Err(error(errno, spans[next].addr)),
            };
            // The kernel stops at the first byte that it cannot read: all spans before are whole.
            let mut whole = 0;
            for span in &spans[next..next + remote.len()] {
                if whole + span.len > got {
                    failed.push(next);
                    at += span.len;
                    next += 1;
                    break;
                }
                whole += span.len;
                at += span.len;
                next += 1;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_on_behind_a_hole() {
        let data = [7u8; 64];
        let live = LiveMemory::new(i32::try_from(std::process::id()).unwrap());
        let at = |i: usize| Span { addr: data[i..].as_ptr() as u64, len: 8 };
        let spans = [at(0), Span { addr: 8, len: 8 }, at(8), at(16)];
        let (mut out, mut failed) = (vec![0; 32], Vec::new());
        live.read_spans(&spans, &mut out, &mut failed).unwrap();
        assert_eq!(failed, [1]);
        assert_eq!(out[..8], data[..8]);
        assert_eq!(out[16..], data[..16]);
    }

    #[test]
    fn a_process_that_is_not_there() {
        let live = LiveMemory::new(i32::MAX);
        assert_eq!(live.word(RuntimeAddr(4096)), Err(MemoryError::Exited));
    }
}
