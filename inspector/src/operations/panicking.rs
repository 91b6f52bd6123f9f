//! Whether a program is being brought down: its answers are true, but may be its last.

use crate::process::Process;
use crate::runtime::panicking::is_panicking;
use crate::runtime::view::View;

/// As a note that goes with an answer.
pub(crate) const NOTE: &str = "the program is panicking: a panic, a fatal error or a signal brings it down, and it ends when it has written \
     its traceback";

/// Whether the program is being brought down now. `None` where that is not known.
pub(crate) fn look(process: &Process, view: &View) -> Option<bool> {
    is_panicking(view, &process.memory())
}
