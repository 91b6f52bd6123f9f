//! Errors about a process, with causes found by checking.

use std::io;

use symbols::image::ImageError;

use super::access::Denial;
use super::{Foreign, Pid, Process};
use crate::memory::MemoryError;

/// Reason why a process cannot be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No process has this pid.
    #[error("there is no process {0}")]
    NoSuchProcess(Pid),
    /// The process existed, and has exited.
    #[error("process {0} exited meanwhile")]
    Exited(Pid),
    /// The process now runs another program.
    #[error("process {0} executed another program meanwhile")]
    Executed(Pid),
    /// The process has exited, and its parent has not waited for it.
    #[error("process {0} ({1}) is a zombie: it has exited, and its parent {2} has not waited for it")]
    Zombie(Pid, String, Pid),
    /// The pid belongs to a kernel thread.
    #[error("process {0} ({1}) is a kernel thread")]
    KernelThread(Pid, String),
    /// The id belongs to a thread, not to a process.
    #[error("{0} is a thread of process {1}")]
    Thread(Pid, Pid),
    /// The process has no Go code.
    #[error("process {pid} ({name}) is not a Go program: {reason}")]
    NotGo {
        /// Process id.
        pid: Pid,
        /// Process name.
        name: String,
        /// Description of what was looked for and not found.
        reason: String,
    },
    /// The program is for an architecture that is not supported.
    #[error("process {pid} ({name}) runs {what}, which is not supported")]
    Architecture {
        /// Process id.
        pid: Pid,
        /// Process name.
        name: String,
        /// Kind of program: a 32-bit program, a program for another architecture.
        what: String,
    },
    /// The process holds the runtime of another compiler, gccgo.
    #[error(
        "process {pid} ({name}) is a Go program built with gccgo, whose runtime differs from that of Go's own compiler and is \
         not supported"
    )]
    GccGo {
        /// Process id.
        pid: Pid,
        /// Process name.
        name: String,
    },
    /// The Go release is older than any supported one.
    #[error("process {pid} was built by {version}; only go1.18 and later are supported")]
    TooOld {
        /// Process id.
        pid: Pid,
        /// Go release that built the program.
        version: String,
    },
    /// Another process traces the process; only one tracer is possible.
    #[error("process {pid} is traced by process {tracer} ({tracer_name})")]
    Traced {
        /// Process id.
        pid: Pid,
        /// Process id of the tracer.
        tracer: Pid,
        /// Name of the tracer.
        tracer_name: String,
    },
    /// The kernel denies access.
    #[error("cannot {action} of process {pid}: {denial}")]
    Denied {
        /// Process id.
        pid: Pid,
        /// Attempted action, such as "open the executable".
        action: &'static str,
        /// Reason for the denial.
        denial: Denial,
    },
    /// Any other failure.
    #[error("cannot {action} of process {pid}: {source}")]
    Io {
        /// Process id.
        pid: Pid,
        /// Attempted action.
        action: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Needed memory of the process is not readable.
    #[error("process {pid}: {error}")]
    Memory {
        /// Process id.
        pid: Pid,
        /// Missing address, or the error of the kernel.
        error: MemoryError,
    },
    /// No process matches the request.
    #[error("no Go process matches {wanted}{}", unreadable_remark(*.unreadable))]
    NoMatch {
        /// Request, in words.
        wanted: String,
        /// Number of processes that match, but may not be inspected.
        unreadable: usize,
        /// Reason why the first of those may not be inspected.
        denial: Option<Denial>,
    },
    /// More than one process matches the request.
    #[error("{wanted} matches {} processes: {}", .candidates.len(), listed(.candidates))]
    Ambiguous {
        /// Request, in words.
        wanted: String,
        /// Matching processes, with their names.
        candidates: Vec<(Pid, String)>,
    },
    /// There is no /proc, or it cannot be read.
    #[error("cannot read /proc: {0}")]
    Proc(#[source] io::Error),
    /// The mounted /proc numbers processes differently from system calls.
    #[error("{0}; nothing is looked at, and nothing is changed")]
    ForeignProc(Foreign),
    /// /proc and system calls reach different processes by the same number.
    #[error(
        "/proc/{0} is not the process that system calls reach by the number {0}: something is mounted over it"
    )]
    Mismatch(Pid),
}

/// Process name of other runs of this program.
const OURSELVES: &str = "gops-probe";

fn unreadable_remark(unreadable: usize) -> String {
    match unreadable {
        0 => String::new(),
        1 => "; one more process matches, and may not be inspected".to_owned(),
        n => format!("; {n} more processes match, and may not be inspected"),
    }
}

fn listed(candidates: &[(Pid, String)]) -> String {
    const MOST: usize = 20;
    let mut texts: Vec<_> =
        candidates.iter().take(MOST).map(|(pid, name)| format!("{pid} ({name})")).collect();
    if candidates.len() > MOST {
        texts.push(format!("and {} more", candidates.len() - MOST));
    }
    texts.join(", ")
}

impl Process {
    /// Makes the error that this is no Go process, with the `reason`.
    pub(crate) fn not_go(&self, reason: impl Into<String>) -> Error {
        Error::NotGo { pid: self.pid(), name: self.name().to_owned(), reason: reason.into() }
    }

    /// Makes the error for an executable whose image cannot be parsed.
    pub(crate) fn unusable(&self, error: &ImageError) -> Error {
        match error {
            ImageError::BigEndian => {
                Error::Architecture { pid: self.pid(), name: self.name().to_owned(), what: error.to_string() }
            }
            _ => self.not_go(format!("its executable: {error}")),
        }
    }
}

impl Error {
    /// Remedy for this error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Denied { denial, .. } => denial.hint(),
            Error::Thread(_, process) => Some(format!("ask for process {process} instead")),
            Error::Traced { tracer, tracer_name, .. } if tracer_name == OURSELVES => {
                Some(format!("run again when that gops-probe (process {tracer}) has finished"))
            }
            Error::Traced { tracer, tracer_name, .. } => {
                Some(format!("detach {tracer_name} (process {tracer}) first"))
            }
            Error::NoMatch { denial: Some(denial), .. } => denial.hint(),
            Error::Ambiguous { .. } => Some("choose one by its pid, or give a more exact name or id".to_owned()),
            Error::NoSuchProcess(_) | Error::NoMatch { .. } | Error::NotGo { .. } => {
                Some("`gops-probe` without arguments lists the Go processes".to_owned())
            }
            Error::Memory { pid, .. } => {
                Some(format!("`gops-probe stack -v {pid}` says what is known of its runtime"))
            }
            Error::Proc(_) => Some("mount it: mount -t proc proc /proc".to_owned()),
            Error::ForeignProc(foreign) => Some(foreign.hint()),
            Error::Mismatch(_) => Some("look with a /proc of your own: unshare --mount sh -c 'mount -t proc proc /proc && exec gops-probe ...'".to_owned()),
            Error::Executed(_) => Some("ask again: the new program has the same pid".to_owned()),
            _ => None,
        }
    }
}
