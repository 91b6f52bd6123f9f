//! Error type of all commands.

use std::io;

use crate::{agent, process};

/// Kind of a failure. Each kind has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Any failure without a kind of its own.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The process does not exist, or has exited.
    NoProcess,
    /// The process is not a Go program.
    NotGo,
    /// The kernel denies access.
    Permission,
    /// The Go release or machine is not supported, or nothing that the answer needs could be
    /// calibrated.
    Unsupported,
    /// An answer was written, but it is incomplete.
    Partial,
    /// The user interrupted.
    Interrupted,
}

impl ErrorKind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::NoProcess => 3,
            ErrorKind::NotGo => 4,
            ErrorKind::Permission => 5,
            ErrorKind::Unsupported => 6,
            ErrorKind::Partial => 7,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process cannot be inspected.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The agent of the process, or a remote agent, gives no answer.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// Only an agent can answer, and there is none.
    #[error("{command} needs a gops agent in the process: {because}")]
    NeedsAgent {
        /// Name of the command.
        command: &'static str,
        /// Reason why no agent can be asked.
        because: String,
        /// Remedy, if one is known.
        hint: Option<String>,
    },
    /// Nothing of the process's runtime, or not what this answer needs, could be found and
    /// verified.
    #[error("process {pid}: {what}")]
    Uncalibrated {
        /// Process id.
        pid: process::Pid,
        /// Description of what could not be found.
        what: String,
    },
    /// The process's runtime cannot be attached to: no known layout fits, or the memory does not
    /// match the file.
    #[error("process {pid}: {what}")]
    Unattached {
        /// Process id.
        pid: process::Pid,
        /// Reason.
        what: String,
        /// Facts that were found until then, with their sources.
        known: Vec<String>,
        /// Attempts that do not fit.
        unknown: Vec<String>,
    },
    /// The request would change the process, and is refused in the state that the process is in.
    #[error("process {pid}: {what}")]
    Refused {
        /// Process id.
        pid: process::Pid,
        /// Reason.
        what: String,
        /// Remedy, if one is known.
        hint: Option<String>,
    },
    /// The threads of the process do not stop, which the request needs.
    #[error("process {pid}: {what}")]
    Standstill {
        /// Process id.
        pid: process::Pid,
        /// Cause that keeps the threads from stopping.
        what: String,
        /// Remedy.
        hint: String,
    },
    /// The runtime keeps no such profile now, and has no older data of it.
    #[error("the {profiler} profiler of process {pid} is off: {because}")]
    ProfilerOff {
        /// Process id.
        pid: process::Pid,
        /// Name of the profiler.
        profiler: &'static str,
        /// Reason.
        because: String,
        /// Alternative, if there is one.
        hint: Option<String>,
    },
    /// The answer could not be written.
    #[error("cannot write {to}: {source}")]
    Output {
        /// Name of the file, or "standard output".
        to: String,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The answer is written, but incomplete.
    #[error("{0}")]
    Partial(String),
    /// The command line combines options that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Kind of this failure.
    pub fn kind(&self) -> ErrorKind {
        use process::Error as P;
        match self {
            Error::Process(e) => match e {
                P::NoSuchProcess(_) | P::Exited(_) | P::Executed(_) | P::Zombie(..) => ErrorKind::NoProcess,
                P::NoMatch { unreadable: 0, .. } => ErrorKind::NoProcess,
                P::NoMatch { .. } => ErrorKind::Permission,
                P::NotGo { .. } | P::KernelThread(..) => ErrorKind::NotGo,
                P::Denied { .. } | P::Traced { .. } => ErrorKind::Permission,
                P::Architecture { .. } | P::GccGo { .. } | P::TooOld { .. } | P::Memory { .. } => {
                    ErrorKind::Unsupported
                }
                P::Thread(..) | P::Ambiguous { .. } => ErrorKind::Usage,
                P::Io { .. } | P::Proc(_) | P::ForeignProc(_) | P::Mismatch(_) => ErrorKind::Failed,
            },
            Error::Agent(e) if e.is_denied() => ErrorKind::Permission,
            Error::Uncalibrated { .. } | Error::Unattached { .. } => ErrorKind::Unsupported,
            Error::Partial(_) => ErrorKind::Partial,
            Error::Usage(_) => ErrorKind::Usage,
            Error::Interrupted => ErrorKind::Interrupted,
            Error::Agent(_)
            | Error::NeedsAgent { .. }
            | Error::Refused { .. }
            | Error::Standstill { .. }
            | Error::ProfilerOff { .. }
            | Error::Output { .. }
            | Error::Failed(_) => ErrorKind::Failed,
        }
    }

    /// Remedy for this failure, found by checking.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Process(e) => e.hint(),
            Error::Agent(e) => e.hint(),
            Error::NeedsAgent { hint, .. }
            | Error::Refused { hint, .. }
            | Error::ProfilerOff { hint, .. } => hint.clone(),
            Error::Standstill { hint, .. } => Some(hint.clone()),
            Error::Output { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
                Some("the disk is full; write elsewhere with -o FILE".to_owned())
            }
            Error::Unattached { known, unknown, .. } if !(known.is_empty() && unknown.is_empty()) => {
                Some("run again with -v to see what was looked for".to_owned())
            }
            Error::Uncalibrated { pid, .. } => {
                Some(format!("`gops-probe stack -v {pid}` says what is known of its runtime"))
            }
            _ => None,
        }
    }

    /// Remedy as in [`Error::hint`], for a `command` that can also answer without a stop of all
    /// threads (`--no-pause`).
    pub fn hint_for(&self, command: Option<&str>) -> Option<String> {
        let pid = match self {
            Error::Standstill { pid, .. } | Error::Process(process::Error::Traced { pid, .. }) => *pid,
            _ => return self.hint(),
        };
        let unpaused = command.map(|command| {
            format!("answer without a stop of all threads: gops-probe {command} --no-pause {pid}")
        });
        let ways: Vec<String> = self.hint().into_iter().chain(unpaused).collect();
        (!ways.is_empty()).then(|| ways.join("; or "))
    }

    /// Returns true if the reader of our output closed the pipe, which counts as success.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
