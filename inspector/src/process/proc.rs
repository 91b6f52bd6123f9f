//! Access to /proc, after a proof that it numbers processes as system calls do.
//!
//! A mount of /proc belongs to one pid namespace and shows its numbers (proc_pid_ns in Linux's
//! fs/proc/inode.c). System calls that take a pid (`pidfd_open`, `ptrace`, reading memory) use the
//! numbers of the caller's namespace. Both differ if one of two namespaces was entered without the
//! other: `nsenter -m` without `-p`, `unshare -p` without `--mount-proc`, a container with the
//! /proc of its host. The same number then means one process in /proc and another one in system
//! calls.

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

/// Defect of the mounted /proc.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// /proc belongs to a pid namespace in which our process has no number.
    Elsewhere,
    /// /proc belongs to an ancestor of our pid namespace: our process has another number there.
    Around {
        /// Our process id in the namespace of /proc, and in each nested one down to ours, which
        /// comes last.
        pids: Vec<Pid>,
    },
    /// /proc shows another process as ours.
    Other {
        /// Process id that /proc shows as ours.
        said: String,
    },
    /// Another kind of file system is mounted at /proc.
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
    /// Remedy for this defect.
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

/// Opens /proc and proves it. The opened folder stays in use, whatever is mounted over /proc later.
///
/// # Errors
/// Returns [`Error::ForeignProc`] if the numbers differ, and [`Error::Proc`] if /proc cannot be
/// read.
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

/// Decides if /proc numbers processes as system calls do. `said` is the target of /proc/self, `us`
/// is our pid from a system call.
fn judge(said: String, status: &Status, us: u32) -> Result<(), Foreign> {
    // The NSpid line has a number for each namespace from that of the mount to ours (task_state in
    // Linux's fs/proc/array.c), so equal numbers in two namespaces are told apart. It exists since
    // Linux 4.1.
    if status.ns_pids.len() > 1 {
        return Err(Foreign::Around { pids: status.ns_pids.clone() });
    }
    if said == us.to_string() { Ok(()) } else { Err(Foreign::Other { said }) }
}

/// Opens the /proc folder of a process. A mount over the folder is not followed.
pub(super) fn folder(pid: Pid) -> Result<OwnedFd, Error> {
    let proc = open()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = pid.to_string();
    let opened = match rustix::fs::openat2(proc, &*name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
        // Before Linux 5.6, and where a seccomp filter does not know the system call.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(proc, &*name, flags, Mode::empty()),
        other => other,
    };
    opened.map_err(|e| match e {
        Errno::NOENT | Errno::SRCH => missing(pid),
        Errno::XDEV => Error::Mismatch(pid),
        e => Error::Proc(e.into()),
    })
}

/// Returns true if /proc hides processes of other users: process 1, which each pid namespace has,
/// is not shown.
pub(super) fn hides_others(proc: &OwnedFd) -> bool {
    matches!(rustix::fs::statat(proc, "1", AtFlags::empty()), Err(Errno::NOENT))
}

/// Makes the error for a process that /proc does not show. The process may exist and be hidden.
pub(super) fn missing(pid: Pid) -> Error {
    // For an existing process, the kernel reports that we may not send it a signal.
    let exists = || rustix::process::test_kill_process(pid.into()) == Err(Errno::PERM);
    if open().is_ok_and(hides_others) && exists() {
        return Error::Denied { pid, action: "read the state", denial: Denial::Hidden };
    }
    Error::NoSuchProcess(pid)
}

/// Proves that a pidfd refers to the process that /proc calls `pid`.
///
/// # Errors
/// Returns [`Error::Mismatch`] if it refers to another process, and [`Error::Exited`] if the
/// process was waited for.
pub(super) fn prove_same(pidfd: &OwnedFd, pid: Pid) -> Result<(), Error> {
    use std::os::fd::AsRawFd as _;
    let name = format!("self/fdinfo/{}", pidfd.as_raw_fd());
    let failed = |source: io::Error| Error::Io { pid, action: "read the number of the pidfd", source };
    let info = read_file(open()?, &name).map_err(failed)?;
    match pid_of(&info) {
        Some(n) if n == i64::from(pid.as_raw()) => Ok(()),
        // The kernel writes -1 for a process that has been waited for.
        Some(-1) => Err(Error::Exited(pid)),
        _ => Err(Error::Mismatch(pid)),
    }
}

/// Pid of a pidfd from /proc/self/fdinfo, in the namespace of that /proc; 0 means none
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
