//! What goes wrong while building, driving or comparing fixtures.

use std::path::PathBuf;
use std::time::Duration;

/// An error of the harness.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed:\n{stderr}")]
    Failed {
        /// The command line.
        program: String,
        /// What it wrote on stderr.
        stderr: String,
    },
    /// There is no such selection of cells.
    #[error("GOPS_PROBE_MATRIX={0} is none of quick, spread and full")]
    Selection(String),
    /// A fixture was not built yet.
    #[error("{0} is not built: run `cargo run -p gops-probe-tests --bin fixtures -- build`")]
    NotBuilt(PathBuf),
    /// A built file is not the ELF executable that an edit needs.
    #[error("{path} cannot be edited: {reason}")]
    Edit {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// A fixture did not answer in time.
    #[error("process {pid} gave no answer to {question:?} within {limit:?}; stderr: {stderr}")]
    NoAnswer {
        /// The process.
        pid: u32,
        /// The command that it was asked.
        question: String,
        /// How long it was waited for.
        limit: Duration,
        /// What the process wrote on stderr.
        stderr: String,
    },
    /// A fixture ended, or closed its stdout, when it should have answered.
    #[error("process {pid} ended instead of answering {question:?}; stderr: {stderr}")]
    Ended {
        /// The process.
        pid: u32,
        /// The command that it was asked.
        question: String,
        /// What the process wrote on stderr.
        stderr: String,
    },
    /// A fixture answered something else than the protocol says.
    #[error("process {pid} answered {question:?} with {answer:?}")]
    BadAnswer {
        /// The process.
        pid: u32,
        /// The command that it was asked.
        question: String,
        /// The line that it answered.
        answer: String,
    },
    /// A program's HTTP server did not answer, or with a failure.
    #[error("{url}: {source}")]
    Http {
        /// What was asked for.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// A record of results is not readable.
    #[error("{path}, line {line}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A task of a target was left traced or stopped.
    #[error("process {pid} was touched: {what}")]
    Touched {
        /// The process.
        pid: u32,
        /// What was found.
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
