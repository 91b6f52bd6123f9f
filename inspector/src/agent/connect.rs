//! Connections to agents, in the network namespace where they listen.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::find::{Endpoint, find};
use super::{Address, Error};
use crate::process::Process;

/// A loopback answers at once; a machine that is far away or gone takes as long as the user has patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to an agent, on which nothing was asked yet.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: TcpStream,
    /// Whom it leads to, for people.
    pub(super) peer: String,
}

impl Connection {
    /// Connects to the agent of a process.
    ///
    /// # Errors
    /// Why there is none that can be trusted, or no connection to it.
    pub fn to_process(process: &Process) -> Result<Self, Error> {
        let endpoint = find(process)?;
        let connection = Self::to_endpoint(process, &endpoint)?;
        // Still the same socket: what we connected to is the process's.
        let again = find(process)?;
        if again.listener == endpoint.listener {
            Ok(connection)
        } else {
            Err(Error::Stale {
                pid: process.pid(),
                path: endpoint.port_file,
                port: endpoint.listener.address.port(),
                earlier: false,
            })
        }
    }

    fn to_endpoint(process: &Process, endpoint: &Endpoint) -> Result<Self, Error> {
        let pid = process.pid();
        let address = endpoint.listener.reach();
        let peer = format!("the agent of process {pid} ({address})");
        let connected = process
            .in_network_namespace(|| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT))
            .map_err(|source| Error::Namespace { pid, source })?;
        match connected {
            Ok(stream) => Ok(Connection { stream, peer }),
            Err(source) => Err(Error::Connect { peer, source }),
        }
    }

    /// Connects to an address. What answers there is believed to be an agent: nothing could prove it.
    ///
    /// # Errors
    /// [`Error::Resolve`], [`Error::Connect`].
    pub fn to_address(address: &Address) -> Result<Self, Error> {
        let peer = address.to_string();
        let addresses = match address.resolve() {
            Ok(addresses) => addresses,
            Err(source) => return Err(Error::Resolve { peer, source }),
        };
        match first_that_answers(&addresses) {
            Ok(stream) => Ok(Connection { stream, peer }),
            Err(source) => Err(Error::Connect { peer, source }),
        }
    }

    /// Whom it leads to, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

fn first_that_answers(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}
