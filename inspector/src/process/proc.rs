//! The /proc that this process reads, proven to number processes as its system calls do.
//!
//! A mount of /proc belongs to one pid namespace, and it has the numbers of that (proc_pid_ns in Linux's
//! fs/proc/inode.c). System calls that take a pid (`pidfd_open`, `ptrace`, reading memory) have the numbers of the
//! namespace of the caller. Both differ where one of two namespaces was entered without the other: `nsenter -m` without
//! `-p`, `unshare -p` without `--mount-proc`, a container with the /proc of its host. The same number then is one process
//! for one half of what we do and another process for the other half.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

use super::access::Denial;
use super::facts::Status;
use super::pin::read_file;
use super::{Error, Pid};

/// What is wrong with the /proc that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// It is of a pid namespace in which we have no number.
    Elsewhere,
    /// It is of a pid namespace around ours: we have this number there, and another one in ours.
    Around {
        /// In its namespace, and in each between that and ours, which comes last.
        pids: Vec<Pid>,
    },
    /// It says that we are another process.
    Other {
        /// Who we would be.
        said: String,
    },
    /// Another kind of file system is there.
    NoProc,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Elsewhere => f.write_str(
                "/proc is that of another pid namespace, in which gops-probe does not exist: its numbers are those of \
                 other processes",
            ),
            Foreign::Around { pids } => {
                let outer = pids.first().map(Pid::to_string).unwrap_or_default();
                let inner = pids.last().map(Pid::to_string).unwrap_or_default();
                write!(
                    f,
                    "/proc is that of a pid namespace around ours, in which gops-probe is process {outer}, while it is {inner} \
                     in its own: its numbers are those of other processes"
                )
            }
            Foreign::Other { said } => {
                write!(f, "/proc says that gops-probe is process {said}, while it is {}", std::process::id())
            }
            Foreign::NoProc => f.write_str("no proc file system is mounted at /proc"),
        }
    }
}

impl Foreign {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        const MOUNT: &str = "unshare --mount sh -c 'mount -t proc proc /proc && exec gops-probe ...'";
        match self {
            Foreign::Elsewhere => format!(
                "enter both namespaces of the process: nsenter -t PID -p -m gops-probe ...; or look at those of our own \
                 pid namespace: {MOUNT}"
            ),
            Foreign::Around { .. } => format!(
                "look at those of our own pid namespace: {MOUNT}; or, as root of the host, enter that of another process: \
                 nsenter -t 1 -p -m gops-probe ..."
            ),
            Foreign::Other { .. } | Foreign::NoProc => "mount it: mount -t proc proc /proc".to_owned(),
        }
    }
}

/// The open /proc. It stays the one that was proven, whatever is mounted over it later.
///
/// # Errors
/// [`Error::ForeignProc`], [`Error::Proc`].
pub(super) fn open() -> Result<&'static OwnedFd, Error> {
    static PROVEN: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(proc) = PROVEN.get() {
        return Ok(proc);
    }
    let proc = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::Proc(e.into()))?;
    prove(&proc)?;
    Ok(PROVEN.get_or_init(|| proc))
}

fn prove(proc: &OwnedFd) -> Result<(), Error> {
    let kind = rustix::fs::fstatfs(proc).map_err(|e| Error::Proc(e.into()))?.f_type;
    if kind != PROC_SUPER_MAGIC {
        return Err(Error::ForeignProc(Foreign::NoProc));
    }
    let said = match rustix::fs::readlinkat(proc, "self", Vec::new()) {
        Ok(said) => said.to_string_lossy().into_owned(),
        Err(Errno::NOENT) => return Err(Error::ForeignProc(Foreign::Elsewhere)),
        Err(e) => return Err(Error::Proc(e.into())),
    };
    let status = read_file(proc, "self/status").map_err(Error::Proc)?;
    judge(said, &Status::parse(&status), std::process::id()).map_err(Error::ForeignProc)
}

