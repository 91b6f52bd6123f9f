//! Threads of our own process. A machine that has no more threads to give may be just the one on
//! which a process has to be inspected. So each caller handles the failure and goes on without the
//! thread.
//!
//! `std::thread::spawn` and `Scope::spawn` panic in that case; the lints of this crate forbid them.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use crate::process::tasks;

/// Error that the kernel gives us no further thread.
#[derive(Debug, thiserror::Error)]
#[error("no thread can be started: {0}")]
pub(crate) struct NoThread(String);

/// Starts a thread.
///
/// # Errors
/// Returns [`NoThread`] if no thread can be started.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, NoThread> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(refused)
}

/// Starts a thread of a scope.
///
/// # Errors
/// Returns [`NoThread`] if no thread can be started.
pub(crate) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NoThread> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(refused)
}

/// Runs `work` on a thread of its own and waits for its end. Runs it on the calling thread if none
/// can be started.
pub(crate) fn apart<T: Send>(name: &str, work: impl Fn() -> T + Sync) -> T {
    std::thread::scope(|scope| match start_in(scope, name, &work) {
        Ok(thread) => match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        },
        Err(_) => work(),
    })
}

/// Makes the error and logs it, so that a user sees why the work takes longer.
fn refused(error: io::Error) -> NoThread {
    let refused = NoThread(tasks::why_no_more(&error));
    tracing::info!("{refused}; going on without");
    refused
}
