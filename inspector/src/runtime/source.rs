//! Why numbers of a runtime cannot be had.

use symbols::globals::Agreement;
use symbols::layout::Release;

use crate::memory::MemoryError;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A variable of the runtime was not found.
    #[error("{0} was not found in it")]
    Missing(&'static str),
    /// The layout in use lacks something.
    #[error("the layout of {0} is not known")]
    Layout(&'static str),
    /// It was built with experiments of which nobody knows what they change.
    #[error(
        "it is built with GOEXPERIMENT={experiments}, and what that changes is not known; {} of {} functions of its runtime \
         are those of {used}, too few to take its layouts for the same",
        code.same, code.present
    )]
    Experiments {
        /// Their names.
        experiments: String,
        /// The release whose layouts they are held against.
        used: Release,
        /// How alike the code is.
        code: Agreement,
    },
    /// What was read cannot be what it should.
    #[error("{0}")]
    Implausible(String),
}

impl SourceError {
    /// What was read cannot be what it should.
    pub(crate) fn implausible(what: impl Into<String>) -> Self {
        SourceError::Implausible(what.into())
    }
}
