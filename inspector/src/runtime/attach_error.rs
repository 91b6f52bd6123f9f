//! Errors of attaching to a process.

use symbols::pclntab::PclntabError;
use symbols::version::OLDEST_MINOR;

use super::fields::MissingField;
use super::view::Evidence;
use crate::memory::MemoryError;

/// Reason why the Go runtime of a process cannot be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No Go module was found in the process.
    #[error("no Go runtime was found in it")]
    NotGo,
    /// The Go release is older than the first supported one.
    #[error("it was built with {0}; supported are Go 1.{OLDEST_MINOR} and later")]
    TooOld(String),
    /// The program is built for another architecture.
    #[error("it is a program for another architecture; supported is amd64")]
    Architecture,
    /// The pclntab of the program is damaged.
    #[error(transparent)]
    Pclntab(#[from] PclntabError),
    /// Memory contents differ from the executable file.
    #[error("its memory does not hold what its file says (packed, or changed at run time): {0}")]
    Different(String),
    /// No known layout fits the memory.
    #[error("no known layout of {version} fits what is in its memory ({why})")]
    NothingCalibrates {
        /// Go version of the program, as far as known.
        version: String,
        /// Check that failed.
        why: String,
    },
    /// A layout table lacks a needed field.
    #[error(transparent)]
    Layout(#[from] MissingField),
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Notes collected before attaching failed.
#[derive(Debug, Default)]
pub struct AttachNotes {
    /// Findings and the evidence for each.
    pub evidence: Vec<Evidence>,
    /// Items that were searched for and not found.
    pub unknown: Vec<String>,
}
