//! Journal of pending restores: a file that lists the words to put back, written before the process is
//! changed.
//!
//! One file exists for each process that is being changed, in a folder of gops-probe. The file is locked
//! while somebody changes the process, so that two changes cannot run at once. The [guard](super::guard)
//! inherits the lock; the kernel releases the lock when the last holder closes the file. Each line is written
//! and synced before its words are written into the process. An incomplete line belongs to a write that did
//! not happen.
//!
//! A word is put back only if it still holds the value that gops-probe wrote. A value that the program set
//! itself meanwhile stays.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use symbols::addr::RuntimeAddr;

use super::guard::GRACE;
use super::word::{Outcome, Width, Word, Writer};
use super::{Turn, left_over, refused, stop_all};
use crate::process::{Process, users};
use crate::{Error, clock, environment};

/// Environment variable that names the folder of the journals, instead of the default folder of the system or
/// the user.
pub const STATE_VARIABLE: &str = "GOPS_PROBE_STATE_DIR";
/// Upper limit of a journal's size in bytes; no journal of ours is that large.
const MAX_SIZE: u64 = 64 << 10;
const MAX_ENTRIES: usize = 64;
const MAX_FILES: usize = 4096;
/// Maximum time to wait for another gops-probe that is changing the process.
const PATIENCE: Duration = Duration::from_secs(5);
const FORMAT: u32 = 1;

/// Identity of a process: distinguishes it from any other process, also one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    boot_id: String,
    /// Pid namespace of `pid`: the one of gops-probe.
    pid_namespace: String,
    pid: i32,
    start_time: u64,
    device: u64,
    inode: u64,
    /// Start addresses of code and stack; they change when the process executes the same file again.
    address_space: (u64, u64),
}

impl Identity {
    fn of(process: &Process) -> Result<Self, Error> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let exe = process.executable_id().map_err(|e| process.explain_executable(e))?;
        Ok(Identity {
            format: FORMAT,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.display().to_string(),
            pid: process.pid().as_raw(),
            start_time: process.pinned_stat().start_time,
            device: exe.device,
            inode: exe.inode,
            address_space: process.pinned_stat().address_space,
        })
    }

    /// Name of the journal file: number of the pid namespace and pid.
    fn file_name(&self) -> String {
        let digits: String = self.pid_namespace.chars().filter(char::is_ascii_digit).collect();
        format!("{digits}-{}", self.pid)
    }
}

/// Word that has to be put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the word in the runtime's source.
    pub name: String,
    /// Address of the word.
    at: u64,
    /// Width of the word in bytes.
    width: u64,
    /// Value that gops-probe writes, or that the runtime computes from it.
    ours: u64,
    /// Value to restore.
    restore: u64,
    /// True if all threads have to be stopped to restore the word: a half-written value would do harm.
    stopped: bool,
    /// Time by which the holders of the lock must have restored the word: CLOCK_MONOTONIC in nanoseconds; 0
    /// if unknown.
    #[serde(default)]
    until: i64,
}

impl Entry {
    /// Returns the entry that undoes the change of `word`.
    pub fn undo(word: &Word, stopped: bool) -> Self {
        Entry {
            name: word.name.clone(),
            at: word.at.0,
            width: word.width.bytes() as u64,
            ours: word.width.cut(word.after),
            restore: word.width.cut(word.before),
            stopped,
            until: 0,
        }
    }

    /// Returns true if the entry is for the word at this address and of this width.
    pub(super) fn is_at(&self, at: RuntimeAddr, width: Width) -> bool {
        self.at == at.0 && Width::of(self.width) == Some(width)
    }

    /// Value that was written.
    pub(super) fn ours(&self) -> u64 {
        self.ours
    }

    /// Value before the change, which has to be restored.
    pub(super) fn before(&self) -> u64 {
        self.restore
    }

    /// Returns true if all threads have to be stopped to restore the word.
    pub(super) fn needs_stop(&self) -> bool {
        self.stopped
    }

    fn word(&self) -> Option<Word> {
        Some(Word {
            name: self.name.clone(),
            at: RuntimeAddr(self.at),
            width: Width::of(self.width)?,
            before: self.ours,
            after: self.restore,
        })
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:#x}, from {} to {}", self.name, self.at, self.ours, self.restore)
    }
}

/// Result of restoring a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Name of the word.
    pub name: String,
    /// Value that the word holds now.
    pub value: u64,
    /// True if the word held our value and was written; false if it was left as found.
    pub written: bool,
}

/// Locked journal of one process.
#[derive(Debug)]
pub struct Journal {
    file: File,
    dir: OwnedFd,
    identity: Identity,
    entries: Vec<Entry>,
    /// True if the entries come from the file and not from this program.
    found: bool,
    /// Entries of the file that passed the last check.
    granted: Vec<Entry>,
}

