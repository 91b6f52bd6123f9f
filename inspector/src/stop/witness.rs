//! Says why we ended, where the [watchdog](super::watchdog) did it: whoever started us sees nothing but `Killed` else.
//!
//! We cannot say it: a process that is stopped, frozen or waits runs no code of its own before it is killed. So a process
//! that has done nothing but wait for our end writes one line. It is made by a fork, while there is one thread, and shares a page of memory
//! with us, in which it reads when the watchdog was to end us. Where it cannot be had we do without.

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

/// For so many watchdogs at a time; more share.
const SLOTS: usize = 64;

/// When each watchdog ends us, in nanoseconds of the monotonic clock; 0 where it is not armed.
type Times = [AtomicI64; SLOTS];

static TIMES: OnceLock<&'static Times> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The end of the pipe that ends with us, and the process that waits for that.
static OURS: AtomicI32 = AtomicI32::new(-1);
static ITS_PID: AtomicI32 = AtomicI32::new(0);

const TEXT: &str = "error: gops-probe held threads of the process and did not go on: it was stopped or frozen, or got no CPU. So the kernel \
     ended it, and the threads went on\n\
     hint: run it again; where a machine is so busy, --no-pause stops nothing\n";

/// Has somebody say it from now on. To be called while this process has one thread.
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

/// Who is the first process of a container may wait for no child: it gets none from us.
extern "C" fn dismiss() {
    let (ours, pid) = (OURS.swap(-1, Ordering::Relaxed), ITS_PID.load(Ordering::Relaxed));
    if ours >= 0 {
        // SAFETY: nobody else has it, and it was just taken out.
        unsafe { libc::close(ours) };
        // It has a few system calls left, unless somebody stops it.
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

/// Memory that stays the same for both after a fork.
fn share() -> Option<&'static Times> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, that nobody else knows of.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Times>(), protection, flags, -1, 0) };
    // SAFETY: it is aligned to a page, zeroed, as long as asked for, and never unmapped.
    (page != libc::MAP_FAILED).then(|| unsafe { &*page.cast::<Times>() })
}

/// What the child does: nothing until the other end of the pipe is closed, which the kernel does when we end.
fn wait(pipe: OwnedFd, times: &Times) -> ! {
    // What is typed at the terminal, or ends a group of processes, is not for it; nor does it keep a folder or a pipe in use.
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
        // Nobody may listen.
        let _ = std::io::stderr().write_all(TEXT.as_bytes());
    }
    // SAFETY: it ends without what the program that it was forked from does at its end.
    unsafe { libc::_exit(0) }
}

fn is_over(times: &Times, now: i64) -> bool {
    times.iter().map(|time| time.load(Ordering::Relaxed)).any(|time| time != 0 && time <= now)
}

/// A place for the time of one watchdog.
#[derive(Debug)]
pub(super) struct Slot(Option<&'static AtomicI64>);

impl Slot {
    pub(super) fn take() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
        Slot(TIMES.get().and_then(|times| times.get(number)))
    }

    /// We end after `time`; never, where it is zero.
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
