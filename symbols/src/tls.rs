//! Place of g in thread-local storage: a thread keeps the pointer to its current goroutine there. The code of
//! the runtime shows the place.

use crate::addr::LinkAddr;
use crate::arch::{self, Machine};
use crate::image::Image;
use crate::pclntab::{Func, Pclntab};

/// Place of g, relative to the base of a thread's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GPlace {
    /// Offset from the base, in bytes.
    Offset(i64),
    /// Link address of a word that contains the offset in bytes. The loader fills the word
    /// (position-independent code with the initial-exec model).
    InWord(LinkAddr),
}

/// Functions in assembly that every program links and that begin with loading g.
const READERS: [&str; 4] = ["runtime.morestack", "runtime.asmcgocall", "runtime.mcall", "runtime.rt0_go"];
const MAX_CODE: usize = 1 << 10;

/// Finds the place of g in a program. `None` if the machine is not supported or no such code is found.
pub fn g_place(image: &Image, pclntab: &Pclntab) -> Option<GPlace> {
    let machine = arch::machine(image.arch())?;
    READERS.iter().find_map(|name| of_function(machine, image, pclntab.find(name)?))
}

fn of_function(machine: &dyn Machine, image: &Image, func: Func<'_>) -> Option<GPlace> {
    let size = usize::try_from(func.end().0.checked_sub(func.entry().0)?).ok()?.min(MAX_CODE);
    let mut code = vec![0; size];
    image.read(func.entry(), &mut code).ok()?;
    machine.g_place(&code, func.entry())
}
