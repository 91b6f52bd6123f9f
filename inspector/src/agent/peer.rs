//! Identity and rights of clients. `serve` inspects a process with the rights of its own user,
//! which often is root.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::signal::Signal;
use super::sockets::user_of;
use crate::process::sock_diag;

/// Client of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Process of this user, on this machine.
    User(u32),
    /// Client on another machine, or in another network namespace.
    Remote(IpAddr),
    /// Client on this machine that has closed its end, so that the kernel no longer knows its user.
    Gone,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::User(uid) => write!(f, "user {uid}"),
            Peer::Remote(address) => write!(f, "{address}"),
            Peer::Gone => f.write_str("somebody who has closed the connection"),
        }
    }
}

impl Peer {
    /// Finds the client at the other end of a TCP connection. The kernel knows the user of each
    /// socket of our network namespace.
    ///
    /// # Errors
    /// Returns the error of the kernel if it cannot be asked.
    pub(super) fn of_tcp(ours: SocketAddr, theirs: SocketAddr) -> io::Result<Self> {
        let (ours, theirs) = (canonical(ours), canonical(theirs));
        // A kernel without tcp_diag, or one that cannot load it, reports no such connection; its
        // tables have it.
        let asked = sock_diag::user_of_connection(theirs, ours);
        let user = match asked {
            Ok(Some(uid)) => Some(uid),
            Ok(None) => in_tables(theirs, ours).unwrap_or_default(),
            Err(error) => in_tables(theirs, ours).map_err(|_| error)?,
        };
        match user {
            Some(uid) => Ok(Peer::User(uid)),
            // A client with one of our own addresses is on this machine, and has such a socket
            // while it is open.
            None if theirs.ip().is_loopback() || theirs.ip() == ours.ip() => Ok(Peer::Gone),
            None => Ok(Peer::Remote(theirs.ip())),
        }
    }
}

/// User id of one end of a connection from /proc/thread-self/net (proc(5)), in the network
/// namespace of this thread.
fn in_tables(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    for table in ["tcp", "tcp6"] {
        match std::fs::read(format!("/proc/thread-self/net/{table}")) {
            Ok(table) => match user_of(&table, local, remote) {
                None => {}
                found => return Ok(found),
            },
            // The kernel may have no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Unmaps an IPv4-mapped IPv6 address. An IPv4 connection to an IPv6 socket has mapped addresses
/// only at our end.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Rights of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Requests that read, or that stop the process for moments (tiers 0 to 2).
    Look,
    /// All requests: also those that change the process, sample it for long, or copy the program.
    All,
}

impl Rights {
    /// Returns true if these rights include a request.
    pub fn include(self, signal: Signal) -> bool {
        match signal {
            Signal::Version | Signal::StackTrace | Signal::MemStats | Signal::Stats | Signal::HeapProfile => {
                true
            }
            _ => self == Rights::All,
        }
    }
}

/// Reason why a client may ask nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The client is another user of this machine.
    #[error("user {uid} may not ask: only user {own} and root may, and those that --allow-uid names")]
    User {
        /// User id of the client.
        uid: u32,
        /// User id of the server.
        own: u32,
    },
    /// The client is on another machine.
    #[error("{0} may not ask: only this machine may, without --allow-remote")]
    Remote(IpAddr),
    /// The client is unknown.
    #[error("nobody knows who asked: the connection was closed too early")]
    Gone,
}

/// Policy that decides on the rights of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// User id of the server.
    pub own: u32,
    /// Further users who may ask.
    pub users: BTreeSet<u32>,
    /// True if clients on other machines may ask.
    pub remote: bool,
    /// True if these other clients have all rights.
    pub changes: bool,
}

impl Policy {
    /// Rights of a client.
    ///
    /// # Errors
    /// Returns [`Stranger`] if the client has no rights.
    pub fn rights(&self, peer: Peer) -> Result<Rights, Stranger> {
        let guest = if self.changes { Rights::All } else { Rights::Look };
        match peer {
            Peer::User(uid) if self.is_owner(peer) || self.users.contains(&uid) => {
                Ok(if self.is_owner(peer) { Rights::All } else { guest })
            }
            Peer::Remote(_) if self.remote => Ok(guest),
            Peer::User(uid) => Err(Stranger::User { uid, own: self.own }),
            Peer::Remote(address) => Err(Stranger::Remote(address)),
            Peer::Gone => Err(Stranger::Gone),
        }
    }

    /// Returns true if the client is root or the server's own user.
    pub fn is_owner(&self, peer: Peer) -> bool {
        matches!(peer, Peer::User(uid) if uid == 0 || uid == self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_what() {
        let mut policy = Policy { own: 1000, users: BTreeSet::from([1001]), remote: false, changes: false };
        let remote = Peer::Remote("192.0.2.1".parse().unwrap());
        assert_eq!(policy.rights(Peer::User(0)), Ok(Rights::All));
        assert_eq!(policy.rights(Peer::User(1000)), Ok(Rights::All));
        assert_eq!(policy.rights(Peer::User(1001)), Ok(Rights::Look));
        assert_eq!(policy.rights(Peer::User(1002)), Err(Stranger::User { uid: 1002, own: 1000 }));
        assert!(policy.rights(remote).is_err() && policy.rights(Peer::Gone).is_err());
        policy.remote = true;
        assert_eq!(policy.rights(remote), Ok(Rights::Look));
        policy.changes = true;
        assert_eq!(
            (policy.rights(remote), policy.rights(Peer::User(1001))),
            (Ok(Rights::All), Ok(Rights::All))
        );
        assert!(policy.rights(Peer::Gone).is_err() && policy.rights(Peer::User(1002)).is_err());
    }

    #[test]
    fn rights_to_look() {
        for signal in
            [Signal::Gc, Signal::SetGcPercent, Signal::BinaryDump, Signal::CpuProfile, Signal::Trace]
        {
            assert!(!Rights::Look.include(signal) && Rights::All.include(signal), "{signal:?}");
        }
        assert!(Rights::Look.include(Signal::StackTrace) && Rights::Look.include(Signal::HeapProfile));
    }

    #[test]
    fn own_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, theirs) = listener.accept().unwrap();
        let peer = || Peer::of_tcp(stream.local_addr().unwrap(), theirs).unwrap();
        assert_eq!(peer(), Peer::User(rustix::process::geteuid().as_raw()));
        // The kernel assigns sockets that no process has any more to root.
        drop(client);
        assert_eq!(peer(), Peer::Gone);
    }
}
