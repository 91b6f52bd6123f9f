//! Whether a program is about to end: it panics, has met a fatal error, or was sent a signal that makes it dump its
//! goroutines. It may take long to write that down, where nobody reads its standard error.

use super::view::View;
use crate::memory::Memory;

/// `runtime.panicking`: by how many threads the program is being brought down at this moment (`startpanic_m` counts it
/// up, runtime/panic.go of Go 1.18 to 1.27; four bytes in each).
const VARIABLE: &str = "runtime.panicking";

/// Whether the program of `view` is being brought down by a panic, a fatal error or a signal. `None` where the variable
/// is not found, or holds what it never does.
pub fn is_panicking(view: &View, memory: &dyn Memory) -> Option<bool> {
    /// Each counts itself once.
    const MAX_THREADS: u32 = 1 << 20;
    let at = view.locate(&[VARIABLE]).at(VARIABLE)?;
    let mut word = [0; 4];
    memory.read(at, &mut word).ok()?;
    let threads = u32::from_le_bytes(word);
    (threads <= MAX_THREADS).then_some(threads > 0)
}
