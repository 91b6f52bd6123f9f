//! Why numbers of a runtime cannot be had.

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
