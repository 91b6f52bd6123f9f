//! Causes for a failed start of a thread or process. The kernel reports all of them with one error
//! (clone(2), EAGAIN).

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::cgroup::{self, Place};

/// Finds the cause of `error` from starting a thread or a process. Compares each limit with its
/// current use.
pub fn why_no_more(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            cgroup_limit().or_else(user_limit).or_else(kernel_limit).unwrap_or_else(|| error.to_string())
        }
        Some(libc::ENOMEM) => "there is no memory left for it".to_owned(),
        _ => error.to_string(),
    }
}

/// Names the cgroup whose limit is reached: ours or an ancestor.
fn cgroup_limit() -> Option<String> {
    let memberships = cgroup::memberships(&fs::read("/proc/self/cgroup").ok()?);
    let mounts = cgroup::mounts(&fs::read("/proc/self/mountinfo").ok()?);
    let place = Place::find(&memberships, &mounts, "pids")?;
    let (folder, used, limit) = cgroup::full_of_tasks(&place, &|path: &Path| fs::read(path).ok())?;
    Some(format!("the cgroup {} has {used} of the {limit} tasks that its pids.max allows", folder.display()))
}

/// Checks RLIMIT_NPROC. The limit counts all threads of the user. It does not apply to root or to
/// holders of these capabilities (`copy_process` in kernel/fork.c).
fn user_limit() -> Option<String> {
    let limit = getrlimit(Resource::Nproc).current?;
    let user = rustix::process::getuid();
    let mighty = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    if user.is_root() || capabilities(None).is_ok_and(|sets| sets.effective.intersects(mighty)) {
        return None;
    }
    let used = tasks_of(user.as_raw())?;
    (used >= limit).then(|| {
        format!("user {} has {used} of the {limit} tasks that RLIMIT_NPROC (ulimit -u) allows", user.as_raw())
    })
}

/// Number of threads of a user's processes, as far as /proc shows them.
fn tasks_of(user: u32) -> Option<u64> {
    let field = |status: &str, key: &str| -> Option<u64> {
        status.lines().find_map(|l| l.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
    };
    let threads = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        (field(&status, "Uid:")? == u64::from(user)).then(|| field(&status, "Threads:"))?
    });
    Some(threads.sum())
}

/// Checks `kernel.threads-max` and `kernel.pid_max`, which apply to the whole machine.
fn kernel_limit() -> Option<String> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // Number after the slash in the fourth word (proc_loadavg(5)).
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let used: u64 = load.split_ascii_whitespace().nth(3)?.split('/').nth(1)?.parse().ok()?;
    let limits = [
        ("kernel.threads-max", "/proc/sys/kernel/threads-max"),
        ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
    ];
    limits.into_iter().find_map(|(name, path)| {
        let limit = number(path)?;
        // The lowest numbers are not reused.
        (used + 300 >= limit)
            .then(|| format!("the machine has {used} of the {limit} tasks that {name} allows"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_tasks_are_counted() {
        let ours = tasks_of(rustix::process::getuid().as_raw()).unwrap();
        assert!(ours >= 1, "{ours}");
        let other = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(why_no_more(&other), other.to_string());
    }
}