impl Journal {
    /// Opens the journal of a process and locks out other changes. Entries left by an earlier run are
    /// restored first.
    ///
    /// # Errors
    /// Returns [`Error::Refused`] if somebody else is changing the process, or if no place for the journal is
    /// found.
    pub fn open(process: &Process) -> Result<Self, Error> {
        let identity = Identity::of(process)?;
        let place = |source: io::Error| Error::Refused {
            pid: process.pid(),
            what: format!(
                "the journal of what must be restored cannot be written: {source}; the process is not changed"
            ),
            hint: Some(format!("set {STATE_VARIABLE} to a folder of your own")),
        };
        let dir = state_folder(true).map_err(place)?;
        remove_stale(&dir, &identity);
        let deadline = Instant::now() + PATIENCE;
        let file = loop {
            match lock(&dir, &identity, true).map_err(place)? {
                Lock::Ours(file) => break file,
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ if !overdue(process, &dir, &identity)?.is_empty() => {
                    return Err(refused(
                        process,
                        "another gops-probe, which is stopped or gets no CPU, has begun to change it; what that had to put \
                         back is put back",
                    ));
                }
                _ => return Err(refused(process, "another gops-probe is changing it at this moment")),
            }
        };
        let mut journal = Journal::of(file, dir, identity);
        if !journal.entries.is_empty() {
            journal.restore(process)?;
        }
        journal.begin().map_err(place)?;
        Ok(journal)
    }

    /// Notes words that are about to be written, and the time for which they may stay changed.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be written; the words must not be written then.
    pub fn note(&mut self, process: &Process, entries: &[Entry], time: Duration) -> Result<(), Error> {
        let failed = |e: io::Error| {
            refused(process, format!("the journal of what must be restored cannot be written: {e}"))
        };
        let until = clock::monotonic().saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        let entries: Vec<Entry> = entries.iter().map(|entry| Entry { until, ..entry.clone() }).collect();
        let mut line = serde_json::to_vec(&entries).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.entries.extend(entries);
        Ok(())
    }

    /// Returns true if nothing has to be restored.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Restores the noted words and clears the journal.
    ///
    /// # Errors
    /// Returns an error if a word cannot be restored; the journal keeps its entries then. A process that is
    /// gone needs no restore.
    pub fn restore(&mut self, process: &Process) -> Result<Vec<Restored>, Error> {
        let restored = self.put_back(process)?;
        self.forget()?;
        Ok(restored)
    }

    /// Restores the noted words and keeps the entries.
    ///
    /// # Errors
    /// Returns the errors of [`Journal::restore`].
    pub(super) fn put_back(&mut self, process: &Process) -> Result<Vec<Restored>, Error> {
        // A process that is gone needs no check.
        if self.found && process.check().is_ok() {
            left_over::check(process, &self.entries)?;
            self.found = false;
            self.granted.clone_from(&self.entries);
        }
        put_back(process, &self.entries)
    }

    /// Drops the entries because somebody else has restored the words.
    pub(super) fn was_restored(&mut self) {
        self.entries.clear();
    }

    /// Clears the journal because all words are restored.
    fn forget(&mut self) -> Result<(), Error> {
        self.entries.clear();
        self.found = false;
        let name = self.identity.file_name();
        self.begin().map_err(|source| Error::Output { to: format!("the journal {name}"), source })
    }

    fn of(file: File, dir: OwnedFd, identity: Identity) -> Self {
        let mut journal =
            Journal { file, dir, identity, entries: Vec::new(), found: false, granted: Vec::new() };
        journal.reread();
        journal
    }

    /// Removes the journal file, which is no longer needed.
    pub fn close(mut self) {
        self.entries.clear();
    }

    /// Duplicates the file descriptor for the guard, which then shares the lock.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Opens the journal whose file and lock another process has handed on.
    pub(super) fn inherited(file: File, process: &Process) -> Result<Self, Error> {
        let identity = Identity::of(process)?;
        let failed = |e: io::Error| refused(process, format!("its journal: {e}"));
        let dir = state_folder(false).map_err(failed)?;
        // The parent process chooses the inherited file: check that it is a journal of ours.
        check_ours(&file).map_err(failed)?;
        if !is_at(&dir, &identity.file_name(), &file) {
            return Err(refused(process, "what was handed on is not its journal"));
        }
        let journal = Journal::of(file, dir, identity);
        let first = journal.contents();
        let first = first.split(|&b| b == b'\n').next().unwrap_or_default();
        if serde_json::from_slice::<Identity>(first).ok().as_ref() != Some(&journal.identity) {
            return Err(refused(process, "the journal is of another process"));
        }
        Ok(journal)
    }

