//! Threads of our own. A machine on which no more can be had is just one on which somebody wants to look at a process: whoever
//! wants a thread from here says what is done without it, and nothing ends for the lack of one.
//!
//! `std::thread::spawn` and `Scope::spawn` panic there; the lints of this crate keep them out.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use crate::process::tasks;

/// The kernel gives us no further thread.
#[derive(Debug, thiserror::Error)]
#[error("no thread can be started: {0}")]
pub(crate) struct NoThread(String);

/// Starts a thread.
///
/// # Errors
/// Where there is none to be had.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, NoThread> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(refused)
}

/// Starts a thread of a scope.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NoThread> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(refused)
}

/// Does something on a thread of its own that ends with it, or on this one where there is none to be had.
pub(crate) fn apart<T: Send>(name: &str, work: impl Fn() -> T + Sync) -> T {
    std::thread::scope(|scope| match start_in(scope, name, &work) {
        Ok(thread) => match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        },
        Err(_) => work(),
    })
}

/// Says so to who wants to know why it takes longer.
fn refused(error: io::Error) -> NoThread {
    let refused = NoThread(tasks::why_no_more(&error));
    tracing::info!("{refused}; going on without");
    refused
}
