//! Kernel side of gops-probe: BPF programs, their loader and record types.
//!
//! Folder `bpf/` has the programs in C. Folder `prebuilt/` has the objects that `scripts/build-bpf` makes of
//! them, so building this crate needs no BPF compiler. Nothing is pinned: loaded programs and attachments end
//! with their file descriptors, however this process ends.

#![warn(missing_docs)]

pub mod cpu;
mod error;
mod loader;
pub mod records;

pub use error::Error;
