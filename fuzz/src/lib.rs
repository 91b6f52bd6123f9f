//! Hostile input: what the fuzz targets do with their bytes.
//!
//! Each module has a `run` that takes arbitrary bytes. `scripts/fuzz` drives it with coverage, and `tests/replay.rs`
//! drives it with the kept corpus and seeded mutations of that. A finding is a panic (arithmetic
//! that overflows included), a hang, or an allocation beyond the limits.
//!
//! Real programs have so many parts that must fit together that random bytes never get far. So most targets begin with
//! a small Go program ([`base`]) and let the bytes say what to change in it.

#![forbid(unsafe_code)]

pub mod agent;
pub mod base;
pub mod buckets;
pub mod buildinfo;
pub mod goroutines;
pub mod image;
pub mod input;
pub mod layouts;
pub mod memstats;
pub mod native;
pub mod proc;
pub mod program;
pub mod reasons;
pub mod recipes;
pub mod unwind;

/// A target's name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("image", image::run),
    ("program", program::run),
    ("layouts", layouts::run),
    ("recipes", recipes::run),
    ("proc", proc::run),
    ("unwind", unwind::run),
    ("goroutines", goroutines::run),
    ("buckets", buckets::run),
    ("buildinfo", buildinfo::run),
    ("reasons", reasons::run),
    ("agent", agent::run),
    ("memstats", memstats::run),
    ("native", native::run),
];
