//! What can be wrong with a process that somebody asks about, as found by checking.

use std::io;

use symbols::image::ImageError;

use super::access::Denial;
use super::{Foreign, Pid, Process};
use crate::memory::MemoryError;

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing has this pid.
    #[error("there is no process {0}")]
    NoSuchProcess(Pid),
    /// It was there, and is gone.
    #[error("process {0} exited meanwhile")]
    Exited(Pid),
    /// Its pid now runs another program.
    #[error("process {0} executed another program meanwhile")]
    Executed(Pid),
    /// It has exited, and its parent has not collected it.
    #[error("process {0} ({1}) is a zombie: it has exited, and its parent {2} has not waited for it")]
    Zombie(Pid, String, Pid),
    /// A thread of the kernel.
    #[error("process {0} ({1}) is a kernel thread")]
    KernelThread(Pid, String),
    /// A thread of a process, and not a process.
    #[error("{0} is a thread of process {1}")]
    Thread(Pid, Pid),
    /// It has no Go code.
    #[error("process {pid} ({name}) is not a Go program: {reason}")]
    NotGo {
        /// The process.
        pid: Pid,
        /// Its name.
        name: String,
        /// What was looked for and not found.
        reason: String,
    },
    /// Its program is for a machine that is not supported.
    #[error("process {pid} ({name}) runs {what}, which is not supported")]
    Architecture {
        /// The process.
        pid: Pid,
        /// Its name.
        name: String,
        /// What it runs: a 32-bit program, a program for another machine.
        what: String,
    },
    /// Another compiler's runtime is in it.
    #[error(
        "process {pid} ({name}) is a Go program built with gccgo, whose runtime differs from that of Go's own compiler and is \
         not supported"
    )]
    GccGo {
        /// The process.
        pid: Pid,
        /// Its name.
        name: String,
    },
    /// Its Go release is older than any that is supported.
    #[error("process {pid} was built by {version}; only go1.18 and later are supported")]
    TooOld {
        /// The process.
        pid: Pid,
        /// What built it.
        version: String,
    },
    /// Another process traces it, and there can be only one.
    #[error("process {pid} is traced by process {tracer} ({tracer_name})")]
    Traced {
        /// The process.
        pid: Pid,
        /// Who traces it.
        tracer: Pid,
        /// The tracer's name.
        tracer_name: String,
    },
    /// The kernel does not let us.
    #[error("cannot {action} of process {pid}: {denial}")]
    Denied {
        /// The process.
        pid: Pid,
        /// What was tried, such as "open the executable".
        action: &'static str,
        /// Why not.
        denial: Denial,
    },
    /// Anything else.
    #[error("cannot {action} of process {pid}: {source}")]
    Io {
        /// The process.
        pid: Pid,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is needed of its memory is not there.
    #[error("process {pid}: {error}")]
    Memory {
        /// The process.
        pid: Pid,
        /// What is missing, or what the kernel said.
        error: MemoryError,
    },
    /// Nothing fits what was asked for.
    #[error("no Go process matches {wanted}{}", unreadable_remark(*.unreadable))]
    NoMatch {
        /// What was asked for, in words.
        wanted: String,
        /// How many processes fit, but may not be looked into.
        unreadable: usize,
        /// Why the first of those may not.
        denial: Option<Denial>,
    },
    /// More than one process fits what was asked for.
    #[error("{wanted} matches {} processes: {}", .candidates.len(), listed(.candidates))]
    Ambiguous {
        /// What was asked for, in words.
        wanted: String,
        /// Those that fit, with their names.
        candidates: Vec<(Pid, String)>,
    },
    /// There is no /proc, or it cannot be read.
    #[error("cannot read /proc: {0}")]
    Proc(#[source] io::Error),
    /// What is mounted at /proc numbers processes otherwise than system calls do.
    #[error("{0}; nothing is looked at, and nothing is changed")]
    ForeignProc(Foreign),
    /// /proc and system calls mean different processes by one number.
    #[error(
        "/proc/{0} is not the process that system calls reach by the number {0}: something is mounted over it"
    )]
    Mismatch(Pid),
}

/// The name of other processes of this program.
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
    /// It is no Go process, and that is why.
    pub(crate) fn not_go(&self, reason: impl Into<String>) -> Error {
        Error::NotGo { pid: self.pid(), name: self.name().to_owned(), reason: reason.into() }
    }

    /// Its executable is no image that can be looked at.
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
    /// What to do about it.
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
