//! What the kernel reports of a traced thread, and how the thread is let go: with signals by their numbers.
//!
//! Real-time signals have no names, and libraries that give names fail for them, when the kernel has already been told that the
//! report was read. Go and C libraries send such signals to each thread of a process (`syscall.AllThreadsSyscall`, `setuid`), and
//! wait for ever where one is lost.

use nix::errno::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};

/// What a traced thread has done since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Nothing.
    Running,
    /// It stopped. A signal that was on its way to it has to go on with it.
    Stopped { signal: Option<i32> },
    /// It stopped when it had made another thread, which is traced from its birth.
    Cloned,
    /// It ended.
    Ended,
}

/// Reads the next report of a thread, once.
///
/// # Errors
/// `ECHILD` where it is not traced by us, or gone.
pub(super) fn report(tid: i32) -> Result<Report, Errno> {
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let read = rustix::process::waitpid(Some(pid(tid)?), options);
    let Some((_, status)) = read.map_err(|e| Errno::from_raw(e.raw_os_error()))? else {
        return Ok(Report::Running);
    };
    let Some(signal) = status.stopping_signal() else { return Ok(Report::Ended) };
    Ok(match status.as_raw() >> 16 {
        0 => Report::Stopped { signal: Some(signal) },
        libc::PTRACE_EVENT_CLONE => Report::Cloned,
        _ => Report::Stopped { signal: None },
    })
}

/// Whether a thread has ended, of which the kernel need keep nothing any more.
pub(super) fn reaped(tid: i32) -> bool {
    let Ok(pid) = pid(tid) else { return true };
    let wait = |more| {
        let wall = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | wall | more)
    };
    // Stops of traced threads are reported whatever is asked for (`wait_task_stopped` in kernel/exit.c), and are for the
    // tracer to see: taken from it, the thread would be taken to run, and a signal on its way to it be lost.
    match wait(WaitIdOptions::NOWAIT) {
        Ok(Some(status)) if status.exited() || status.killed() || status.dumped() => {
            let _gone = wait(WaitIdOptions::empty());
            true
        }
        Ok(_) => false,
        Err(errno) => errno == rustix::io::Errno::CHILD,
    }
}

/// Lets a stopped thread run on, with the signal that was on its way to it.
///
/// # Errors
/// `ESRCH` where it is not stopped, or gone.
pub(super) fn detach(tid: i32, signal: Option<i32>) -> Result<(), Errno> {
    let signal = libc::c_long::from(signal.unwrap_or(0));
    // SAFETY: PTRACE_DETACH takes two numbers and touches no memory of ours.
    let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, 0 as libc::c_long, signal) };
    Errno::result(result).map(drop)
}

fn pid(tid: i32) -> Result<Pid, Errno> {
    Pid::from_raw(tid).ok_or(Errno::ESRCH)
}
