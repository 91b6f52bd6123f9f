//! What is said of a program that is being brought down: its answers are true, but may be its last.

use std::io::Write as _;

use super::args::Common;
use super::style::Style;
use crate::memory::LiveMemory;
use crate::runtime::panicking::is_panicking;
use crate::runtime::view::View;

/// As a note that goes with an answer.
pub(super) const NOTE: &str = "the program is panicking: a panic, a fatal error or a signal brings it down, and it ends when it has written \
     its traceback";

/// Whether the program is being brought down now. `None` where that is not known.
pub(super) fn look(view: &View) -> Option<bool> {
    is_panicking(view, &LiveMemory::new(view.pid))
}

/// Says so on standard error.
pub(super) fn tell(panicking: Option<bool>, common: &Common) {
    if panicking == Some(true) {
        let hint = Style::for_stderr(common.color).hint("note:");
        // A hint that cannot be written is no failure of the answer.
        let _ = writeln!(std::io::stderr().lock(), "{hint} {NOTE}");
    }
}
