//! Detection of a program that is about to end: by a panic, a fatal error, or a signal that makes it dump
//! its goroutines. Writing the dump may take long if no process reads its standard error.

use super::view::View;
use crate::memory::Memory;

/// Name of `runtime.panicking`: number of threads that now bring the program down. `startpanic_m` increments
/// it (`runtime/panic.go`, Go 1.18 to 1.27; four bytes in each).
const VARIABLE: &str = "runtime.panicking";

/// Returns true if a panic, a fatal error or a signal is now ending the program of `view`. `None` if the
/// variable is not found or holds an impossible value.
pub fn is_panicking(view: &View, memory: &dyn Memory) -> Option<bool> {
    /// Each thread counts itself once.
    const MAX_THREADS: u32 = 1 << 20;
    let at = view.locate(&[VARIABLE]).at(VARIABLE)?;
    let mut word = [0; 4];
    memory.read(at, &mut word).ok()?;
    let threads = u32::from_le_bytes(word);
    (threads <= MAX_THREADS).then_some(threads > 0)
}
