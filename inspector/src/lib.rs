//! Looking at a process from outside.

#![warn(missing_docs)]
