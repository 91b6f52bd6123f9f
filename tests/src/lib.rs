//! Fixtures and harness of the integration tests: real Go processes, built by every supported Go
//! release in many ways, that answer commands and dump their own goroutines to compare with.

#![warn(missing_docs)]

pub mod agents;
pub mod breakpoint;
pub mod build;
pub mod chain;
mod copying;
pub mod crowd;
pub mod dump;
mod edit;
mod error;
mod fixture;
mod journal;
pub mod loaded;
pub mod machine;
pub mod matrix;
pub mod memory;
pub mod native;
pub mod paired;
pub mod pprof;
mod probe;
mod process;
pub mod quit;
pub mod real;
pub mod record;
pub mod repetition;
pub mod versions;

pub use dump::{Comparison, Difference, Dump, compare};
pub use error::{Error, Result};
pub use fixture::Fixture;
pub use matrix::{Cell, Program, Selection, Variant};
pub use probe::{binary, example, probe, stack};
pub use process::{Process, copy_program, cpu_time};
pub use repetition::Repetitions;
