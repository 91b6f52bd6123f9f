//! Call frame information (`.eh_frame`): for each instruction, the end of the frame and the saved registers.
//!
//! Compilers write call frame information into every program, for exceptions, and `strip` keeps it. The
//! unwinder needs it for stacks of C, C++ and Rust code without frame pointers. Register numbers depend on
//! the machine ([`crate::arch::Columns`]).

pub(crate) mod row;
mod table;

pub use row::{CfiRegisters, Row, Step};
pub use table::FrameTable;
