//! What is said of a program that is being brought down: its answers are true, but may be its last.

use std::io::Write as _;

use super::args::Common;
use super::style::Style;
use crate::operations::panicking::NOTE;

/// Says so on standard error.
pub(super) fn tell(panicking: Option<bool>, common: &Common) {
    if panicking == Some(true) {
        let hint = Style::for_stderr(common.color).hint("note:");
        // A hint that cannot be written is no failure of the answer.
        let _ = writeln!(std::io::stderr().lock(), "{hint} {NOTE}");
    }
}
