//! Actions in the network namespace of a process.

use std::io;

use nix::sched::CloneFlags;

use super::{Namespace, Process};
use crate::threads;

impl Process {
    /// Runs `act` in the network namespace of the process: directly if the namespace is ours, else
    /// in a thread that enters it. A socket stays in the namespace where it was created.
    ///
    /// # Errors
    /// Returns an error if the namespace cannot be entered. Entering needs `CAP_SYS_ADMIN` in both
    /// namespaces, and a thread.
    pub fn in_network_namespace<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.is_in_other_namespace(Namespace::Net) != Some(true) {
            return Ok(act());
        }
        let namespace = self.open_namespace(Namespace::Net)?;
        // Only this thread changes its namespace, and it ends.
        std::thread::scope(|scope| {
            let thread = threads::start_in(scope, "network namespace", move || {
                nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?;
                Ok(act())
            });
            match thread.map_err(io::Error::other)?.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
