//! Where a thread keeps its goroutine: the place of g in thread-local storage, as the code of the runtime has it.

use crate::addr::LinkAddr;
use crate::arch::{self, Machine};
use crate::image::Image;
use crate::pclntab::{Func, Pclntab};

/// Where g is, relative to the base of a thread's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GPlace {
    /// At this many bytes from it.
    Offset(i64),
    /// The word at this address says how many bytes: the program was linked so that the loader decides
    /// (position-independent code with the initial-exec model).
    InWord(LinkAddr),
}

/// Functions of assembly code that every program links and that begin with loading g.
const READERS: [&str; 4] = ["runtime.morestack", "runtime.asmcgocall", "runtime.mcall", "runtime.rt0_go"];
const MAX_CODE: usize = 1 << 10;

/// Finds the place of g in a program; `None` for a machine that is not supported.
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
