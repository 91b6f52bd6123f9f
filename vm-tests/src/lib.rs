//! Boots real kernels and runs the probes there.

#![warn(missing_docs)]
