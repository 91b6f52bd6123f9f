//! Place that a path of `-o` names, found so that nobody else can change the choice. Each part of the path is
//! checked before it is followed, and the checked object itself is used.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, FdFlags};

/// Maximum number of links followed, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Number of names tried before giving up.
const TRIES: usize = 16;

/// Reason why a place is not written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    /// Link that another user may have made or may change.
    #[error("{} is a symbolic link in a folder that others can write", .0.display())]
    Link(PathBuf),
    /// File of another user, who can read what is written.
    #[error("it belongs to user {0}, in a folder that others can write")]
    Owner(u32),
}

impl From<Untrusted> for io::Error {
    fn from(why: Untrusted) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// Place that can be written to.
#[derive(Debug)]
pub(super) enum Place {
    /// Descriptor that this process was started with: `/dev/stdout`, `/dev/fd/3`.
    Inherited(OwnedFd),
    /// Existing object that is no regular file (a FIFO, a device), or the target of a link in /proc. Found,
    /// but not opened.
    Special(OwnedFd),
    /// Name in a folder, for a regular file.
    Entry(Entry),
}

/// Name in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    folder: OwnedFd,
    name: OsString,
}

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const FIND_LINK: OFlags = FIND.union(OFlags::NOFOLLOW);
const WRITE: OFlags = OFlags::WRONLY.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl Place {
    /// Finds the place of a path. A symbolic link is followed only in a folder that nobody but us and root
    /// can write.
    ///
    /// # Errors
    /// Returns the error of a system call, or [`Untrusted`].
    pub(super) fn find(path: &Path) -> io::Result<Self> {
        if let Some(number) = descriptor(path) {
            return inherited(number).map(Place::Inherited);
        }
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Errno::ISDIR.into());
        }
        let mut folder = start(path)?;
        let mut rest = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            let last = rest.is_empty();
            if part == ".." {
                folder = rustix::fs::openat(&folder, "..", FIND, Mode::empty())?;
                continue;
            }
            let found = match rustix::fs::openat(&folder, &part, FIND_LINK, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::NOENT) if last => return Ok(Place::Entry(Entry { folder, name: part })),
                Err(e) => return Err(e.into()),
            };
            let stat = rustix::fs::fstat(&found)?;
            match (FileType::from_raw_mode(stat.st_mode), last) {
                (FileType::Symlink, _) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if others_can_write(&rustix::fs::fstat(&folder)?) {
                        let name = PathBuf::from(part);
                        return Err(Untrusted::Link(name).into());
                    }
                    if is_proc(&folder)? {
                        // The kernel's own links lead to objects that no path reaches.
                        let object = rustix::fs::openat(&folder, &part, FIND, Mode::empty())?;
                        let stat = rustix::fs::fstat(&object)?;
                        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                        match (is_folder, last) {
                            (true, false) => folder = object,
                            (false, true) => return Ok(Place::Special(object)),
                            (true, true) => break,
                            (false, false) => return Err(Errno::NOTDIR.into()),
                        }
                        continue;
                    }
                    // The target is that of the link found, even if the name has another owner now.
                    let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        folder = start(&target)?;
                    }
                    rest.extend(parts(&target));
                }
                (FileType::Directory, false) => folder = found,
                (FileType::Directory, true) => break,
                (FileType::RegularFile, true) => return Ok(Place::Entry(Entry { folder, name: part })),
                (_, true) => {
                    let around = rustix::fs::fstat(&folder)?;
                    let trusted = [rustix::process::geteuid().as_raw(), 0, around.st_uid];
                    if others_can_write(&around) && !trusted.contains(&stat.st_uid) {
                        return Err(Untrusted::Owner(stat.st_uid).into());
                    }
                    return Ok(Place::Special(found));
                }
                (_, false) => return Err(Errno::NOTDIR.into()),
            }
        }
        Err(Errno::ISDIR.into())
    }
}

/// Opens for writing an object that was found and is not a file name. Opening a FIFO waits for its reader, as
/// usual.
pub(super) fn open_special(found: &OwnedFd) -> io::Result<File> {
    // If a link in /proc leads to a file, its content is kept.
    let flags = WRITE | OFlags::APPEND;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?.into())
}

impl Entry {
    /// Begins a file under a temporary name until it is complete. The name is new, and nobody else can access
    /// the file.
    ///
    /// # Errors
    /// Returns the error of a system call.
    pub(super) fn begin(&self) -> io::Result<Unfinished<'_>> {
        let random = RandomState::new();
        let mut error = Errno::EXIST;
        for attempt in 0..TRIES {
            let mut name = self.name.clone();
            if attempt > 0 {
                name.push(format!(".{:08x}", random.hash_one(attempt) >> 32));
            }
            name.push(".partial");
            let flags = WRITE | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            match rustix::fs::openat(&self.folder, &name, flags, PRIVATE) {
                Ok(file) => return Ok(Unfinished { entry: self, name, file: file.into(), kept: false }),
                Err(Errno::EXIST) => {}
                Err(e) => {
                    error = e;
                    break;
                }
            }
        }
        Err(error.into())
    }

    /// Opens and empties an existing file of our own. Used if the folder takes no new files: nobody can
    /// replace the file either.
    ///
    /// # Errors
    /// Returns the error of a system call, or [`Untrusted`].
    pub(super) fn overwrite(&self) -> io::Result<File> {
        let found = rustix::fs::openat(&self.folder, &self.name, FIND_LINK, Mode::empty())?;
        let stat = rustix::fs::fstat(&found)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Untrusted::Owner(stat.st_uid).into());
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::LOOP.into());
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        Ok(rustix::fs::open(path, WRITE | OFlags::TRUNC, Mode::empty())?.into())
    }
}