/// `said` is where /proc/self leads, `us` our pid as a system call has it.
fn judge(said: String, status: &Status, us: u32) -> Result<(), Foreign> {
    // The line has a number for each namespace from that of the mount to ours (task_state in Linux's fs/proc/array.c), so
    // that equal numbers in two namespaces are told apart. It came with Linux 4.1.
    if status.ns_pids.len() > 1 {
        return Err(Foreign::Around { pids: status.ns_pids.clone() });
    }
    if said == us.to_string() { Ok(()) } else { Err(Foreign::Other { said }) }
}

/// Opens the folder of a process. Nothing that is mounted over it is followed.
pub(super) fn folder(pid: Pid) -> Result<OwnedFd, Error> {
    let proc = open()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = pid.to_string();
    let opened = match rustix::fs::openat2(proc, &*name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
        // Before Linux 5.6, and where a filter of system calls does not know it.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(proc, &*name, flags, Mode::empty()),
        other => other,
    };
    opened.map_err(|e| match e {
        Errno::NOENT | Errno::SRCH => missing(pid),
        Errno::XDEV => Error::Mismatch(pid),
        e => Error::Proc(e.into()),
    })
}

/// Whether /proc shows us no processes of others: that it has no first process, which each pid namespace has.
pub(super) fn hides_others(proc: &OwnedFd) -> bool {
    matches!(rustix::fs::statat(proc, "1", AtFlags::empty()), Err(Errno::NOENT))
}

/// The error that /proc shows no such process: it may exist and be hidden.
pub(super) fn missing(pid: Pid) -> Error {
    // The kernel says of one that exists that we may not send it a signal.
    let exists = || rustix::process::test_kill_process(pid.into()) == Err(Errno::PERM);
    if open().is_ok_and(hides_others) && exists() {
        return Error::Denied { pid, action: "read the state", denial: Denial::Hidden };
    }
    Error::NoSuchProcess(pid)
}

/// Proves that a pidfd is of the process that /proc calls `pid`.
///
/// # Errors
/// [`Error::Mismatch`], [`Error::Exited`].
pub(super) fn prove_same(pidfd: &OwnedFd, pid: Pid) -> Result<(), Error> {
    use std::os::fd::AsRawFd as _;
    let name = format!("self/fdinfo/{}", pidfd.as_raw_fd());
    let failed = |source: io::Error| Error::Io { pid, action: "read the number of the pidfd", source };
    let info = read_file(open()?, &name).map_err(failed)?;
    match pid_of(&info) {
        Some(n) if n == i64::from(pid.as_raw()) => Ok(()),
        // The kernel says so of one that has been waited for.
        Some(-1) => Err(Error::Exited(pid)),
        _ => Err(Error::Mismatch(pid)),
    }
}

/// The number that /proc/self/fdinfo has of a pidfd, in the namespace of that /proc; 0 is none
/// (pidfd_show_fdinfo in Linux's kernel/fork.c, later fs/pidfs.c).
fn pid_of(fdinfo: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(fdinfo);
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_in_two_namespaces() {
        let status = |text: &str| Status::parse(text.as_bytes());
        assert_eq!(judge("7".to_owned(), &status("NSpid:\t7\n"), 7), Ok(()));
        assert_eq!(judge("7".to_owned(), &status(""), 7), Ok(()));
        let pids: Vec<Pid> = [7u32, 7].into_iter().map(|n| n.try_into().unwrap()).collect();
        assert_eq!(judge("7".to_owned(), &status("NSpid:\t7\t7\n"), 7), Err(Foreign::Around { pids }));
        let other = Foreign::Other { said: "8".to_owned() };
        assert_eq!(judge("8".to_owned(), &status("NSpid:\t8\n"), 7), Err(other));
    }

    #[test]
    fn our_own() {
        open().unwrap();
        let us = Pid::try_from(std::process::id()).unwrap();
        let pidfd = rustix::process::pidfd_open(us.into(), rustix::process::PidfdFlags::empty()).unwrap();
        prove_same(&pidfd, us).unwrap();
        let other = Pid::try_from(u32::MAX >> 1).unwrap();
        assert!(matches!(prove_same(&pidfd, other), Err(Error::Mismatch(_))));
        assert_eq!(pid_of(b"pos:\t0\nflags:\t02000002\nPid:\t-1\n"), Some(-1));
        assert_eq!(pid_of(b"pos:\t0\n"), None);
    }
}
