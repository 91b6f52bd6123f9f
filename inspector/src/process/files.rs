//! Open files and namespaces of a process.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::access::Access;
use super::{Error, Namespace, Process};

/// Maximum number of open files that are looked at to find one socket.
const MAX_FILES: usize = 1 << 16;

impl Process {
    /// Opens a namespace of the process, to enter it.
    ///
    /// # Errors
    /// Returns the error of the kernel if the namespace cannot be opened.
    pub fn open_namespace(&self, kind: Namespace) -> io::Result<OwnedFd> {
        let path = format!("ns/{}", kind.name());
        Ok(rustix::fs::openat(self.dir(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Inodes of the open sockets of the process. `None` if the open files may not be seen.
    pub fn sockets(&self) -> Option<Vec<u64>> {
        self.open_sockets().ok()
    }

    /// Inodes of the open sockets of the process.
    ///
    /// # Errors
    /// Returns [`Error::Denied`] if the open files may not be seen, and [`Error::Exited`] if the
    /// process has exited.
    pub fn open_sockets(&self) -> Result<Vec<u64>, Error> {
        let failed = |e: Errno| self.explain("list the open files", Access::OpenFiles, e.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(self.dir(), "fd", flags, Mode::empty()).map_err(failed)?;
        let files = Dir::read_from(&dir).map_err(failed)?.take(MAX_FILES);
        let mut sockets = Vec::new();
        for file in files {
            // A file may be listed by others, but its link not read.
            let target = match rustix::fs::readlinkat(&dir, file.map_err(failed)?.file_name(), Vec::new()) {
                Ok(target) => target,
                Err(e @ (Errno::ACCESS | Errno::PERM)) => return Err(failed(e)),
                // Closed meanwhile; or a dot entry.
                Err(_) => continue,
            };
            let inode = |text: &str| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
            sockets.extend(target.to_str().ok().and_then(inode));
        }
        Ok(sockets)
    }
}
