//! Pins one process, so that an answer never mixes two processes with the same pid, or two programs
//! that one process executed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::access::{self, Access, Denial};
use super::executable::{Executable, FileId};
use super::facts::{self, Stat, Status};
use super::memory::memory_of;
use super::regular::{Links, RegularFile};
use super::{Error, Pid, proc, threads};
use crate::memory::{Memory, MemoryError};
use crate::patience::{What, waiting};

/// Maximum size of a /proc file that is read: maps of a process with many mappings. It bounds our
/// memory.
const MAX_FILE: u64 = 64 << 20;
const SMALL: usize = 4096;

/// Kind of namespace that matters for inspecting a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Mount namespace: determines what paths mean.
    Mount,
    /// Pid namespace: determines what pids mean.
    Pid,
    /// Network namespace: determines what ports mean.
    Net,
    /// User namespace: determines what users and capabilities mean.
    User,
}

impl Namespace {
    /// All kinds.
    pub const ALL: [Namespace; 4] = [Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::User];

    /// Name in /proc/PID/ns.
    pub fn name(self) -> &'static str {
        match self {
            Namespace::Mount => "mnt",
            Namespace::Pid => "pid",
            Namespace::Net => "net",
            Namespace::User => "user",
        }
    }
}

/// Pinned process that cannot be confused with another.
///
/// Keeps /proc/PID open, which stays with this process when its pid is reused, and a pidfd, through
/// which the end of the process can be awaited.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    dir: OwnedFd,
    /// Open folder of a living thread, if the main thread has ended while others live. Memory,
    /// files and namespaces are reached through it. Facts about the process as a whole are still in
    /// `dir`.
    other_thread: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    stat: Stat,
    exe: Option<(u64, u64)>,
}

impl Process {
    /// Pins a process that runs a program. Zombies, threads of processes and kernel threads are
    /// errors.
    ///
    /// # Errors
    /// Returns an [`Error`] with the cause found by checking.
    pub fn pin(pid: Pid) -> Result<Self, Error> {
        let mut process = Self::open(pid)?;
        if process.stat.kernel_thread {
            return Err(Error::KernelThread(pid, process.stat.name));
        }
        if process.stat.is_zombie() {
            return Err(Error::Zombie(pid, process.stat.name, process.stat.parent.unwrap_or(pid)));
        }
        if let Some(tgid) = process.status()?.tgid.filter(|&t| t != pid) {
            return Err(Error::Thread(pid, tgid));
        }
        // Opened after /proc/PID: it is of the same process if that still has the same start time.
        process.pidfd = rustix::process::pidfd_open(pid.into(), PidfdFlags::empty()).ok();
        if let Some(pidfd) = &process.pidfd {
            proc::prove_same(pidfd, pid)?;
        }
        process.exe = process.exe_id();
        process.check()?;
        Ok(process)
    }

