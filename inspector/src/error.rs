//! The one error that a command ends with.

use std::io;

use crate::{agent, process};

/// What kind of failure it is: each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything that has no kind of its own.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No such process, or it exited.
    NoProcess,
    /// The process is not a Go program.
    NotGo,
    /// The kernel does not let us.
    Permission,
    /// A Go release or machine that is not supported, or nothing that the answer needs could be calibrated.
    Unsupported,
    /// An answer was written, but not all of it could be had.
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

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process cannot be looked at.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Its agent, or an agent elsewhere, gives no answer.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// Only an agent can answer, and there is none.
    #[error("{command} needs a gops agent in the process: {because}")]
    NeedsAgent {
        /// What was asked.
        command: &'static str,
        /// Why there is none to be asked.
        because: String,
        /// What to do about that.
        hint: Option<String>,
    },
    /// Nothing of its runtime, or not what this answer needs, could be found and verified.
    #[error("process {pid}: {what}")]
    Uncalibrated {
        /// The process.
        pid: process::Pid,
        /// What could not be found.
        what: String,
    },
    /// Its runtime cannot be attached to: no layout of it fits, or its memory is not what its file says.
    #[error("process {pid}: {what}")]
    Unattached {
        /// The process.
        pid: process::Pid,
        /// Why not.
        what: String,
        /// What was found out until then, and how.
        known: Vec<String>,
        /// What was tried, and does not fit.
        unknown: Vec<String>,
    },
    /// What was asked for would change the process, and is not done to it in the state that it is in.
    #[error("process {pid}: {what}")]
    Refused {
        /// The process.
        pid: process::Pid,
        /// Why not.
        what: String,
        /// What to do about that.
        hint: Option<String>,
    },
    /// Its threads do not come to a stop, which what was asked for needs.
    #[error("process {pid}: {what}")]
    Standstill {
        /// The process.
        pid: process::Pid,
        /// What keeps them from it.
        what: String,
        /// What to do about that.
        hint: String,
    },
    /// The runtime keeps no such profile now, and has nothing of before.
    #[error("the {profiler} profiler of process {pid} is off: {because}")]
    ProfilerOff {
        /// The process.
        pid: process::Pid,
        /// Which one.
        profiler: &'static str,
        /// Why.
        because: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The answer could not be written.
    #[error("cannot write {to}: {source}")]
    Output {
        /// The file, or "standard output".
        to: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer is written, but incomplete.
    #[error("{0}")]
    Partial(String),
    /// The command line asks for something that does not go together.
    #[error("{0}")]
    Usage(String),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Which kind of failure it is.
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

    /// What to do about it, found by checking.
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

    /// As [`Error::hint`], for a `command` that can also answer without a stop of all threads (`--no-pause`).
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

    /// Whether the reader of our output went away, which is success.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
