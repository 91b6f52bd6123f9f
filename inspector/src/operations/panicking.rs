//! Detection of programs that a panic or a fatal error is ending. Answers about them are true, but may be the
//! last.

use crate::process::Process;
use crate::runtime::panicking::is_panicking;
use crate::runtime::view::View;

/// Note that goes with answers about a panicking program.
pub(crate) const NOTE: &str = "the program is panicking: a panic, a fatal error or a signal brings it down, and it ends when it has written \
     its traceback";

/// Returns true if a panic, a fatal error or a signal is ending the program now. `None` if unknown.
pub(crate) fn look(process: &Process, view: &View) -> Option<bool> {
    is_panicking(view, &process.memory())
}
