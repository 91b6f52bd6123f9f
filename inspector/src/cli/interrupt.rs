//! Ctrl-C while something is under way: the first ends it in good order, the second at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::deadline;

static CAUGHT: OnceLock<Interrupt> = OnceLock::new();

/// Whether a signal came that was only noted.
pub(super) fn is_pending() -> bool {
    CAUGHT.get().is_some_and(Interrupt::is_pending)
}

/// Whether somebody wants us to end.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, SIGINT and SIGTERM are noted and not obeyed. Where nobody watches over us they keep what they do: a call that
    /// does not end has to be ended by them.
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

    /// Whether one came.
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
