//! Errors of building, driving or comparing fixtures.

use std::path::PathBuf;
use std::time::Duration;

/// Error of the harness.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Name of the program.
        program: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed:\n{stderr}")]
    Failed {
        /// Command line of the program.
        program: String,
        /// Text that the program wrote on stderr.
        stderr: String,
    },
    /// The selection of cells does not exist.
    #[error("GOPS_PROBE_MATRIX={0} is none of quick, spread and full")]
    Selection(String),
    /// A fixture was not built yet.
    #[error("{0} is not built: run `cargo run -p gops-probe-tests --bin fixtures -- build`")]
    NotBuilt(PathBuf),
    /// A built file is not the ELF executable that an edit needs.
    #[error("{path} cannot be edited: {reason}")]
    Edit {
        /// Path of the file.
        path: PathBuf,
        /// Missing part of the file.
        reason: &'static str,
    },
    /// A fixture did not answer in time.
    #[error("process {pid} gave no answer to {question:?} within {limit:?}; stderr: {stderr}")]
    NoAnswer {
        /// Pid of the process.
        pid: u32,
        /// Command that was sent.
        question: String,
        /// Time that was waited.
        limit: Duration,
        /// Text that the process wrote on stderr.
        stderr: String,
    },
    /// A fixture ended, or closed its stdout, when it should have answered.
    #[error("process {pid} ended instead of answering {question:?}; stderr: {stderr}")]
    Ended {
        /// Pid of the process.
        pid: u32,
        /// Command that was sent.
        question: String,
        /// Text that the process wrote on stderr.
        stderr: String,
    },
    /// A fixture gave an answer that the protocol does not allow.
    #[error("process {pid} answered {question:?} with {answer:?}")]
    BadAnswer {
        /// Pid of the process.
        pid: u32,
        /// Command that was sent.
        question: String,
        /// Line that was received.
        answer: String,
    },
    /// A program's HTTP server did not answer, or answered with a failure.
    #[error("{url}: {source}")]
    Http {
        /// Requested URL.
        url: String,
        /// Error of the request.
        source: Box<ureq::Error>,
    },
    /// A record of results cannot be read.
    #[error("{path}, line {line}: {source}")]
    Record {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// A task of a target was left traced or stopped.
    #[error("process {pid} was touched: {what}")]
    Touched {
        /// Pid of the process.
        pid: u32,
        /// Description of the violation.
        what: String,
    },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Result of the harness.
pub type Result<T> = std::result::Result<T, Error>;
