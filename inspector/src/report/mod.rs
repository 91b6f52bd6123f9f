//! What answers look like: serde types for JSON, and the text that people and other tools read.
//!
//! The JSON is versioned by [`SCHEMA`] and described in `docs/schema`. Addresses are strings of hexadecimal digits with
//! `0x`; what is unknown is absent.

pub mod list;
pub mod printable;
pub mod stack;
pub mod traceback;
pub mod version;

/// Version of the JSON answers. It changes when a field goes away or changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;
