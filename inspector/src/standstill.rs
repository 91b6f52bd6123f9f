//! Causes and remedies if the threads of a process do not stop, found by checking.

use std::fs;
use std::io;
use std::path::Path;

use crate::process::access::Access;
use crate::process::cgroup::{self, Frozen};
use crate::process::{self, Pid, Process};
use crate::stop::{self, StopError};
use crate::{Error, stop::wait_channel};

/// Makes the error for a failed stop of the threads of `process`.
pub(crate) fn error(process: &Process, error: StopError) -> Error {
    let pid = process.pid();
    if let Err(gone) = process.check() {
        return gone.into();
    }
    match error {
        StopError::Exited => process::Error::Exited(pid).into(),
        StopError::Denied => match tracer(process) {
            Some(tracer) => process.traced_by(tracer).into(),
            None => {
                let source = io::Error::from_raw_os_error(libc::EPERM);
                process.explain("stop the threads", Access::Attach, source).into()
            }
        },
        StopError::Timeout(tid) => {
            let (what, hint) = match frozen(process) {
                Some(frozen) => (
                    format!("its threads do not stop: its cgroup {} is frozen", frozen.folder()),
                    frozen.hint(),
                ),
                None => waiting(tid),
            };
            Error::Standstill { pid, what, hint }
        }
        other => Error::Failed(format!("process {pid}: {other}")),
    }
}

/// Process that traces a thread of `process`.
fn tracer(process: &Process) -> Option<Pid> {
    let tracer = stop::tracer(process.pid().as_raw())?;
    Pid::try_from(u64::from(tracer.unsigned_abs())).ok()
}

/// Description of a late thread, and a remedy.
fn waiting(tid: i32) -> (String, String) {
    let channel = wait_channel(tid);
    if stop::state(tid) == Some('D') {
        let what = format!(
            "thread {tid} does not stop: it is in a wait of the kernel that nothing interrupts (state D, {channel})"
        );
        return (what, "run again once that is over: a disk, a network file system, a fork".to_owned());
    }
    let what = format!("thread {tid} does not stop in time ({channel})");
    (what, "run again: the machine may be overloaded".to_owned())
}

/// Frozen cgroup that holds the process.
pub(crate) fn frozen(process: &Process) -> Option<Frozen> {
    let groups = process.read("cgroup", "read the cgroup").unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    cgroup::frozen(&cgroup::memberships(&groups), &cgroup::mounts(&mounts), &|path: &Path| {
        fs::read(path).ok()
    })
}
