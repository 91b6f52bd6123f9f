//! The clock that the kernel's records, Go's runtime and BPF programs agree on.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC of our time namespace, in nanoseconds.
pub(crate) fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}
