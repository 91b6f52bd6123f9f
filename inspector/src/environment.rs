//! Our own environment, as far as it may be believed.
//!
//! Where the program has more rights than who started it (file capabilities, set-user-ID), the environment is what that
//! user wishes: none of its variables decides then which files are read, written or executed.

use std::ffi::OsString;

/// A variable of our environment. `None` where it is not set, or [`raised`].
pub(crate) fn variable(name: &str) -> Option<OsString> {
    if raised() { None } else { std::env::var_os(name) }
}

/// Whether this program runs with more rights than who started it has, as the kernel found when it was executed
/// (`AT_SECURE`, getauxval(3)).
pub(crate) fn raised() -> bool {
    // SAFETY: it takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
