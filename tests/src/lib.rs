//! Harness of the integration tests.

#![warn(missing_docs)]
