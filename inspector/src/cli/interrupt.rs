//! Ctrl-C during work: the first ends it in good order, the second at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::deadline;

static CAUGHT: OnceLock<Interrupt> = OnceLock::new();

/// Returns true if a signal was caught.
pub(super) fn is_pending() -> bool {
    CAUGHT.get().is_some_and(Interrupt::is_pending)
}

/// Flag of a request to end.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT and SIGTERM from now on, instead of obeying them. Without a watching thread they keep
    /// their effect: only they can then end a call that does not return.
    pub(super) fn catch() -> io::Result<Self> {
        let Interrupt(pending) = CAUGHT.get_or_init(|| Interrupt(Arc::default()));
        let pending = Arc::clone(pending);
        if !deadline::is_watched() {
            return Ok(Interrupt(pending));
        }
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&pending))?;
            flag::register(signal, Arc::clone(&pending))?;
        }
        Ok(Interrupt(pending))
    }

    /// Returns true if a signal was caught.
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
