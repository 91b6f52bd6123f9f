//! Threads of a process. The first one may have ended while others live, as in a C program whose `main` calls `pthread_exit`.
//!
//! To the kernel the first thread is a zombie then, as that of a process that has ended is. Its memory, its files and its
//! namespaces are gone from /proc/PID, and system calls do not find its memory by that number. The other threads have
//! them, by their own numbers.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};

use super::facts::{Stat, Status};
use super::pin::read_file;
use super::{Pid, proc};

/// More threads than are looked at to find one that lives.
const MAX_THREADS: usize = 1 << 16;

/// A thread of process `pid` by whose number its memory can be reached. `None` where the process has ended, too.
pub(crate) fn living_thread(pid: Pid) -> Option<Pid> {
    find(&proc::folder(pid).ok()?, pid).map(|(thread, _)| thread)
}

/// The open /proc/TID of such a thread. `dir` is the open /proc/PID.
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
        // Unlike the folder in that of the process, it has all that /proc/PID has.
        let folder = proc::folder(thread).ok()?;
        let stat = Stat::parse(&read_file(&folder, "stat").ok()?)?;
        // Whoever ends loses the address space first. Its begin is not 0 even for those who may not know it.
        let lives = !stat.is_zombie() && stat.address_space.0 != 0;
        let is_its = lives && Status::parse(&read_file(&folder, "status").ok()?).tgid == Some(pid);
        is_its.then_some((thread, folder))
    })
}
