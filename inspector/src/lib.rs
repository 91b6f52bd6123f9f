//! Diagnoses Go processes on Linux from outside: goroutines, memory, profiles, CPU samples. Needs
//! no agent in the process and no rebuild, and also works on stripped programs. Supports Go 1.18 to
//! 1.27 on x86-64.
//!
//! ```no_run
//! use gops_probe::{StackOptions, Target};
//!
//! # fn main() -> Result<(), gops_probe::Error> {
//! let goroutines = Target::pid(4711)?.stack(&StackOptions::default())?;
//! println!("{} goroutines\n\n{goroutines}", goroutines.len());
//! # Ok(())
//! # }
//! ```
//!
//! A [`Target`] is one process and never changes to another. Once the process has exited or
//! executes another program, each question returns an error. Nothing is written to the process. Its
//! threads are stopped only where needed, and for at most the time that the options allow. However
//! the calling program ends, no thread stays stopped. The kernel asks for the rights of a debugger:
//! the same user, or `CAP_SYS_PTRACE`.
//!
//! An answer that cannot be shown to be true is an [`Error`], or is marked in the answer. The
//! [`ErrorKind`] of an error says what can be done about it.
//!
//! Without the feature `cli`, which the program needs, the library has no command line code.
//! Modules that are not shown here are for the program and its tests, and change without notice.

#![warn(missing_docs)]
#![cfg_attr(not(feature = "cli"), allow(dead_code, reason = "what only the command line asks for"))]

#[doc(hidden)]
pub mod agent;
#[doc(hidden)]
pub mod arch;
#[doc(hidden)]
pub mod capture;
#[doc(hidden)]
pub mod change;
#[doc(hidden)]
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod environment;
mod error;
mod facade;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod native;
mod operations;
mod patience;
#[doc(hidden)]
pub mod printable;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod profile;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod runtime;
mod standstill;
#[doc(hidden)]
pub mod stop;
mod threads;

pub use error::{Error, ErrorKind};
pub use facade::{CpuOptions, Goroutines, HeapOptions, ProfileAnswer, ProfileKind, StackOptions, Target};
pub use report::heap::HeapAnswer;
pub use report::memstats::MemStatsAnswer;
pub use report::stack::{Counts, Frame, WrittenGoroutine as Goroutine};
pub use report::stats::StatsAnswer;
pub use runtime::open::RuntimeName;
pub use runtime::snapshot::Consistency;
