//! Where the time of CPUs goes: samples of threads that run, with their stacks.
//!
//! A [`source::Source`] gives samples as the kernel took them; what they mean is found here, whoever took them.

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
