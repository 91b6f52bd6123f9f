//! Privileges that the kernel requires for sampling, in words.

use std::fs;

use rustix::thread::{CapabilitySet, capabilities};

use crate::process::access::{self, Access};
use crate::process::{Pid, Process};

/// Reads `kernel.perf_event_paranoid`.
pub(super) fn paranoid() -> Option<i32> {
    fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// Returns true if our capabilities override `kernel.perf_event_paranoid`.
pub(super) fn may_perf() -> bool {
    effective().intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN)
}

fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |ours| ours.effective)
}

/// Explains a level that only kernels of Debian and Ubuntu have, for which CAP_PERFMON is not enough: their
/// perf_event_open requires CAP_SYS_ADMIN above 2.
fn for_level() -> Option<String> {
    if effective().contains(CapabilitySet::SYS_ADMIN) || paranoid().is_none_or(|level| level <= 2) {
        return None;
    }
    Some(format!(
        "{}above 2, kernels of Debian and Ubuntu require CAP_SYS_ADMIN: run with sudo, or as root: \
         sysctl kernel.perf_event_paranoid=2",
        level()
    ))
}

/// Explanation of a denial although the capabilities are sufficient.
const FILTERED: &str = "the capabilities are sufficient, so the reason is a seccomp filter, a security module, or a user namespace (a container?)";

fn level() -> String {
    paranoid().map_or_else(String::new, |level| format!("kernel.perf_event_paranoid is {level}; "))
}

/// Explains the privileges needed to watch CPUs.
pub(super) fn for_cpus() -> String {
    if let (true, Some(why)) = (may_perf(), for_level()) {
        return why;
    }
    if may_perf() || paranoid().is_some_and(|level| level <= 0) {
        return FILTERED.to_owned();
    }
    format!("{}it needs CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8): run with sudo", level())
}

/// Explains the privileges needed to watch the threads of a process.
pub(super) fn for_threads(pid: Pid) -> String {
    if may_perf() {
        return for_level().unwrap_or_else(|| FILTERED.to_owned());
    }
    // Levels from 3 on, which only some distributions have, allow nothing.
    if paranoid().is_some_and(|level| level > 2) {
        return format!(
            "{}it needs CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8): run with sudo, or for your own processes, \
             as root: sysctl kernel.perf_event_paranoid=2",
            level()
        );
    }
    let process = match Process::pin(pid) {
        Ok(process) => process,
        Err(error) => return error.to_string(),
    };
    let denial = access::explain(&process, Access::Read);
    match denial.hint() {
        Some(hint) => format!("{denial}; {hint}"),
        None => denial.to_string(),
    }
}

/// Explains the privileges needed to load sampling BPF programs.
pub(super) fn for_bpf() -> String {
    let has = effective();
    if has.contains(CapabilitySet::SYS_ADMIN) || has.contains(CapabilitySet::BPF | CapabilitySet::PERFMON) {
        return for_level().unwrap_or_else(|| format!("{FILTERED}, or the kernel is locked down"));
    }
    "it needs CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8): run with sudo".to_owned()
}
