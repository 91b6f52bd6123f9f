//! Call frame information (`.eh_frame`): where the frame of a function ends at each instruction, and what it saved.
//!
//! Compilers write it for exceptions, into every program, and `strip` leaves it: by it the stacks of C, C++ and Rust are walked
//! whose frames have no pointers. Which numbers registers have is the machine's ([`crate::arch::Columns`]).

pub(crate) mod row;
mod table;

pub use row::{CfiRegisters, Row, Step};
pub use table::FrameTable;
