//! Frames of stacks, and what unwinds and names those that are not Go's.

pub use probe_ebpf::records::SampleRegisters;

use crate::profile::{Function, Mapping};

/// A frame's place in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// A runtime address.
    pub pc: u64,
    /// The thread was interrupted there, or a signal's handler returns there; else a call does.
    pub exact: bool,
}

/// What unwinding by tables found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unwound {
    /// Frames, innermost first; the first is where the thread was interrupted.
    pub places: Vec<Place>,
    /// Where it entered Go code: the registers there. Not among `places`.
    pub entered_go: Option<SampleRegisters>,
    /// It came to the end of the stack.
    pub whole: bool,
}

/// A frame with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The function.
    pub function: Function,
    /// The line in its file; 0 where unknown.
    pub line: u32,
}

/// Unwinds and names code that is not Go's, by its tables.
pub trait Foreign {
    /// Unwinds from `start` until `is_go` holds of a frame.
    fn unwind(&mut self, start: SampleRegisters, stack: &[u8], is_go: &mut dyn FnMut(u64) -> bool)
    -> Unwound;

    /// Whether there can be code at `pc`.
    fn is_code(&mut self, pc: u64) -> bool;

    /// The frames at an address inside of an instruction, what was inlined first; none where nothing is known.
    fn names(&mut self, address: u64) -> Vec<Named>;

    /// Executable mappings that were found since it was made, and not told yet.
    fn added(&mut self) -> Vec<Mapping> {
        Vec::new()
    }
}
