//! What is said of a program that is being brought down: its answers are true, but may be its last.

use super::args::Common;
use super::notices::Notice;
use crate::operations::panicking::NOTE;

/// Says so on standard error.
pub(super) fn tell(panicking: Option<bool>, common: &Common) {
    if panicking == Some(true) {
        Notice::Note.tell(common, NOTE);
    }
}
