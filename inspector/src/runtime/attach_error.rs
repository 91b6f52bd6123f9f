//! Why attaching fails.

use symbols::pclntab::PclntabError;
use symbols::version::OLDEST_MINOR;

use super::fields::MissingField;
use super::view::Evidence;
use crate::memory::MemoryError;

/// Why a process's Go runtime cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No Go module was found in it.
    #[error("no Go runtime was found in it")]
    NotGo,
    /// A Go release before the first supported one.
    #[error("it was built with {0}; supported are Go 1.{OLDEST_MINOR} and later")]
    TooOld(String),
    /// Another machine.
    #[error("it is a program for another architecture; supported is amd64")]
    Architecture,
    /// Its pclntab is damaged.
    #[error(transparent)]
    Pclntab(#[from] PclntabError),
    /// What is in memory is not what the file says.
    #[error("its memory does not hold what its file says (packed, or changed at run time): {0}")]
    Different(String),
    /// No layout that is known fits.
    #[error("no known layout of {version} fits what is in its memory ({why})")]
    NothingCalibrates {
        /// The version, as far as known.
        version: String,
        /// What did not fit.
        why: String,
    },
    /// A layout table without a needed field.
    #[error(transparent)]
    Layout(#[from] MissingField),
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What was found out until attaching failed.
#[derive(Debug, Default)]
pub struct AttachNotes {
    /// How what is known is known.
    pub evidence: Vec<Evidence>,
    /// What was looked for and not found.
    pub unknown: Vec<String>,
}
