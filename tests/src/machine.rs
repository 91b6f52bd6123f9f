//! Machine that tests and benchmarks run on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Describes the machine: `2 cores, Linux 6.12.0`. The kernel's build suffix is left out.
#[must_use]
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores, Linux {}", kernel())
}

/// Version of the kernel.
#[must_use]
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or("?").to_owned()
}

/// Load average over a minute.
#[must_use]
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// Locks out other tests of the same test binary, for tests that need the whole machine or count what is on
/// it.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