/// Mode of new files: private, as stacks, heaps and programs contain secrets.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// File that is being written. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Unfinished<'e> {
    entry: &'e Entry,
    name: OsString,
    /// Open file to write to.
    pub(super) file: File,
    kept: bool,
}

impl Unfinished<'_> {
    /// Renames the file to its final name. With `fresh`, fails if that name was taken meanwhile; otherwise
    /// replaces the existing file.
    ///
    /// # Errors
    /// Returns the error of a system call; the file is then removed.
    pub(super) fn keep(mut self, fresh: bool) -> io::Result<()> {
        // The disk may report only now that it is full.
        match rustix::fs::fdatasync(&self.file) {
            Err(Errno::INVAL | Errno::ROFS | Errno::OPNOTSUPP) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
        let name = self.entry.name.clone();
        self.rename(&name, fresh)
    }

    /// Keeps the file under its temporary name, which marks it as partial. Returns the name.
    pub(super) fn keep_partial(mut self) -> OsString {
        self.kept = true;
        self.name.clone()
    }

    fn rename(&mut self, to: &OsStr, fresh: bool) -> io::Result<()> {
        let folder = &self.entry.folder;
        let renamed = if fresh {
            match rustix::fs::renameat_with(folder, &self.name, folder, to, RenameFlags::NOREPLACE) {
                // Some file systems do not support this; the name was free when it was chosen.
                Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(folder, &self.name, folder, to),
                other => other,
            }
        } else {
            rustix::fs::renameat(folder, &self.name, folder, to)
        };
        renamed?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The unfinished file is worth nothing. A failure to remove it cannot be handled.
            let _ = rustix::fs::unlinkat(&self.entry.folder, &self.name, AtFlags::empty());
        }
    }
}

/// Splits a path into parts, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.as_os_str().as_bytes().split(|&b| b == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
        .rev()
        .collect()
}

/// Opens the folder from which a path starts.
fn start(path: &Path) -> io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    Ok(rustix::fs::openat(CWD, start, FIND | OFlags::DIRECTORY, Mode::empty())?)
}

/// Returns true if others than us and root can put another object into a folder. The sticky bit does not
/// matter: it keeps others from replacing an object, not from being first.
fn others_can_write(folder: &Stat) -> bool {
    let owner = folder.st_uid != 0 && folder.st_uid != rustix::process::geteuid().as_raw();
    owner || Mode::from_raw_mode(folder.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

fn is_proc(folder: &OwnedFd) -> io::Result<bool> {
    // A path handle (O_PATH) gives its file system since Linux 3.12.
    Ok(rustix::fs::fstatfs(folder)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Returns the number of the descriptor that a path names.
fn descriptor(path: &Path) -> Option<i32> {
    let path = path.to_str()?;
    match path {
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let number = ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|folder| path.strip_prefix(folder))?;
    number
        .parse()
        .ok()
        .filter(|&number: &i32| number >= 0 && number.to_string() == path.rsplit('/').next().unwrap_or(""))
}

/// Duplicates a descriptor that this process was started with. Descriptors that we opened ourselves are
/// refused: they are marked to be closed on exec, which inherited ones never are.
#[allow(unsafe_code, reason = "a number of a descriptor is all that there is")]
fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: it is used before this function ends, and only for calls that say so where it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::io::fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF.into());
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder(mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        dir
    }

    fn untrusted(path: &Path) -> Option<Untrusted> {
        Place::find(path).err().and_then(|e| e.get_ref()?.downcast_ref().cloned())
    }

    #[test]
    fn links_are_followed_where_nobody_else_made_them() {
        for (mode, trusted) in [(0o755, true), (0o700, true), (0o1777, false), (0o777, false), (0o775, false)]
        {
            let dir = folder(mode);
            let elsewhere = folder(0o700);
            let target = elsewhere.path().join("target");
            symlink(&target, dir.path().join("link")).unwrap();
            symlink(elsewhere.path(), dir.path().join("folder")).unwrap();
            for path in ["link", "folder/target"] {
                let path = dir.path().join(path);
                assert_eq!(untrusted(&path).is_none(), trusted, "{mode:o} {}", path.display());
                let Ok(Place::Entry(entry)) = Place::find(&path) else {
                    assert!(!trusted);
                    continue;
                };
                let mut file = entry.begin().unwrap();
                file.file.write_all(b"x").unwrap();
                file.keep(false).unwrap();
                assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
                fs::remove_file(&target).unwrap();
            }
        }
    }

    #[test]
    fn what_is_not_whole_has_another_name() {
        let dir = folder(0o700);
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let Place::Entry(entry) = Place::find(&path).unwrap() else { panic!("a file") };
        drop(entry.begin().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(entry.begin().unwrap().keep(true).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // A file with the temporary name is not followed, whatever it is.
        symlink(&path, dir.path().join("file.partial")).unwrap();
        let name = entry.begin().unwrap().keep_partial().into_string().unwrap();
        assert!(name.starts_with("file.") && name.ends_with(".partial") && name != "file.partial", "{name}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"");
        entry.begin().unwrap().keep(false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn numbers_of_descriptors() {
        assert_eq!(descriptor(Path::new("/dev/stdout")), Some(1));
        assert_eq!(descriptor(Path::new("/dev/fd/3")), Some(3));
        assert_eq!(descriptor(Path::new("/proc/self/fd/2")), Some(2));
        for other in ["/dev/fd/-1", "/dev/fd/+1", "/dev/fd/1/x", "/dev/fd/", "/dev/null", "1"] {
            assert_eq!(descriptor(Path::new(other)), None, "{other}");
        }
        // Descriptors that we opened ourselves are refused.
        let ours = File::open("/dev/null").unwrap();
        assert!(inherited(ours.as_raw_fd()).is_err());
    }
}
