//! The place that a path of `-o` means, found such that nobody else chooses another: each part of the path is looked at before it
//! is followed, and what was looked at is what is used.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, FdFlags};

/// As the kernel follows at most (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Names that are taken are no reason to give up at once.
const TRIES: usize = 16;

/// Why nothing is written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    /// Somebody else may have made it, or may change it.
    #[error("{} is a symbolic link in a folder that others can write", .0.display())]
    Link(PathBuf),
    /// Whoever made it reads what is written.
    #[error("it belongs to user {0}, in a folder that others can write")]
    Owner(u32),
}

impl From<Untrusted> for io::Error {
    fn from(why: Untrusted) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// Where something can be written.
#[derive(Debug)]
pub(super) enum Place {
    /// A descriptor that we were started with: `/dev/stdout`, `/dev/fd/3`.
    Inherited(OwnedFd),
    /// What exists and is no regular file (a FIFO, a device), or what a link of /proc leads to. Found, and not opened.
    Special(OwnedFd),
    /// A name in a folder, for a regular file.
    Entry(Entry),
}

/// A name in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    folder: OwnedFd,
    name: OsString,
}

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const FIND_LINK: OFlags = FIND.union(OFlags::NOFOLLOW);
const WRITE: OFlags = OFlags::WRONLY.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl Place {
    /// Finds it. A symbolic link is followed only in a folder that none but us and root can write.
    ///
    /// # Errors
    /// What the kernel says; [`Untrusted`].
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
                        // The kernel's own links lead where no path does.
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
                    // The link that was found, whatever has its name now.
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

/// Opens for writing what was found and is no name for a file. A FIFO makes us wait for its reader, as everybody.
pub(super) fn open_special(found: &OwnedFd) -> io::Result<File> {
    // Where a link of /proc leads to a file, nothing of it is lost.
    let flags = WRITE | OFlags::APPEND;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?.into())
}

impl Entry {
    /// Begins a file that has another name until it is whole: one that nobody had before, and with which nobody else may do anything.
    ///
    /// # Errors
    /// What the kernel says.
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

    /// Opens a file of our own that is there already and that no other can take the place of, as the folder takes none; empties it.
    ///
    /// # Errors
    /// What the kernel says; [`Untrusted`].
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

/// Nobody else reads it: stacks, heaps and programs have secrets in them.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A file that is being written. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Unfinished<'e> {
    entry: &'e Entry,
    name: OsString,
    /// What to write to.
    pub(super) file: File,
    kept: bool,
}

impl Unfinished<'_> {
    /// Gives it its name, if nobody took that meanwhile (`fresh`), or else in place of what has it.
    ///
    /// # Errors
    /// What the kernel says; the file is gone then.
    pub(super) fn keep(mut self, fresh: bool) -> io::Result<()> {
        // The disk may say only now that it is full.
        match rustix::fs::fdatasync(&self.file) {
            Err(Errno::INVAL | Errno::ROFS | Errno::OPNOTSUPP) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
        let name = self.entry.name.clone();
        self.rename(&name, fresh)
    }

    /// Keeps it under the name that it has, which says what it is, and is returned.
    pub(super) fn keep_partial(mut self) -> OsString {
        self.kept = true;
        self.name.clone()
    }

    fn rename(&mut self, to: &OsStr, fresh: bool) -> io::Result<()> {
        let folder = &self.entry.folder;
        let renamed = if fresh {
            match rustix::fs::renameat_with(folder, &self.name, folder, to, RenameFlags::NOREPLACE) {
                // Some file systems cannot, and nobody had the name when it was chosen.
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
            // Nothing of it is worth keeping, and nothing can be done where it stays.
            let _ = rustix::fs::unlinkat(&self.entry.folder, &self.name, AtFlags::empty());
        }
    }
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.as_os_str().as_bytes().split(|&b| b == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
        .rev()
        .collect()
}

/// Where a path begins.
fn start(path: &Path) -> io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    Ok(rustix::fs::openat(CWD, start, FIND | OFlags::DIRECTORY, Mode::empty())?)
}

/// Whether anybody but us and root can put something else into a folder. A sticky bit does not matter: it keeps others from
/// replacing what is there, not from being first.
fn others_can_write(folder: &Stat) -> bool {
    let owner = folder.st_uid != 0 && folder.st_uid != rustix::process::geteuid().as_raw();
    owner || Mode::from_raw_mode(folder.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

fn is_proc(folder: &OwnedFd) -> io::Result<bool> {
    // A file handle of a path tells its file system since Linux 3.12.
    Ok(rustix::fs::fstatfs(folder)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The number of a descriptor that a path means.
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

/// A copy of a descriptor that we were started with. Those that we opened ourselves are closed for programs that we execute, and no
/// such descriptor outlives that of which we are the program.
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
        // Whatever has that name, it is not followed.
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
        // Our own ones are nobody's.
        let ours = File::open("/dev/null").unwrap();
        assert!(inherited(ours.as_raw_fd()).is_err());
    }
}
