//! Where the time of CPUs goes: samples of threads that run, with their stacks.
//!
//! A [`source::Source`] gives samples as the kernel took them; what they mean is found here, whoever took them.

pub mod source;
