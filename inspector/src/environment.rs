//! Environment variables of our process, as far as they can be trusted.
//!
//! If the program has more rights than the user who started it (file capabilities, set-user-ID),
//! that user controls the environment. No variable decides then which files are read, written or
//! executed.

use std::ffi::OsString;

/// Value of an environment variable. `None` if it is not set, or if the program's rights are
/// [`raised`].
pub(crate) fn variable(name: &str) -> Option<OsString> {
    if raised() { None } else { std::env::var_os(name) }
}

/// Returns true if this program has more rights than the user who started it, as the kernel
/// determined at exec (`AT_SECURE`, getauxval(3)).
pub(crate) fn raised() -> bool {
    // SAFETY: takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
