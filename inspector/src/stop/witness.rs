//! Reports why our process ended if the [watchdog](super::watchdog) ended it. Otherwise the user
//! sees only `Killed`.
//!
//! A process that is stopped, frozen or blocked runs no code before it is killed, so it cannot
//! report this. A second process does nothing but wait for our end, and writes one line. It is
//! forked while there is one thread. It shares a page of memory with us, and reads there when the
//! watchdog was to end us. If it cannot be created, there is no such report.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, pipe2, read, setsid};

use crate::clock;

/// Number of slots for watchdogs at a time; more watchdogs share slots.
const SLOTS: usize = 64;

/// Time at which each watchdog ends us, in nanoseconds of CLOCK_MONOTONIC; 0 if not armed.
type Times = [AtomicI64; SLOTS];

static TIMES: OnceLock<&'static Times> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Write end of the pipe that closes when we end; [`ITS_PID`] is the process that waits for that.
static OURS: AtomicI32 = AtomicI32::new(-1);
static ITS_PID: AtomicI32 = AtomicI32::new(0);

const TEXT: &str = "error: gops-probe held threads of the process and did not go on: it was stopped or frozen, or got no CPU. So the kernel \
     ended it, and the threads went on\n\
     hint: run it again; where a machine is so busy, --no-pause stops nothing\n";

/// Starts the witness process. Must be called while our process has one thread.
pub fn start() {
    let Some(times) = share() else { return };
    let Ok((theirs, ours)) = pipe2(OFlag::O_CLOEXEC) else { return };
    // SAFETY: there is one thread, so that nothing is half done in the child.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            drop(ours);
            wait(theirs, times);
        }
        Ok(ForkResult::Parent { child }) => {
            OURS.store(ours.into_raw_fd(), Ordering::Relaxed);
            ITS_PID.store(child.as_raw(), Ordering::Relaxed);
            let _set_once = TIMES.set(times);
            // SAFETY: what is registered waits for a child and touches nothing else.
            let _it_becomes_an_orphan = unsafe { libc::atexit(dismiss) };
        }
        Err(_) => {}
    }
}

/// Ends the witness and reaps it. The first process of a container may not reap orphans, so none is
/// left to it.
extern "C" fn dismiss() {
    let (ours, pid) = (OURS.swap(-1, Ordering::Relaxed), ITS_PID.load(Ordering::Relaxed));
    if ours >= 0 {
        // SAFETY: nobody else has it, and it was just taken out.
        unsafe { libc::close(ours) };
        // The witness has a few system calls left, unless it is stopped.
        for _ in 0..2000 {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {
                    std::thread::sleep(Duration::from_micros(100))
                }
                _ => break,
            }
        }
    }
}

/// Maps memory that stays shared after a fork.
fn share() -> Option<&'static Times> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, that nobody else knows of.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Times>(), protection, flags, -1, 0) };
    // SAFETY: it is aligned to a page, zeroed, as long as asked for, and never unmapped.
    (page != libc::MAP_FAILED).then(|| unsafe { &*page.cast::<Times>() })
}

/// Body of the witness: blocks until the kernel closes the other end of the pipe, which happens
/// when we end.
fn wait(pipe: OwnedFd, times: &Times) -> ! {
    // Leave the session and the folder: signals of the terminal or the process group do not reach
    // it, and no folder or pipe stays in use.
    let _ = setsid();
    let _ = chdir("/");
    let number = pipe.as_raw_fd().unsigned_abs();
    for (first, last) in [(0, 1), (3, number.saturating_sub(1)), (number + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: nothing uses them in this process.
            let _they_stay_open = unsafe { libc::close_range(first, last, 0) };
        }
    }
    let mut byte = [0];
    while read(&pipe, &mut byte) == Err(Errno::EINTR) {}
    if is_over(times, clock::monotonic()) {
        // The reader may be gone.
        let _ = std::io::stderr().write_all(TEXT.as_bytes());
    }
    // SAFETY: ends without the exit handlers of the program that it was forked from.
    unsafe { libc::_exit(0) }
}

fn is_over(times: &Times, now: i64) -> bool {
    times.iter().map(|time| time.load(Ordering::Relaxed)).any(|time| time != 0 && time <= now)
}

/// Slot for the end time of one watchdog.
#[derive(Debug)]
pub(super) struct Slot(Option<&'static AtomicI64>);

impl Slot {
    pub(super) fn take() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
        Slot(TIMES.get().and_then(|times| times.get(number)))
    }

    /// Notes that we are ended after `time`; zero means never.
    pub(super) fn set(&self, time: Duration) {
        let Some(slot) = self.0 else { return };
        let time = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        slot.store(if time == 0 { 0 } else { clock::monotonic().saturating_add(time) }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_that_is_over_ended_us() {
        let times: Times = [const { AtomicI64::new(0) }; SLOTS];
        assert!(!is_over(&times, 7));
        times[3].store(8, Ordering::Relaxed);
        assert!(!is_over(&times, 7));
        assert!(is_over(&times, 8));
    }
}
