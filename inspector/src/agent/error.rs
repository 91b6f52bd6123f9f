//! What can be wrong with an agent, or with what claims to be one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::port_file::Problem;
use crate::printable::printable_str;
use crate::process::Pid;
use crate::process::access::more_rights;

/// Why an agent gives no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No port file.
    #[error("process {pid} has no gops agent: there is no port file ({})", places(looked))]
    None {
        /// The process.
        pid: Pid,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// Its environment and root directory could not be seen, so there may be one elsewhere.
        blind: bool,
    },
    /// The port file gives no port.
    #[error("process {pid} has no gops agent: {} {problem}", shown(path))]
    PortFile {
        /// The process.
        pid: Pid,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Nobody listens there.
    #[error(
        "process {pid} has no gops agent: nobody listens on port {port}, which {} names{}",
        shown(path), if *earlier { "; an earlier process with this pid wrote it" } else { "" }
    )]
    Stale {
        /// The process.
        pid: Pid,
        /// The port file.
        path: PathBuf,
        /// The port in it.
        port: u16,
        /// It was written before the process began.
        earlier: bool,
    },
    /// Another process listens there.
    #[error(
        "port {port}, which {} names, is not of process {pid}: {} listens there{}",
        shown(path), named(owner), if *earlier { "; an earlier process with this pid wrote the file" } else { "" }
    )]
    Impostor {
        /// The process.
        pid: Pid,
        /// The port file.
        path: PathBuf,
        /// The port in it.
        port: u16,
        /// Whose the port is.
        owner: Option<(Pid, String)>,
        /// It was written before the process began.
        earlier: bool,
    },
    /// Another socket waits for the same connections.
    #[error(
        "port {port} of process {pid} is shared with another socket: the kernel chooses who gets a connection"
    )]
    Shared {
        /// The process.
        pid: Pid,
        /// The port.
        port: u16,
    },
    /// Who listens there cannot be seen.
    #[error("the agent of process {pid} cannot be confirmed: who listens on port {port} may not be seen")]
    Unconfirmed {
        /// The process.
        pid: Pid,
        /// The port.
        port: u16,
    },
    /// No way into its network namespace.
    #[error("cannot enter the network namespace of process {pid}: {source}")]
    Namespace {
        /// The process.
        pid: Pid,
        /// What the kernel said.
        source: io::Error,
    },
    /// The name of a host means nothing.
    #[error("cannot find {peer}: {source}")]
    Resolve {
        /// The address.
        peer: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection.
    #[error("cannot connect to {peer}: {source}")]
    Connect {
        /// The address.
        peer: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke before anything came.
    #[error("{peer} broke the connection: {source}")]
    Broken {
        /// Who.
        peer: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says nothing.
    #[error("{peer} did not answer within {} s", .after.as_secs_f64())]
    Silent {
        /// Who.
        peer: String,
        /// How long that was waited for.
        after: Duration,
    },
    /// It closed the connection without an answer.
    #[error("{peer} closed the connection without an answer")]
    Empty {
        /// Who.
        peer: String,
    },
    /// What came is no such answer.
    #[error("{peer} did not answer with {expected}, but with {}", printable_str(begins))]
    Garbage {
        /// Who.
        peer: String,
        /// What was to come.
        expected: &'static str,
        /// How it begins.
        begins: String,
    },
    /// What came could not be passed on.
    #[error(transparent)]
    Sink(io::Error),
}

impl Error {
    /// Whether the kernel does not let us.
    pub fn is_denied(&self) -> bool {
        match self {
            Error::Unconfirmed { .. } => true,
            Error::Namespace { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::PortFile { problem, .. } => *problem == Problem::Denied,
            _ => false,
        }
    }

    /// What to do about it.
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
