//! Captures: what a process does over a while.

pub mod cpu;
