//! Reports of the kernel about a traced thread, and its release. Signals are given by number.
//!
//! A signal must reach its thread whatever happens. Real-time signals have no names. Libraries that
//! name signals fail for them, after the kernel has been told that the report was read. Go and C
//! libraries send such signals to each thread of a process (`syscall.AllThreadsSyscall`, `setuid`),
//! and wait for ever if one is lost. A stop whose report was consumed goes on without its signal
//! when the tracer dies (`ptrace_stop` and `wait_task_stopped` in the kernel). So reports are only
//! looked at.

use nix::errno::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

/// State of a traced thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Running, or not told to stop.
    Running,
    /// Stopped. A signal that was on its way has to be delivered when the thread goes on.
    Stopped { signal: Option<i32> },
    /// Stopped because it created another thread, which is traced from its birth.
    Cloned,
    /// Ended. The kernel need not keep anything of the thread any more.
    Ended,
}

/// Reads the state of a traced thread. Gives the same result again until the thread is let go or
/// ends.
///
/// # Errors
/// Returns `ECHILD` if the thread is not traced by us, or is gone.
pub(super) fn report(tid: i32) -> Result<Report, Errno> {
    let Some(status) = wait(tid, WaitIdOptions::NOWAIT)? else { return Ok(Report::Running) };
    let Some(code) = status.trapping_signal() else {
        // Reap an ended thread, so that its id is free and the target has one thread less.
        let _gone = wait(tid, WaitIdOptions::empty());
        return Ok(Report::Ended);
    };
    Ok(match code >> 8 {
        0 => Report::Stopped { signal: Some(code) },
        libc::PTRACE_EVENT_CLONE => Report::Cloned,
        _ => Report::Stopped { signal: None },
    })
}

/// Waits without blocking for a report. Stops of traced threads are reported even if not asked for.
fn wait(tid: i32, more: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
    let pid = Pid::from_raw(tid).ok_or(Errno::ECHILD)?;
    let wall = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | wall | more;
    rustix::process::waitid(WaitId::Pid(pid), options).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Lets a stopped thread run on, with the signal that was on its way to it.
///
/// # Errors
/// Returns `ESRCH` if the thread is not stopped, or is gone.
pub(super) fn detach(tid: i32, signal: Option<i32>) -> Result<(), Errno> {
    let signal = libc::c_long::from(signal.unwrap_or(0));
    // SAFETY: PTRACE_DETACH takes two numbers and touches no memory of ours.
    let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, 0 as libc::c_long, signal) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};

    use nix::sys::ptrace;

    use super::*;

    fn seized() -> (Child, i32) {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        ptrace::seize(nix::unistd::Pid::from_raw(pid), ptrace::Options::empty()).unwrap();
        (child, pid)
    }

    fn await_report(tid: i32) -> Report {
        loop {
            match report(tid).unwrap() {
                Report::Running => std::thread::yield_now(),
                report => return report,
            }
        }
    }

    #[test]
    fn a_stop_is_reported_again_and_again() {
        let (mut child, pid) = seized();
        assert_eq!(report(pid), Ok(Report::Running));
        ptrace::interrupt(nix::unistd::Pid::from_raw(pid)).unwrap();
        for _ in 0..3 {
            assert_eq!(await_report(pid), Report::Stopped { signal: None });
        }
        detach(pid, None).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_signal_without_a_name_goes_on_with_its_thread() {
        let (mut child, pid) = seized();
        // SAFETY: it takes two numbers.
        assert_eq!(unsafe { libc::kill(pid, 40) }, 0);
        for _ in 0..3 {
            assert_eq!(await_report(pid), Report::Stopped { signal: Some(40) });
        }
        detach(pid, Some(40)).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(40));
    }

    #[test]
    fn what_has_ended_is_reported_once() {
        let (child, pid) = seized();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(await_report(pid), Report::Ended);
        assert_eq!(report(pid), Err(Errno::ECHILD));
        drop(child);
    }
}
