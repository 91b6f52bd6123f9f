//! The Go runtime seen from outside.

pub mod arch;
pub mod attach;
pub mod batch;
pub mod calibrate;
pub mod code;
pub mod discover;
pub mod fields;
pub mod goroutine;
pub mod heap;
pub mod histogram;
pub mod locate;
pub mod memstats;
pub mod modules;
pub mod open;
pub mod plausible;
pub mod procs;
pub mod record;
pub mod running;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod spans;
pub mod stats;
pub mod unwind;
pub mod view;
pub mod wait_reasons;