    /// Reads entries again that others may have added.
    pub(super) fn reread(&mut self) {
        self.entries = self.read();
        self.found = !self.entries.is_empty() && self.entries != self.granted;
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        let mut line = serde_json::to_vec(&self.identity)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }

    fn contents(&self) -> Vec<u8> {
        contents_of(&self.file)
    }

    /// Reads the entries, if the file belongs to this very process.
    fn read(&self) -> Vec<Entry> {
        parse(&self.contents(), &self.identity)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Entries that are not restored must be found by the next run.
        let name = self.identity.file_name();
        if self.entries.is_empty() && is_at(&self.dir, &name, &self.file) {
            // A file that cannot be removed is empty and is used again.
            let _ = rustix::fs::unlinkat(&self.dir, &*name, AtFlags::empty());
        }
    }
}

fn contents_of(file: &File) -> Vec<u8> {
    let size = file.metadata().map_or(0, |m| m.len().min(MAX_SIZE));
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

fn parse(bytes: &[u8], identity: &Identity) -> Vec<Entry> {
    // A line without its newline was not written completely, so its words were not written at all.
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes.get(..whole).unwrap_or_default().split(|&b| b == b'\n');
    let of: Option<Identity> = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    if of.as_ref() != Some(identity) {
        return Vec::new();
    }
    let entries = lines.filter_map(|line| serde_json::from_slice::<Vec<Entry>>(line).ok());
    entries.flatten().take(MAX_ENTRIES).collect()
}

/// Restores words in reverse order.
fn put_back(process: &Process, entries: &[Entry]) -> Result<Vec<Restored>, Error> {
    if process.check().is_err() {
        return Ok(Vec::new());
    }
    let mut writer = Writer::new(process, false)?;
    let mut restored = Vec::new();
    for entry in entries.iter().rev() {
        let Some(word) = entry.word() else { continue };
        // No thread is stopped for a word that already holds the right value.
        let found = writer.read(word.at, word.width)?;
        let mut written = false;
        if found == word.before && found != word.after {
            let turn = Turn { deadline: Instant::now() + PATIENCE, interrupted: &|| false };
            let _stopped = entry.stopped.then(|| stop_all(process, &turn)).transpose()?;
            written = writer.write(std::slice::from_ref(&word))? == Outcome::Written;
        }
        let value = writer.read(word.at, word.width)?;
        restored.push(Restored { name: word.name, value, written });
    }
    Ok(restored)
}

/// Implements [`super::restore_left_over`].
pub(super) fn restore_left_over(process: &Process) -> Result<Vec<Restored>, Error> {
    let Ok(dir) = state_folder(false) else { return Ok(Vec::new()) };
    // A user who may not inspect the process has not changed it.
    let Ok(identity) = Identity::of(process) else { return Ok(Vec::new()) };
    let file = match lock(&dir, &identity, false) {
        Ok(Lock::Ours(file)) => file,
        // The holder of the lock restores the words, unless all holders are stopped.
        Ok(Lock::Theirs) => return overdue(process, &dir, &identity),
        _ => return Ok(Vec::new()),
    };
    let mut journal = Journal::of(file, dir, identity);
    if journal.is_empty() { Ok(Vec::new()) } else { journal.restore(process) }
}

/// Restores words that the holders of the lock should have restored earlier. The holders then write no word
/// that they find restored.
fn overdue(process: &Process, dir: &OwnedFd, identity: &Identity) -> Result<Vec<Restored>, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(fd) = rustix::fs::openat(dir, &*identity.file_name(), flags, Mode::empty()) else {
        return Ok(Vec::new());
    };
    let file = File::from(fd);
    if check_ours(&file).is_err() {
        return Ok(Vec::new());
    }
    let grace = i64::try_from(GRACE.as_nanos()).unwrap_or(i64::MAX);
    let now = clock::monotonic();
    let mut entries = parse(&contents_of(&file), identity);
    entries.retain(|entry| entry.until != 0 && now > entry.until.saturating_add(grace));
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    left_over::check(process, &entries)?;
    put_back(process, &entries)
}

enum Lock {
    Ours(File),
    Theirs,
    Absent,
}

/// Opens and locks the journal file of a process.
fn lock(dir: &OwnedFd, identity: &Identity, create: bool) -> io::Result<Lock> {
    let name = identity.file_name();
    let mut flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if create {
        flags |= OFlags::CREATE;
    }
    let file = match rustix::fs::openat(dir, &*name, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Lock::Absent),
        Err(e) => return Err(e.into()),
    };
    check_ours(&file)?;
    match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        // The holder before us may have removed the file: a removed file has no owner.
        Ok(()) if is_at(dir, &name, &file) => Ok(Lock::Ours(file)),
        Ok(()) | Err(Errno::WOULDBLOCK) => Ok(Lock::Theirs),
        Err(e) => Err(e.into()),
    }
}

