//! The kernel side of gops-probe: BPF programs, their loader and record types.
//!
//! `bpf/` has the programs in C, `prebuilt/` the objects that `scripts/build-bpf` makes of them, so that building this
//! crate needs no compiler for them. Nothing is pinned: what was loaded and attached goes with its file descriptors,
//! however this process ends.

#![warn(missing_docs)]

pub mod cpu;
mod error;
mod loader;
pub mod records;

pub use error::Error;
