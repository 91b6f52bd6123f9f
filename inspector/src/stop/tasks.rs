//! What the kernel says of the threads of a process, in `/proc`: nothing is stopped for it.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;

use nix::errno::Errno;

use super::StopError;

/// The thread ids of a process, as seen in our pid namespace.
pub fn threads(pid: i32) -> Result<Vec<i32>, StopError> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| match e.raw_os_error() {
        Some(code) if code != libc::ENOENT => StopError::from(Errno::from_raw(code)),
        _ => StopError::Exited,
    })?;
    let mut tids: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    Ok(tids)
}

/// Whether another process traces one of the threads of `pid`.
pub fn is_traced(pid: i32) -> bool {
    tracer(pid).is_some()
}

/// The thread that traces one of the threads of `pid`, the first one that is found.
pub fn tracer(pid: i32) -> Option<i32> {
    threads(pid).unwrap_or_default().iter().find_map(|tid| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
        field(&status, "TracerPid:")?.parse().ok().filter(|&tracer| tracer != 0)
    })
}

/// The threads of a process in another pid namespace: their ids there, and in ours. `None` where both are the same.
pub fn namespaced_threads(pid: i32) -> Option<HashMap<u64, i32>> {
    let innermost = |path: String| -> Option<(usize, u64)> {
        let status = status(path)?;
        let ids: Vec<&str> = field(&status, "NSpid:")?.split_ascii_whitespace().collect();
        Some((ids.len(), ids.last()?.parse().ok()?))
    };
    let (levels, _) = innermost(format!("/proc/{pid}/status"))?;
    if levels < 2 {
        return None;
    }
    let tids = threads(pid).ok()?;
    Some(
        tids.into_iter()
            .filter_map(|tid| Some((innermost(format!("/proc/{pid}/task/{tid}/status"))?.1, tid)))
            .collect(),
    )
}

/// A status file, which says nothing of its size: with room for all of it, it takes one call.
fn status(path: String) -> Option<String> {
    let mut text = String::with_capacity(4096);
    fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a thread waits for in the kernel, for messages.
pub fn wait_channel(tid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{tid}/wchan")).unwrap_or_default();
    if name.is_empty() || name == "0" { "in the kernel".to_owned() } else { format!("it waits in {name}") }
}

/// The value of a field of a status file.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a thread is a zombie or gone.
pub(super) fn is_dead(tid: i32) -> bool {
    matches!(state(tid), None | Some('Z' | 'X'))
}

/// Whether a thread that was told to stop lacks nothing but a CPU, or has stopped since it was looked at.
pub(super) fn lacks_cpu(tid: i32) -> bool {
    matches!(state(tid), Some('R' | 't'))
}

/// The state of a thread, as in `ps`; `None` where it is gone.
pub fn state(tid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
}
