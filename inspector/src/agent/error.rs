//! Errors of agents, and of programs that claim to be one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::port_file::Problem;
use crate::printable::printable_str;
use crate::process::Pid;
use crate::process::access::more_rights;

/// Reason why an agent gives no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process has no port file.
    #[error("process {pid} has no gops agent: there is no port file ({})", places(looked))]
    None {
        /// Process id.
        pid: Pid,
        /// Paths at which the port file was looked for.
        looked: Vec<PathBuf>,
        /// True if the process's environment could not be read, so the file may be elsewhere.
        blind: bool,
    },
    /// The port file holds no port.
    #[error("process {pid} has no gops agent: {} {problem}", shown(path))]
    PortFile {
        /// Process id.
        pid: Pid,
        /// Path of the port file.
        path: PathBuf,
        /// Defect of the file.
        problem: Problem,
    },
    /// No socket listens on the port.
    #[error(
        "process {pid} has no gops agent: nobody listens on port {port}, which {} names{}",
        shown(path), if *earlier { "; an earlier process with this pid wrote it" } else { "" }
    )]
    Stale {
        /// Process id.
        pid: Pid,
        /// Path of the port file.
        path: PathBuf,
        /// Port in the file.
        port: u16,
        /// True if the file was written before the process began.
        earlier: bool,
    },
    /// Another process listens on the port.
    #[error(
        "port {port}, which {} names, is not of process {pid}: {} listens there{}",
        shown(path), named(owner), if *earlier { "; an earlier process with this pid wrote the file" } else { "" }
    )]
    Impostor {
        /// Process id.
        pid: Pid,
        /// Path of the port file.
        path: PathBuf,
        /// Port in the file.
        port: u16,
        /// Process that listens on the port, if it is known.
        owner: Option<(Pid, String)>,
        /// True if the file was written before the process began.
        earlier: bool,
    },
    /// Another socket waits for the same connections.
    #[error(
        "port {port} of process {pid} is shared with another socket: the kernel chooses who gets a connection"
    )]
    Shared {
        /// Process id.
        pid: Pid,
        /// Port number.
        port: u16,
    },
    /// The owner of the listening socket cannot be seen.
    #[error("the agent of process {pid} cannot be confirmed: who listens on port {port} may not be seen")]
    Unconfirmed {
        /// Process id.
        pid: Pid,
        /// Port number.
        port: u16,
    },
    /// The network namespace of the process cannot be entered.
    #[error("cannot enter the network namespace of process {pid}: {source}")]
    Namespace {
        /// Process id.
        pid: Pid,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The host name cannot be resolved.
    #[error("cannot find {peer}: {source}")]
    Resolve {
        /// Address as given.
        peer: String,
        /// Error of the resolver.
        source: io::Error,
    },
    /// The connection failed.
    #[error("cannot connect to {peer}: {source}")]
    Connect {
        /// Name of the remote end.
        peer: String,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The connection broke before data arrived.
    #[error("{peer} broke the connection: {source}")]
    Broken {
        /// Name of the remote end.
        peer: String,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The agent sent nothing in time.
    #[error("{peer} did not answer within {} s", .after.as_secs_f64())]
    Silent {
        /// Name of the remote end.
        peer: String,
        /// Time that was waited.
        after: Duration,
    },
    /// The agent closed the connection without an answer.
    #[error("{peer} closed the connection without an answer")]
    Empty {
        /// Name of the remote end.
        peer: String,
    },
    /// The received data are no valid answer.
    #[error("{peer} did not answer with {expected}, but with {}", printable_str(begins))]
    Garbage {
        /// Name of the remote end.
        peer: String,
        /// Expected kind of answer.
        expected: &'static str,
        /// Start of the received data.
        begins: String,
    },
    /// Received data could not be passed on.
    #[error(transparent)]
    Sink(io::Error),
}

impl Error {
    /// Returns true if the kernel denied access.
    pub fn is_denied(&self) -> bool {
        match self {
            Error::Unconfirmed { .. } => true,
            Error::Namespace { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::PortFile { problem, .. } => *problem == Problem::Denied,
            _ => false,
        }
    }

    /// Remedy for this error.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::None { blind: true, .. } => {
                format!(
                    "its environment may not be read, so its port file may be elsewhere: {}, set GOPS_CONFIG_DIR, or name \
                     the agent's address: HOST:PORT",
                    more_rights()
                )
            }
            Error::None { .. } => {
                "an agent is part of the program (github.com/google/gops/agent); if it has one \
                                   with another directory, set GOPS_CONFIG_DIR or name its address: HOST:PORT"
                    .to_owned()
            }
            Error::Stale { path, .. } => format!("nothing needs {} any more", shown(path)),
            Error::Impostor { port, .. } => {
                format!("if that is what you want to ask, name its address: 127.0.0.1:{port}")
            }
            Error::Unconfirmed { .. } | Error::Namespace { .. } => more_rights().to_owned(),
            Error::PortFile { problem: Problem::Denied, .. } => more_rights().to_owned(),
            Error::Silent { .. } => {
                "an agent serves one connection after the other, and a CPU profile takes 30 s; \
                                     --timeout waits longer"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

fn shown(path: &std::path::Path) -> String {
    printable_str(&path.to_string_lossy()).into_owned()
}

fn places(looked: &[PathBuf]) -> String {
    match looked {
        [] => "no directory to look into is known".to_owned(),
        _ => looked.iter().map(|p| shown(p)).collect::<Vec<_>>().join(", "),
    }
}

fn named(owner: &Option<(Pid, String)>) -> String {
    match owner {
        Some((pid, name)) => format!("process {pid} ({})", printable_str(name)),
        None => "another process".to_owned(),
    }
}
