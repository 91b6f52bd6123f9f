//! The `gops-probe` program.

fn main() {}
