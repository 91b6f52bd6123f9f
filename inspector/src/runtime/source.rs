//! Errors of reading numbers of a runtime.

use symbols::globals::Agreement;
use symbols::layout::Release;

use crate::memory::MemoryError;

/// Reason why numbers of a runtime are unavailable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A variable of the runtime was not found.
    #[error("{0} was not found in it")]
    Missing(&'static str),
    /// The layout in use lacks a struct or a field.
    #[error("the layout of {0} is not known")]
    Layout(&'static str),
    /// The program was built with experiments of unknown effect on layouts.
    #[error(
        "it is built with GOEXPERIMENT={experiments}, and what that changes is not known; {} of {} functions of its runtime \
         are those of {used}, too few to take its layouts for the same",
        code.same, code.present
    )]
    Experiments {
        /// Names of the experiments.
        experiments: String,
        /// Release that supplies the layouts.
        used: Release,
        /// Agreement of the runtime's code with that release.
        code: Agreement,
    },
    /// The values read are implausible.
    #[error("{0}")]
    Implausible(String),
}

impl SourceError {
    /// Creates a [`SourceError::Implausible`].
    pub(crate) fn implausible(what: impl Into<String>) -> Self {
        SourceError::Implausible(what.into())
    }
}
