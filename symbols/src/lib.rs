//! Facts about a Go binary: build info, pclntab, moduledata, struct layouts and the addresses of runtime
//! globals.
//!
//! Input is bytes, output is facts: no code in this crate opens a file, makes a system call or prints.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod addr;
pub mod arch;
pub mod build_id;
pub mod buildinfo;
pub mod cfi;
mod experiments;
pub mod gccgo;
pub mod globals;
pub mod image;
pub mod layout;
pub mod moduledata;
pub mod native;
pub mod pclntab;
pub mod program;
pub mod sections;
mod tables;
pub mod tls;
mod toolchain;
pub mod version;
