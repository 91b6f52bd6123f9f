//! The machine that tests and benchmarks run on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// `2 cores, Linux 6.12.0`: whose build the kernel is says nothing to anybody else.
#[must_use]
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores, Linux {}", kernel())
}

/// The version of the kernel.
#[must_use]
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or("?").to_owned()
}

/// The load average over a minute.
#[must_use]
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// For tests of one file that need the whole machine, or count what is on it: one at a time, as long as this is held.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
