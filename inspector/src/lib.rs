//! Looking at a process from outside.

#![warn(missing_docs)]

pub mod agent;
pub mod capture;
pub mod change;
pub mod cli;
mod clock;
mod environment;
mod error;
pub mod memory;
pub mod native;
mod operations;
mod patience;
pub mod printable;
pub mod process;
pub mod profile;
pub mod report;
pub mod runtime;
mod standstill;
pub mod stop;
mod threads;

pub use error::{Error, Kind};
