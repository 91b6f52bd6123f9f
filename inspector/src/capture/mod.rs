//! Captures of the activity of a process over some time.

pub mod cpu;
