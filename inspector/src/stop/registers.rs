//! The registers of a stopped thread. Reading them is what depends on the machine that we run on.

pub use crate::arch::Registers;
pub(super) use crate::arch::host::registers as read;
