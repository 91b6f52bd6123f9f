//! Facts about the threads of a process from `/proc`. Nothing is stopped to read them.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;

use nix::errno::Errno;

use super::StopError;

/// Thread ids of a process, as seen in our pid namespace.
pub fn threads(pid: i32) -> Result<Vec<i32>, StopError> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| match e.raw_os_error() {
        Some(code) if code != libc::ENOENT => StopError::from(Errno::from_raw(code)),
        _ => StopError::Exited,
    })?;
    let mut tids: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    Ok(tids)
}

/// Returns true if another process traces one of the threads of `pid`.
pub fn is_traced(pid: i32) -> bool {
    tracer(pid).is_some()
}

/// Thread id of the tracer of a thread of `pid`; the first one found.
pub fn tracer(pid: i32) -> Option<i32> {
    threads(pid).unwrap_or_default().iter().find_map(|tid| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
        field(&status, "TracerPid:")?.parse().ok().filter(|&tracer| tracer != 0)
    })
}

/// Threads of a process in another pid namespace: map from the ids there to the ids in ours. `None`
/// if both namespaces are the same.
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

/// Text of a status file. Its size is unknown before, so the buffer has room for all of it: one
/// read call is enough.
fn status(path: String) -> Option<String> {
    let mut text = String::with_capacity(4096);
    fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Kernel function in which a thread waits (`/proc/TID/wchan`), as text for messages.
pub fn wait_channel(tid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{tid}/wchan")).unwrap_or_default();
    if name.is_empty() || name == "0" { "in the kernel".to_owned() } else { format!("it waits in {name}") }
}

/// Value of the field `name` of a status file.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Returns true if the thread is a zombie or gone.
pub(super) fn is_dead(tid: i32) -> bool {
    matches!(state(tid), None | Some('Z' | 'X'))
}

/// Returns true if a thread that was told to stop only lacks a CPU, or has stopped since the last
/// look.
pub(super) fn lacks_cpu(tid: i32) -> bool {
    matches!(state(tid), Some('R' | 't'))
}

/// State of a thread as in `ps`; `None` if the thread is gone.
pub fn state(tid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
}
