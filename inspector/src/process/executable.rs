//! The bytes of a process's executable and of the shared objects that it has mapped.
//!
//! They are opened through /proc, never by the path that the process reports: that path may lead elsewhere in our mount
//! namespace, or nowhere. They are read, not mapped: a mapping of a file that shrinks would kill us with SIGBUS.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use symbols::image::Source;

use super::regular::RegularFile;

/// Which file it is, and which contents of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number on the device.
    pub inode: u64,
    /// Time of the last change of the contents, in nanoseconds: inodes are used again.
    pub modified: i128,
}

/// An open executable or shared object.
pub struct Executable {
    file: File,
    len: u64,
    id: FileId,
    links: u64,
    read: Arc<AtomicU64>,
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Executable {
    /// Takes over an open file.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn new(file: RegularFile) -> io::Result<Self> {
        let meta = file.metadata()?;
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Executable {
            len: meta.len(),
            id: FileId { device: meta.dev(), inode: meta.ino(), modified },
            links: meta.nlink(),
            file: file.into(),
            read: Arc::default(),
        })
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Whether no directory holds it any more.
    pub fn is_deleted(&self) -> bool {
        self.links == 0
    }

    /// How many bytes were read from it, for whoever wants to know after it was given away.
    pub fn read_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Source for Executable {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buf, offset).is_ok()
    }
}
