//! Connections to agents, in the network namespace in which they listen.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::find::{Endpoint, find};
use super::{Address, Error};
use crate::process::Process;

/// Maximum time to connect. A loopback address answers at once; an unreachable machine would take
/// as long as the user waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connection to an agent, before the request.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: TcpStream,
    /// Name of the remote end, for messages.
    pub(super) peer: String,
}

impl Connection {
    /// Connects to the agent of a process.
    ///
    /// # Errors
    /// Returns the reason why there is no agent that can be trusted, or no connection to it.
    pub fn to_process(process: &Process) -> Result<Self, Error> {
        let endpoint = find(process)?;
        let connection = Self::to_endpoint(process, &endpoint)?;
        // Still the same socket, so we are connected to the process.
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

    /// Connects to an address. The remote end is taken for an agent; nothing could prove it.
    ///
    /// # Errors
    /// Returns [`Error::Resolve`] or [`Error::Connect`].
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

    /// Name of the remote end, for messages.
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
