//! Boots real kernels and runs the probes there.
//!
//! The same sub-tests ([`guest::SUBTESTS`]) run in machines under QEMU, whose `/init` is the program `vm-runner`, and
//! on this machine. Each reports one line; a line that is missing is a failure.

#![warn(missing_docs)]

mod boot;
mod command;
mod error;
pub mod guest;
mod image;
pub mod kernel;
pub mod needs;
pub mod outcome;
mod programs;
pub mod suite;
pub mod table;

pub use error::{Error, Result};
