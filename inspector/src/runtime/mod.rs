//! The Go runtime seen from outside.
