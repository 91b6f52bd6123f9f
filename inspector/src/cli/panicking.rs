//! Message about a program that a panic or a fatal error is ending. Answers about it are true, but may be the
//! last.

use super::args::Common;
use super::notices::Notice;
use crate::operations::panicking::NOTE;

/// Reports a panicking program on standard error.
pub(super) fn tell(panicking: Option<bool>, common: &Common) {
    if panicking == Some(true) {
        Notice::Note.tell(common, NOTE);
    }
}
