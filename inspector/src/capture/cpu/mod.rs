//! CPU samples: stacks of running threads.
//!
//! A [`source::Source`] returns samples as the kernel took them. The code here interprets them in the same
//! way for every source.

pub mod bpf;
mod choice;
pub mod collect;
pub mod join;
pub mod known;
pub mod mode;
pub mod perf;
mod privileges;
pub mod profile;
mod programs;
pub mod ptrace;
pub mod session;
pub mod source;
pub mod work;
