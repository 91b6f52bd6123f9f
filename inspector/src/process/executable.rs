//! Contents of a process's executable and of the shared objects that it has mapped.
//!
//! The files are opened through /proc, never by the path that the process reports: that path may
//! lead elsewhere in our mount namespace, or nowhere. They are read, not mapped: a mapping of a
//! file that shrinks would kill us with SIGBUS.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use symbols::image::Source;

use super::regular::RegularFile;
use crate::patience::{What, waiting};

/// Identity of a file and its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number on the device.
    pub inode: u64,
    /// Time of the last change of the contents, in nanoseconds. It is part of the identity as
    /// inodes are reused.
    pub modified: i128,
}

/// Identity of a file's contents, by all that the kernel reports. A writer can set the modification
/// time back, but not the time of that change (ctime).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Contents {
    id: FileId,
    len: u64,
    /// Time of the last change of the file or its metadata (ctime), in nanoseconds.
    changed: i128,
}

/// Limits on reading executables: for all together, and for each file.
#[derive(Debug)]
pub(crate) struct Budget {
    until: Instant,
    left: AtomicU64,
    each: u64,
}

impl Budget {
    /// Makes a budget: `time` from now on, `bytes` for all files, `each` for one file.
    pub(crate) fn new(time: Duration, bytes: u64, each: u64) -> Self {
        let now = Instant::now();
        // A time too large for the clock gives no time at all.
        let until = now.checked_add(time).unwrap_or(now);
        Budget { until, left: AtomicU64::new(bytes), each }
    }

    /// Returns true if no further reading may begin.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || Instant::now() >= self.until
    }

    /// Takes `bytes` from the budget for a file of which `read` bytes were read so far. Returns
    /// false if the budget is exceeded.
    fn take(&self, bytes: u64, read: u64) -> bool {
        read <= self.each
            && Instant::now() < self.until
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
                .is_ok()
    }
}

/// Open executable or shared object.
pub struct Executable {
    file: File,
    len: u64,
    id: FileId,
    changed: i128,
    links: u64,
    read: Arc<AtomicU64>,
    /// Budget for reading, and a flag that is set once it was exceeded.
    budget: Option<(Arc<Budget>, Arc<AtomicBool>)>,
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
    /// Returns an error if the file's metadata cannot be read.
    pub fn new(file: RegularFile) -> io::Result<Self> {
        let meta = file.metadata()?;
        let time = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let modified = time(meta.mtime(), meta.mtime_nsec());
        Ok(Executable {
            len: meta.len(),
            id: FileId { device: meta.dev(), inode: meta.ino(), modified },
            changed: time(meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            file: file.into(),
            read: Arc::default(),
            budget: None,
        })
    }

    /// Limits reading by a budget. Reads beyond the budget fail and set the returned flag.
    pub(crate) fn within(mut self, budget: &Arc<Budget>) -> (Self, Arc<AtomicBool>) {
        let short = Arc::new(AtomicBool::new(false));
        self.budget = Some((Arc::clone(budget), Arc::clone(&short)));
        (self, short)
    }

    /// Identity of the file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Identity of the file's contents.
    pub fn contents(&self) -> Contents {
        Contents { id: self.id, len: self.len, changed: self.changed }
    }

    /// Returns true if no directory holds the file any more.
    pub fn is_deleted(&self) -> bool {
        self.links == 0
    }

    /// Counter of the bytes read from the file. It stays readable after the executable was given
    /// away.
    pub fn read_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Source for Executable {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        let len = buf.len() as u64;
        let read = self.read.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        if let Some((budget, short)) = &self.budget
            && !budget.take(len, read)
        {
            short.store(true, Ordering::Relaxed);
            return false;
        }
        waiting(What::Program, || self.file.read_exact_at(buf, offset)).is_ok()
    }

    fn data(&self, offset: u64) -> Option<Range<u64>> {
        if offset >= self.len {
            return None;
        }
        // The file position may change: all reads give their offset.
        let seek = |to| waiting(What::Program, || rustix::fs::seek(&self.file, to));
        let start = match seek(SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return None,
            // Some file systems do not report holes.
            Err(_) => return Some(offset..self.len),
        };
        let end = seek(SeekFrom::Hole(start)).unwrap_or(self.len);
        // The file may have grown or shrunk.
        (start < self.len).then(|| start..end.clamp(start.saturating_add(1), self.len))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use super::*;
    use crate::process::regular::Links;

    fn open(path: &Path) -> Executable {
        Executable::new(RegularFile::open(path, Links::Follow).unwrap()).unwrap()
    }

    #[test]
    fn what_all_files_together_may_cost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        let budget = |time: Duration, bytes, each| Arc::new(Budget::new(time, bytes, each));
        let read = |budget: &Arc<Budget>, sizes: &[usize]| {
            let (file, short) = open(&path).within(budget);
            let read: Vec<bool> = sizes.iter().map(|&size| file.read_at(0, &mut vec![0; size])).collect();
            (read, short.load(Ordering::Relaxed))
        };
        let (long, none) = (Duration::from_secs(3600), Duration::ZERO);
        let enough = budget(long, 150, 100);
        assert_eq!(read(&enough, &[60, 40]), (vec![true, true], false));
        // The next file gets the rest of the budget.
        assert_eq!(read(&enough, &[40, 40]), (vec![true, false], true));
        assert!(!enough.is_spent());
        assert_eq!(read(&budget(long, 1000, 100), &[60, 41]), (vec![true, false], true));
        let late = budget(none, 1000, 100);
        assert_eq!((read(&late, &[1]), late.is_spent()), ((vec![false], true), true));
    }

    #[test]
    fn other_contents_are_told_apart_though_their_time_is_set_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"first").unwrap();
        let before = open(file.path());
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        // The kernel's clock for file times advances in steps.
        let told_apart = (0..100_000).any(|_| {
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"other", 0).unwrap();
            file.as_file().set_modified(modified).unwrap();
            let after = open(file.path());
            assert_eq!((after.id(), after.len()), (before.id(), before.len()));
            after.contents() != before.contents()
        });
        assert!(told_apart);
        assert_eq!(open(file.path()).contents(), open(file.path()).contents());
    }

    #[test]
    fn holes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 10]).unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let of = open(file.path());
        let first = of.data(0).unwrap();
        assert!(first.start == 0 && first.end >= 10, "{first:?}");
        assert_eq!(of.data(64 << 20), None);
        // The file system reports holes, or all is data.
        let rest = of.data(32 << 20);
        assert!(rest.is_none() || rest == Some((32 << 20)..(64 << 20)), "{rest:?}");
    }
}
