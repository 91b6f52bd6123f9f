//! Registers of a stopped thread. Reading them depends on the architecture of our machine.

pub use crate::arch::Registers;
pub(super) use crate::arch::host::registers as read;
