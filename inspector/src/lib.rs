//! Looking at a process from outside.

#![warn(missing_docs)]

pub mod memory;
pub mod runtime;
pub mod stop;