    /// Opens /proc/PID and reads only its stat, for listing many processes.
    pub(super) fn open(pid: Pid) -> Result<Self, Error> {
        let dir = proc::folder(pid)?;
        let bytes = read_file(&dir, "stat").map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NOENT | Errno::SRCH) => proc::missing(pid),
            // All users may read it, except with `hidepid=1`.
            Some(Errno::ACCESS | Errno::PERM) => {
                Error::Denied { pid, action: "read the state", denial: Denial::Hidden }
            }
            _ => Error::Io { pid, action: "read the state", source: e },
        })?;
        let stat = Stat::parse(&bytes).ok_or_else(|| Error::Io {
            pid,
            action: "read the state",
            source: io::ErrorKind::InvalidData.into(),
        })?;
        let other_thread = if stat.is_zombie() { threads::living(&dir, pid) } else { None };
        let mut process = Process { pid, dir, other_thread, pidfd: None, stat, exe: None };
        if process.other_thread.is_some() {
            process.stat = process.stat()?;
        }
        Ok(process)
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Makes a reader of the process's memory, for one thread. Each reader counts its own cost.
    pub fn memory(&self) -> impl Memory + use<> {
        memory_of(self.pid)
    }

    /// Name of the main thread when the process was pinned.
    pub fn name(&self) -> &str {
        &self.stat.name
    }

    /// Contents of /proc/PID/stat when the process was pinned.
    pub fn pinned_stat(&self) -> &Stat {
        &self.stat
    }

    /// File descriptor that becomes readable when the process exits; `None` before Linux 5.3.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Checks that the process still runs the same program.
    ///
    /// # Errors
    /// Returns [`Error::Exited`] or [`Error::Executed`] if it does not.
    pub fn check(&self) -> Result<(), Error> {
        let now = self.stat()?;
        if now.is_zombie() || now.start_time != self.stat.start_time {
            return Err(Error::Exited(self.pid));
        }
        // The address space changes even if the same program is executed again. The file is a check
        // that needs no permission to see addresses.
        if now.address_space != self.stat.address_space || self.exe_id() != self.exe {
            // An exiting process loses both before it becomes a zombie.
            let ending = self.stat().map_or(true, |s| s.is_zombie() || s.address_space.1 == 0);
            let exited = ending && self.stat.address_space.1 != 0;
            return Err(if exited { Error::Exited(self.pid) } else { Error::Executed(self.pid) });
        }
        Ok(())
    }

    /// Reads the current /proc/PID/stat.
    ///
    /// # Errors
    /// Returns [`Error::Exited`] if the process has exited.
    pub fn stat(&self) -> Result<Stat, Error> {
        let of = |dir: &OwnedFd| {
            let bytes = read_file(dir, "stat").map_err(|e| match Errno::from_io_error(&e) {
                Some(Errno::SRCH | Errno::NOENT) => Error::Exited(self.pid),
                _ => Error::Io { pid: self.pid, action: "read the state", source: e },
            })?;
            Stat::parse(&bytes).ok_or(Error::Exited(self.pid))
        };
        let mut stat = of(&self.dir)?;
        if let Some(other) = &self.other_thread
            && stat.is_zombie()
        {
            let living = of(other)?;
            (stat.state, stat.address_space) = (living.state, living.address_space);
        }
        Ok(stat)
    }

    /// Reads the current /proc/PID/status.
    ///
    /// # Errors
    /// Returns [`Error::Exited`] if the process has exited.
    pub fn status(&self) -> Result<Status, Error> {
        let status = read_file(&self.dir, "status");
        Ok(Status::parse(&status.map_err(|e| self.explain("read the status", Access::Read, e))?))
    }

    /// Fails if another process traces the main thread. A debugger traces all threads.
    ///
    /// # Errors
    /// Returns [`Error::Traced`], which names the tracer.
    pub fn check_untraced(&self) -> Result<(), Error> {
        self.status()?.tracer.map_or(Ok(()), |tracer| Err(self.traced_by(tracer)))
    }

    /// Makes the error that `thread` traces this process.
    pub(crate) fn traced_by(&self, thread: Pid) -> Error {
        // The kernel gives the tracing thread; users know its process.
        let of = |pid: Pid, name: &str| -> Option<Vec<u8>> { read_file(proc::folder(pid).ok()?, name).ok() };
        let tracer = of(thread, "status").and_then(|status| Status::parse(&status).tgid).unwrap_or(thread);
        let name = of(tracer, "comm").unwrap_or_default();
        let tracer_name = String::from_utf8_lossy(&name).trim_end().to_owned();
        Error::Traced { pid: self.pid, tracer, tracer_name }
    }

    /// Container id from the cgroup of the process.
    pub fn container(&self) -> Option<String> {
        facts::container_id(&read_file(self.dir(), "cgroup").ok()?)
    }

    /// Path of the executable as the kernel reports it, in the mount namespace of the process. Not
    /// for opening.
    pub fn exe_path(&self) -> Result<Vec<u8>, Error> {
        rustix::fs::readlinkat(self.dir(), "exe", Vec::new())
            .map(CString::into_bytes)
            .map_err(|e| self.explain("read the path of the executable", Access::Read, e.into()))
    }

    /// Opens the executable, wherever it is, and even if it was deleted.
    ///
    /// # Errors
    /// Returns [`Error::Denied`] with the reason, or [`Error::Exited`] if the process has exited.
    pub fn executable(&self) -> Result<Executable, Error> {
        self.raw_executable().map_err(|e| self.explain_executable(e))
    }

    /// Makes the error for an executable that could not be opened. Its link may be readable while
    /// its file is not.
    pub(crate) fn explain_executable(&self, source: io::Error) -> Error {
        let action = "open the executable";
        let refused = matches!(Errno::from_io_error(&source), Some(Errno::ACCESS | Errno::PERM));
        if refused && rustix::fs::readlinkat(self.dir(), "exe", Vec::new()).is_ok() {
            return Error::Denied { pid: self.pid, action, denial: Denial::Unreadable };
        }
        // Every program has a file, and a deleted file can be opened too. Only a process that is
        // about to exit has none, and it may have been in that state when it was pinned.
        if Errno::from_io_error(&source) == Some(Errno::NOENT) && !self.stat.kernel_thread {
            return Error::Exited(self.pid);
        }
        self.explain(action, Access::Read, source)
    }

    pub(super) fn raw_executable(&self) -> io::Result<Executable> {
        waiting(What::Proc(self.pid.as_raw(), "open the executable"), || {
            Executable::new(RegularFile::open_at(self.dir(), Path::new("exe"), Links::Follow)?)
        })
    }

    /// Returns true if the process is in another namespace of this `kind` than we are. `None` if
    /// that cannot be seen.
    pub fn is_in_other_namespace(&self, kind: Namespace) -> Option<bool> {
        static OURS: [OnceLock<Option<CString>>; 4] = [const { OnceLock::new() }; 4];
        let name = format!("ns/{}", kind.name());
        let ours = OURS
            .get(kind as usize)?
            .get_or_init(|| rustix::fs::readlink(format!("/proc/self/{name}"), Vec::new()).ok());
        let theirs = rustix::fs::readlinkat(self.dir(), &*name, Vec::new()).ok()?;
        Some(&theirs != ours.as_ref()?)
    }

    /// Reads a file of /proc/PID.
    pub(crate) fn read(&self, name: &str, action: &'static str) -> Result<Vec<u8>, Error> {
        waiting(What::Proc(self.pid.as_raw(), action), || read_file(self.dir(), name))
            .map_err(|e| self.explain(action, Access::Read, e))
    }

    /// Open /proc/PID, for reading below it; the folder of another thread if the main thread has
    /// ended.
    pub(super) fn dir(&self) -> &OwnedFd {
        self.other_thread.as_ref().unwrap_or(&self.dir)
    }

    /// Turns the kernel's error about an `action` into an [`Error`] with its cause.
    pub fn explain(&self, action: &'static str, access: Access, source: io::Error) -> Error {
        match Errno::from_io_error(&source) {
            Some(Errno::SRCH) => Error::Exited(self.pid),
            // Links of zombies lead nowhere.
            Some(Errno::NOENT) if self.gone() => Error::Exited(self.pid),
            Some(Errno::ACCESS | Errno::PERM) => {
                Error::Denied { pid: self.pid, action, denial: access::explain(self, access) }
            }
            _ => Error::Io { pid: self.pid, action, source },
        }
    }

    /// Turns an error of reading the process's memory into an [`Error`] with its cause.
    pub(crate) fn explain_memory(&self, error: MemoryError) -> Error {
        if let Err(gone) = self.check() {
            return gone;
        }
        match error {
            MemoryError::Exited => Error::Exited(self.pid),
            MemoryError::Denied => {
                let source = io::Error::from_raw_os_error(libc::EPERM);
                self.explain("read the memory", Access::Attach, source)
            }
            error => Error::Memory { pid: self.pid, error },
        }
    }

    fn gone(&self) -> bool {
        // An exiting process loses its address space before it becomes a zombie.
        let ending = |s: &Stat| s.is_zombie() || (s.address_space.1 == 0 && self.stat.address_space.1 != 0);
        self.stat().ok().is_none_or(|s| ending(&s))
    }

    fn stat_executable(&self) -> rustix::io::Result<rustix::fs::Stat> {
        waiting(What::Proc(self.pid.as_raw(), "look at the executable"), || {
            rustix::fs::statat(self.dir(), "exe", AtFlags::empty())
        })
    }

    /// Identity of the executable, without opening it.
    pub(crate) fn executable_id(&self) -> io::Result<FileId> {
        Ok(file_id(&self.stat_executable()?))
    }

    /// Returns true if the process runs as our user, in our mount and pid namespaces and with our
    /// root directory.
    pub(crate) fn is_beside_us(&self) -> bool {
        static ROOT: OnceLock<Option<CString>> = OnceLock::new();
        let ours = rustix::process::geteuid().as_raw();
        let root = ROOT.get_or_init(|| rustix::fs::readlink("/proc/self/root", Vec::new()).ok());
        rustix::fs::fstat(&self.dir).is_ok_and(|stat| stat.st_uid == ours)
            && rustix::fs::readlinkat(self.dir(), "root", Vec::new()).ok().as_ref() == root.as_ref()
            && [Namespace::Mount, Namespace::Pid]
                .iter()
                .all(|&k| self.is_in_other_namespace(k) == Some(false))
    }

    fn exe_id(&self) -> Option<(u64, u64)> {
        let stat = self.stat_executable().ok()?;
        Some((stat.st_dev, stat.st_ino))
    }
}

/// Number of threads of a process; `proc` is the open /proc.
///
/// # Errors
/// Returns the error of the kernel if the process is gone or hidden.
#[allow(clippy::useless_conversion, reason = "the field has 32 bits on some machines")]
pub(super) fn threads_of(proc: &OwnedFd, pid: Pid) -> Result<u64, Errno> {
    // A directory has a link from each of its subdirectories, one from its parent and one from
    // itself.
    let stat = rustix::fs::statat(proc, format!("{pid}/task"), AtFlags::empty())?;
    Ok(u64::from(stat.st_nlink).saturating_sub(2))
}

fn file_id(stat: &rustix::fs::Stat) -> FileId {
    let modified = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    FileId { device: stat.st_dev, inode: stat.st_ino, modified }
}

/// Reads a small file of a folder of /proc.
pub(super) fn read_file(dir: impl AsFd, name: &str) -> io::Result<Vec<u8>> {
    let fd = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut file = File::from(fd);
    let mut bytes = vec![0; SMALL];
    let len = file.read(&mut bytes)?;
    bytes.truncate(len);
    // The kernel gives these files a page or more per read: a clearly shorter result is complete.
    if len > SMALL / 2 {
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