/// Removes journals of processes that are gone: nothing can be restored in them.
fn remove_stale(dir: &OwnedFd, identity: &Identity) {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return };
    for entry in entries.flatten().take(MAX_FILES) {
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Some(pid) = name.split_once('-').and_then(|(_, pid)| pid.parse().ok()) else { continue };
        let other = Identity { pid, ..identity.clone() };
        // Journals of other pid namespaces have other names. A holder of the lock is about to see that its
        // process is gone.
        if name == other.file_name()
            && !std::path::Path::new("/proc").join(pid.to_string()).exists()
            && let Ok(Lock::Ours(_locked)) = lock(dir, &other, false)
        {
            // A stale file that cannot be removed does no harm.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        }
    }
}

/// Checks that nobody else can have written a journal. The check uses the open file, not a name that could be
/// redirected.
fn check_ours(file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("the journal is no regular file"));
    }
    let owner = meta.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("the journal belongs to another user (uid {owner})")));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("the journal can be written by others"));
    }
    // A second link lies in a folder that was not checked. A link count of 0 belongs to a file that is just
    // being removed.
    if meta.nlink() > 1 {
        return Err(io::Error::other("the journal has a second name"));
    }
    Ok(())
}

fn is_at(dir: &OwnedFd, name: &str, file: &File) -> bool {
    let there = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    let ours = rustix::fs::fstat(file);
    matches!((there, ours), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Opens the folder of the journals: the system's folder for root, otherwise the user's.
fn state_folder(create: bool) -> io::Result<OwnedFd> {
    let path = folder_path()?;
    if create {
        let mut parents = Vec::new();
        let missing = |p: &&std::path::Path| !p.as_os_str().is_empty() && !p.exists();
        parents.extend(path.ancestors().take_while(missing).map(std::path::Path::to_owned));
        for folder in parents.iter().rev() {
            match rustix::fs::mkdir(folder, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => {
                    return Err(io::Error::new(
                        io::Error::from(e).kind(),
                        format!("{}: {e}", folder.display()),
                    ));
                }
            }
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", path.display())))?;
    let stat = rustix::fs::fstat(&dir)?;
    // Another user with write access to the folder could make us write into processes.
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(io::Error::other(format!("{} can be written by others", path.display())));
    }
    Ok(dir)
}

fn folder_path() -> io::Result<PathBuf> {
    let variable = |name: &str| environment::variable(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(path) = variable(STATE_VARIABLE) {
        return Ok(path);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/gops-probe"));
    }
    let home = || {
        let uid = rustix::process::geteuid().as_raw();
        let home = variable("HOME").or_else(|| users::home(uid).filter(|home| home.is_absolute()));
        home.map(|home| home.join(".local/state"))
    };
    let base = variable("XDG_RUNTIME_DIR").or_else(|| variable("XDG_STATE_HOME")).or_else(home);
    base.map(|base| base.join("gops-probe")).ok_or_else(|| io::Error::other("there is no home folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            format: FORMAT,
            boot_id: "b".to_owned(),
            pid_namespace: "pid:[4026531836]".to_owned(),
            pid: 7,
            start_time: 9,
            device: 1,
            inode: 2,
            address_space: (4096, 8192),
        }
    }

    fn entry() -> Entry {
        Entry { name: "x".to_owned(), at: 4096, width: 8, ours: 1, restore: 0, stopped: false, until: 5 }
    }

    #[test]
    fn a_torn_line_was_not_acted_on() {
        let mut bytes = serde_json::to_vec(&identity()).unwrap();
        bytes.push(b'\n');
        assert_eq!(parse(&bytes, &identity()), []);
        bytes.extend(serde_json::to_vec(&[entry()]).unwrap());
        assert_eq!(parse(&bytes, &identity()), []);
        bytes.push(b'\n');
        assert_eq!(parse(&bytes, &identity()), [entry()]);
        bytes.extend(b"[{\"name\":\"y\"");
        assert_eq!(parse(&bytes, &identity()), [entry()]);
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end], &identity()).len() <= 1);
        }
    }

    #[test]
    fn another_process_with_the_same_pid() {
        let mut bytes = serde_json::to_vec(&identity()).unwrap();
        bytes.push(b'\n');
        bytes.extend(serde_json::to_vec(&[entry()]).unwrap());
        bytes.push(b'\n');
        let later = Identity { start_time: 10, ..identity() };
        assert_eq!(parse(&bytes, &later), []);
        assert_eq!(identity().file_name(), "4026531836-7");
    }
}
