//! Translation of errors of the runtime, the memory and stops to the error that the user gets.

use crate::process::Process;
use crate::runtime::buckets::BucketsError;
use crate::runtime::memstats::TakeError;
use crate::runtime::open::OpenError;
use crate::runtime::record::RecordError;
use crate::runtime::snapshot::SnapshotError;
use crate::runtime::snapshot::glist::GListError;
use crate::runtime::source::SourceError;
use crate::{Error, standstill};

/// Translation of errors of attaching to a runtime.
impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Process(error) => error.into(),
            OpenError::Unclear(what) => Error::Usage(what),
            OpenError::TooMuch { pid, what } => Error::Uncalibrated { pid, what },
            OpenError::Attach { pid, error, notes } => {
                let known = notes.evidence.iter().map(ToString::to_string).collect();
                Error::Unattached { pid, what: error.to_string(), known, unknown: notes.unknown }
            }
        }
    }
}

/// Translates an error of taking a snapshot of all goroutines.
pub(crate) fn snapshot_error(process: &Process, error: SnapshotError) -> Error {
    match error {
        SnapshotError::Memory(e) | SnapshotError::List(GListError::Memory(e)) => {
            process.explain_memory(e).into()
        }
        SnapshotError::Stop(e) => standstill::error(process, e),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}

/// Translates an error of reading the runtime's numbers, during a stop or without one.
pub(crate) fn take_error(process: &Process, error: TakeError) -> Error {
    match error {
        TakeError::Source(error) => source_error(process, error),
        TakeError::Stop(error) => standstill::error(process, error),
    }
}

/// Translates an error of finding or reading the variables of an answer.
pub(crate) fn source_error(process: &Process, error: SourceError) -> Error {
    if let Err(gone) = process.check() {
        return gone.into();
    }
    match error {
        SourceError::Memory(error) => process.explain_memory(error).into(),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}

/// Translates an error of reading the tables of profiles.
pub(crate) fn buckets_error(process: &Process, error: BucketsError) -> Error {
    match error {
        BucketsError::Memory(e) => process.explain_memory(e).into(),
        BucketsError::Record(e) => record_error(process, e),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}

/// Translates an error of reading a record of the runtime.
pub(crate) fn record_error(process: &Process, error: RecordError) -> Error {
    match error {
        RecordError::Memory(e) => process.explain_memory(e).into(),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}
