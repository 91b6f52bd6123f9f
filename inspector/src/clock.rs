//! Clock that the kernel's records, Go's runtime and BPF programs share.

use std::time::Duration;

use nix::unistd::Pid;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC of our time namespace, in nanoseconds.
pub(crate) fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// CPU time used by the threads of a process, including threads that have ended. For a thread that
/// runs now, the time since it was put on its CPU may be missing.
pub(crate) fn used_by(pid: i32) -> Option<Duration> {
    let clock = nix::time::ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
    nix::time::clock_gettime(clock).ok().map(Duration::from)
}
