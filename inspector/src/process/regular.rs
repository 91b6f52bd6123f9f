//! Regular files whose path others chose: the target, or any user who can write to the folder.
//!
//! Opening a device or a FIFO already has effects (a terminal is allocated, a tape winds, a writer
//! goes on). So the path is first opened without opening the file itself (`O_PATH`). Only a regular
//! file is then opened for reading. It is the same file, even if the path leads elsewhere
//! meanwhile, because it is opened through our own /proc/self/fd.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Process;
use crate::patience::{What, waiting};

/// Reason why a file was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The path leads to a directory, a FIFO, a device or a socket.
    #[error("it is no regular file")]
    Special,
    /// Error of the kernel; `ELOOP` for a symbolic link that was not to be followed.
    #[error("{}", io::Error::from(*.0))]
    Refused(Errno),
}

impl From<Errno> for NotOpened {
    fn from(errno: Errno) -> Self {
        NotOpened::Refused(errno)
    }
}

impl From<NotOpened> for io::Error {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::Special => io::Error::other(error),
            NotOpened::Refused(errno) => errno.into(),
        }
    }
}

/// Treatment of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Open the file that the link leads to.
    Follow,
    /// Refuse the link, as its creator is not trusted.
    Refuse,
}

impl Links {
    fn flags(self) -> OFlags {
        match self {
            Links::Follow => OFlags::PATH | OFlags::CLOEXEC,
            Links::Refuse => OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        }
    }
}

/// Regular file, open for reading.
#[derive(Debug)]
pub struct RegularFile(File);

impl RegularFile {
    /// Opens a file by a path of this machine.
    ///
    /// # Errors
    /// Returns [`NotOpened`]. With [`Links::Refuse`], a symbolic link gives [`NotOpened::Refused`]
    /// with `ELOOP`.
    pub fn open(path: &Path, links: Links) -> Result<Self, NotOpened> {
        Self::open_at(rustix::fs::CWD, path, links)
    }

    /// Opens a file by a path relative to an open directory. The kernel's own links in /proc are
    /// followed.
    ///
    /// # Errors
    /// Returns [`NotOpened`] as [`RegularFile::open`] does.
    pub fn open_at(dir: impl AsFd, path: &Path, links: Links) -> Result<Self, NotOpened> {
        waiting(What::Named, || reopened(&rustix::fs::openat(dir, path, links.flags(), Mode::empty())?))
    }

    /// Opens a file by a path below the root directory of a process. No symbolic link in the path
    /// leads out of that root.
    ///
    /// # Errors
    /// Returns [`NotOpened`] as [`RegularFile::open`] does, and `ENOSYS` before Linux 5.6.
    pub fn open_in_root(process: &Process, path: &Path, links: Links) -> Result<Self, NotOpened> {
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(process.dir(), "root", root, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename happened meanwhile, so the kernel cannot be sure.
        for _ in 0..8 {
            let open = || match rustix::fs::openat2(&root, path, links.flags(), Mode::empty(), resolve) {
                Err(Errno::AGAIN) => Ok(None),
                other => reopened(&other?).map(Some),
            };
            if let Some(file) = waiting(What::Named, open)? {
                return Ok(file);
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Metadata of the file.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    pub fn metadata(&self) -> io::Result<Metadata> {
        waiting(What::Named, || self.0.metadata())
    }

    /// Reads the file, at most `most` bytes.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    pub fn read_up_to(self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        waiting(What::Named, || self.0.take(most).read_to_end(&mut bytes))?;
        Ok(bytes)
    }
}

impl From<RegularFile> for File {
    fn from(file: RegularFile) -> Self {
        file.0
    }
}

fn reopened(place: &OwnedFd) -> Result<RegularFile, NotOpened> {
    match FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode) {
        FileType::RegularFile => {}
        // Same error as the kernel gives if links are not to be followed.
        FileType::Symlink => return Err(Errno::LOOP.into()),
        _ => return Err(NotOpened::Special),
    }
    // A regular file opens at once, but a lease on it blocks others.
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(RegularFile(rustix::fs::open(path, flags, Mode::empty())?.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/null", path("device")).unwrap();
        symlink(path("loop"), path("loop")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open =
            |name: &str, links| RegularFile::open(&path(name), links).map(|file| file.read_up_to(2).unwrap());
        assert_eq!(open("file", Links::Refuse), Ok(b"te".to_vec()));
        assert_eq!(open("link", Links::Follow), Ok(b"te".to_vec()));
        assert_eq!(open("link", Links::Refuse), Err(NotOpened::Refused(Errno::LOOP)));
        assert_eq!(open("device", Links::Refuse), Err(NotOpened::Refused(Errno::LOOP)));
        for special in ["device", "fifo", "."] {
            assert_eq!(open(special, Links::Follow), Err(NotOpened::Special), "{special}");
        }
        assert_eq!(open("loop", Links::Follow), Err(NotOpened::Refused(Errno::LOOP)));
        assert_eq!(open("none", Links::Follow), Err(NotOpened::Refused(Errno::NOENT)));
    }
}
