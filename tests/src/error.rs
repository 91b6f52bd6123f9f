//! Errors of building, driving or comparing fixtures.

use std::path::PathBuf;
use std::time::Duration;

/// Error of the harness.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// File could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Program that could not be started.
        program: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Program ended with a failure.
    #[error("{program} failed:\n{stderr}")]
    Failed {
        /// Command line of the program.
        program: String,
        /// Text that the program wrote on stderr.
        stderr: String,
    },
    /// Selection of cells does not exist.
    #[error("GOPS_PROBE_MATRIX={0} is none of quick, spread and full")]
    Selection(String),
    /// Fixture was not built yet.
    #[error("{0} is not built: run `cargo run -p gops-probe-tests --bin fixtures -- build`")]
    NotBuilt(PathBuf),
    /// Built file is not the ELF executable that an edit needs.
    #[error("{path} cannot be edited: {reason}")]
    Edit {
        /// Path of the file.
        path: PathBuf,
        /// Missing part of the file.
        reason: &'static str,
    },
    /// Fixture did not answer in time.
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
    /// Fixture ended, or closed its stdout, when it should have answered.
    #[error("process {pid} ended instead of answering {question:?}; stderr: {stderr}")]
    Ended {
        /// Pid of the process.
        pid: u32,
        /// Command that was sent.
        question: String,
        /// Text that the process wrote on stderr.
        stderr: String,
    },
    /// Fixture gave an answer that the protocol does not allow.
    #[error("process {pid} answered {question:?} with {answer:?}")]
    BadAnswer {
        /// Pid of the process.
        pid: u32,
        /// Command that was sent.
        question: String,
        /// Line that was received.
        answer: String,
    },
    /// HTTP server of a program did not answer, or answered with a failure.
    #[error("{url}: {source}")]
    Http {
        /// Requested URL.
        url: String,
        /// Error of the request.
        source: Box<ureq::Error>,
    },
    /// Record of results cannot be read.
    #[error("{path}, line {line}: {source}")]
    Record {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// Task of a target was left traced or stopped.
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
