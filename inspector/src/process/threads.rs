//! Threads of a process. The main thread may have ended while others live, as in a C program whose
//! `main` calls `pthread_exit`.
//!
//! The kernel then shows the main thread as a zombie, as for a process that has ended. Memory,
//! files and namespaces are gone from /proc/PID, and system calls do not find the memory by that
//! number. They are reachable by the numbers of the other threads.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};

use super::facts::{Stat, Status};
use super::pin::read_file;
use super::{Pid, proc};

/// Maximum number of threads that are searched for a living one.
const MAX_THREADS: usize = 1 << 16;

/// Finds a living thread of process `pid`, other than the main thread, by whose number the memory
/// can be reached. `None` if no such thread lives.
pub(crate) fn living_thread(pid: Pid) -> Option<Pid> {
    find(&proc::folder(pid).ok()?, pid).map(|(thread, _)| thread)
}

/// Opens /proc/TID of a living thread other than the main thread. `dir` is the open /proc/PID.
pub(super) fn living(dir: &OwnedFd, pid: Pid) -> Option<OwnedFd> {
    find(dir, pid).map(|(_, folder)| folder)
}

fn list(dir: &OwnedFd) -> Option<(OwnedFd, Vec<Pid>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tasks = rustix::fs::openat(dir, "task", flags, Mode::empty()).ok()?;
    let threads = Dir::read_from(&tasks).ok()?.take(MAX_THREADS);
    let threads = threads.filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok()).collect();
    Some((tasks, threads))
}

fn find(dir: &OwnedFd, pid: Pid) -> Option<(Pid, OwnedFd)> {
    let (_, threads) = list(dir)?;
    threads.into_iter().filter(|&thread| thread != pid).find_map(|thread| {
        // Unlike /proc/PID/task/TID, /proc/TID has all files that /proc/PID has.
        let folder = proc::folder(thread).ok()?;
        let stat = Stat::parse(&read_file(&folder, "stat").ok()?)?;
        // An ending thread loses the address space first. The start of the code is not 0, even
        // without permission to see it.
        let lives = !stat.is_zombie() && stat.address_space.0 != 0;
        let is_its = lives && Status::parse(&read_file(&folder, "status").ok()?).tgid == Some(pid);
        is_its.then_some((thread, folder))
    })
}
