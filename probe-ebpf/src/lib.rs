//! The kernel side of gops-probe: BPF programs, their loader and record types.

#![warn(missing_docs)]
