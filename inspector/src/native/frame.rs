//! Stack frames, and the interface to unwind and name frames of native code.

pub use probe_ebpf::records::SampleRegisters;

use crate::profile::{Function, Mapping};

/// Place of a frame in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Runtime address.
    pub pc: u64,
    /// True if the thread was interrupted at `pc`, or if a signal handler returns there; false if a call
    /// returns there.
    pub exact: bool,
}

/// Result of unwinding by tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unwound {
    /// Frames, innermost first; the first is the place of the interrupt.
    pub places: Vec<Place>,
    /// Registers at the first frame of Go code, which is not among `places`; `None` if no Go code was
    /// reached.
    pub entered_go: Option<SampleRegisters>,
    /// True if unwinding reached the end of the stack.
    pub whole: bool,
}

/// Named frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Function of the frame.
    pub function: Function,
    /// Line in the file; 0 if unknown.
    pub line: u32,
}

/// Unwinder and namer of native code, by its tables.
pub trait Foreign {
    /// Unwinds from `start` until `is_go` is true for a frame.
    fn unwind(&mut self, start: SampleRegisters, stack: &[u8], is_go: &mut dyn FnMut(u64) -> bool)
    -> Unwound;

    /// Returns true if there can be code at `pc`.
    fn is_code(&mut self, pc: u64) -> bool;

    /// Returns the frames at an address inside an instruction, the innermost inlined function first; empty if
    /// nothing is known.
    fn names(&mut self, address: u64) -> Vec<Named>;

    /// Takes the executable mappings that were found after the start and not reported yet.
    fn added(&mut self) -> Vec<Mapping> {
        Vec::new()
    }
}
