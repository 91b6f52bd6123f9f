//! Files as a process sees them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};

use super::{Namespace, Process};

/// More open files than are looked at to find one socket.
const MAX_FILES: usize = 1 << 16;

impl Process {
    /// Opens a path below the root directory of the process: no symbolic link in it leads out of there.
    ///
    /// # Errors
    /// What the kernel says; `ENOSYS` before Linux 5.6.
    pub fn open_in_root(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(self.dir(), "root", root, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed meanwhile, so that the kernel cannot be sure.
        for _ in 0..8 {
            match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    /// Opens one of its namespaces, to enter it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open_namespace(&self, kind: Namespace) -> io::Result<OwnedFd> {
        let path = format!("ns/{}", kind.name());
        Ok(rustix::fs::openat(self.dir(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Inodes of its open sockets. `None` where its open files may not be seen.
    pub fn sockets(&self) -> Option<Vec<u64>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(self.dir(), "fd", flags, Mode::empty()).ok()?;
        let files = Dir::read_from(&dir).ok()?.take(MAX_FILES);
        let inode = |entry: rustix::fs::DirEntry| -> Option<u64> {
            let target = rustix::fs::readlinkat(&dir, entry.file_name(), Vec::new()).ok()?;
            target.to_str().ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        Some(files.filter_map(|e| inode(e.ok()?)).collect())
    }
}
