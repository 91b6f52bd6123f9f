//! Sockets of a process: sock_diag(7) and /proc/PID/net (proc(5)), restricted to the open files of
//! the process.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sock_diag::{States, TcpSocket};
use super::{Error, Process};

/// Protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp,
    /// UDP over IPv6.
    Udp6,
    /// Unix socket, with its type (`SOCK_STREAM` is 1).
    Unix(u8),
}

impl Protocol {
    /// Name of the table below /proc/PID.
    fn table(self) -> &'static str {
        match self {
            Protocol::Tcp => "net/tcp",
            Protocol::Tcp6 => "net/tcp6",
            Protocol::Udp => "net/udp",
            Protocol::Udp6 => "net/udp6",
            Protocol::Unix(_) => "net/unix",
        }
    }

    /// Socket type: `SOCK_STREAM` (1), `SOCK_DGRAM` (2), or the type of the Unix socket.
    fn socket_type(self) -> u8 {
        match self {
            Protocol::Tcp | Protocol::Tcp6 => 1,
            Protocol::Udp | Protocol::Udp6 => 2,
            Protocol::Unix(kind) => kind,
        }
    }

    /// Name in the JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Tcp6 => "tcp6",
            Protocol::Udp => "udp",
            Protocol::Udp6 => "udp6",
            Protocol::Unix(_) => "unix",
        }
    }
}

/// End of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum End {
    /// IP address and port. An IPv4-mapped IPv6 address is given as its IPv4 address.
    Internet(IpAddr, u16),
    /// Path of a Unix socket. Empty if it has none, and for the remote end, which the table does
    /// not name.
    Path(Vec<u8>),
}

/// Socket of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Protocol.
    pub protocol: Protocol,
    /// Local end.
    pub local: End,
    /// Remote end.
    pub remote: End,
    /// TCP state, else `NONE`; empty for a state without a name.
    pub state: &'static str,
    /// Inode number of the socket.
    pub inode: u64,
}

impl Process {
    /// Sockets of the process: TCP, UDP, Unix, in the order of the kernel's tables. Sockets that
    /// cannot be told apart are listed once.
    ///
    /// # Errors
    /// Returns [`Error::Denied`] if the open files may not be listed, and [`Error::Exited`] if the
    /// process has exited.
    pub fn connections(&self) -> Result<Vec<Connection>, Error> {
        let sockets: HashSet<u64> = self.open_sockets()?.into_iter().collect();
        if sockets.is_empty() {
            return Ok(Vec::new());
        }
        // Cheap tables first: for TCP, the kernel has to look at each of the machine's many
        // connections.
        let mut others = Vec::new();
        for protocol in [Protocol::Udp, Protocol::Udp6, Protocol::Unix(0)] {
            others.extend(self.in_table(protocol, &sockets)?);
        }
        let mut connections = match self.tcp(&sockets, &others) {
            Ok(tcp) => tcp,
            Err(_) => {
                let mut tcp = self.in_table(Protocol::Tcp, &sockets)?;
                tcp.extend(self.in_table(Protocol::Tcp6, &sockets)?);
                tcp
            }
        };
        connections.extend(others);
        let mut seen = HashSet::new();
        connections
            .retain(|c| seen.insert((c.protocol.socket_type(), c.local.clone(), c.remote.clone(), c.state)));
        Ok(connections)
    }

    /// Lists the TCP sockets of the process through sock_diag. All connections of the machine are
    /// visited only if listening sockets and the sockets in `others` do not account for all of
    /// `sockets`.
    fn tcp(&self, sockets: &HashSet<u64>, others: &[Connection]) -> io::Result<Vec<Connection>> {
        let wanted = |s: &TcpSocket| sockets.contains(&s.inode);
        let mut found = self.tcp_sockets(States::Listening, wanted)?;
        let known: HashSet<u64> =
            found.iter().map(|s| s.inode).chain(others.iter().map(|c| c.inode)).collect();
        if known.len() < sockets.len() {
            found = self.tcp_sockets(States::All, wanted)?;
        }
        // Sort as /proc does: each family in its own table.
        found.sort_by_key(|s| s.local.is_ipv6());
        Ok(found.iter().map(Connection::from).collect())
    }

    /// Lists the sockets of the process that are in a table of /proc/PID/net.
    fn in_table(&self, protocol: Protocol, sockets: &HashSet<u64>) -> Result<Vec<Connection>, Error> {
        let wanted = |inode| sockets.contains(&inode);
        match self.read(protocol.table(), "read the sockets") {
            Ok(table) => Ok(match protocol {
                Protocol::Unix(_) => unix(&table, wanted),
                _ => internet(protocol, &table, wanted),
            }),
            // The kernel has no IPv6.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }
}

impl From<&TcpSocket> for Connection {
    fn from(socket: &TcpSocket) -> Self {
        let end = |end: SocketAddr| End::Internet(end.ip().to_canonical(), end.port());
        Connection {
            protocol: if socket.local.is_ipv6() { Protocol::Tcp6 } else { Protocol::Tcp },
            local: end(socket.local),
            remote: end(socket.remote),
            state: tcp_state(socket.state),
            inode: socket.inode,
        }
    }
}

/// Lines of a table after its heading.
fn lines(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    table.split(|&b| b == b'\n').skip(1)
}

/// Parses /proc/PID/net/tcp, tcp6, udp or udp6. Skips damaged lines.
pub fn internet(protocol: Protocol, table: &[u8], wanted: impl Fn(u64) -> bool) -> Vec<Connection> {
    let parse = |line: &[u8]| -> Option<Connection> {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let remote = fields.next()?;
        let state = fields.next()?;
        let inode = fields.nth(5)?.parse().ok().filter(|&inode| wanted(inode))?;
        let six = matches!(protocol, Protocol::Tcp6 | Protocol::Udp6);
        Some(Connection {
            protocol,
            local: end(local, six)?,
            remote: end(remote, six)?,
            state: match protocol {
                Protocol::Tcp | Protocol::Tcp6 => u8::from_str_radix(state, 16).map_or("", tcp_state),
                _ => "NONE",
            },
            inode,
        })
    };
    lines(table).filter_map(parse).collect()
}

/// Name of a TCP state, numbered as in `include/net/tcp_states.h`.
fn tcp_state(state: u8) -> &'static str {
    match state {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => "",
    }
}

/// Parses an end: the address as hexadecimal words in the machine's byte order, and a port.
fn end(text: &str, six: bool) -> Option<End> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok();
    let ip = if six {
        let mut octets = [0; 16];
        for (i, part) in octets.chunks_exact_mut(4).enumerate() {
            part.copy_from_slice(&word(i)?.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))
    };
    (address.len() == if six { 32 } else { 8 }).then_some(End::Internet(ip, port))
}

/// Parses /proc/PID/net/unix. Skips damaged lines. A path can hold any byte except a line end.
pub fn unix(table: &[u8], wanted: impl Fn(u64) -> bool) -> Vec<Connection> {
    let parse = |line: &[u8]| -> Option<Connection> {
        // Num RefCount Protocol Flags Type St Inode Path: the inode is padded on its left.
        let mut rest = line;
        let mut field = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
            let (field, behind) = rest.split_at(end);
            rest = behind;
            std::str::from_utf8(field).ok()
        };
        let kind = (0..5).map_while(|_| field()).nth(4)?;
        let inode = (0..2).map_while(|_| field()).nth(1)?.parse().ok().filter(|&inode| wanted(inode))?;
        Some(Connection {
            protocol: Protocol::Unix(u8::from_str_radix(kind, 16).ok()?),
            local: End::Path(rest.strip_prefix(b" ").unwrap_or(rest).to_vec()),
            remote: End::Path(Vec::new()),
            state: "NONE",
            inode,
        })
    };
    lines(table).filter_map(parse).collect()
}

impl fmt::Display for End {
    /// Formats an end as gops does: no brackets around IPv6 addresses, and port 0 after paths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::printable::printable;
        match self {
            End::Internet(ip, port) => write!(f, "{ip}:{port}"),
            End::Path(path) => write!(f, "{}:0", printable(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(connections: &[Connection]) -> Vec<String> {
        connections.iter().map(|c| format!("{} <-> {} ({})", c.local, c.remote, c.state)).collect()
    }

    #[test]
    fn internet_sockets() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5501 1 0 100 0\n\
            1: 0100007F:1F90 0200000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 5502 1 0 100 0\n\
            2: 0100007F:1F91 00000000:0000 0C 00000000:00000000 00:00000000 00000000     0        0 5503 1 0 100 0\n\
            3: 0100007F:XXXX 00000000:0000 0A\n";
        assert_eq!(
            text(&internet(Protocol::Tcp, table, |_| true)),
            [
                "127.0.0.1:8080 <-> 0.0.0.0:0 (LISTEN)",
                "127.0.0.1:8080 <-> 10.0.0.2:50000 (ESTABLISHED)",
                "127.0.0.1:8081 <-> 0.0.0.0:0 ()",
            ]
        );
        assert_eq!(internet(Protocol::Udp, table, |i| i == 5502).len(), 1);
        assert_eq!(internet(Protocol::Udp, table, |_| true)[0].state, "NONE");
        for end in 0..table.len() {
            let _ = internet(Protocol::Tcp6, &table[..end], |_| true);
        }
    }

    #[test]
    fn addresses_of_ipv6() {
        let shown = |text: &str| end(text, true).map(|e| e.to_string());
        assert_eq!(shown("00000000000000000000000001000000:0050").as_deref(), Some("::1:80"));
        assert_eq!(shown("0000000000000000FFFF00000100007F:0050").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(
            shown("0085002452100113070057A13F025401:0035").as_deref(),
            Some("2400:8500:1301:1052:a157:7:154:23f:53")
        );
        assert_eq!(shown("0100007F:0050"), None);
        assert_eq!(end("00000000000000000000000001000000:0050", false), None);
    }

    #[test]
    fn unix_sockets() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  1234 /run/a b\n\
            0000000000000000: 00000003 00000000 00000000 0005 03 99\n\
            0000000000000000: 00000003 00000000 00000000 0002 03   100 @\x1babstract\nodd\n";
        let all = unix(table, |_| true);
        assert_eq!(
            text(&all),
            ["/run/a b:0 <-> :0 (NONE)", ":0 <-> :0 (NONE)", "@\\x1babstract:0 <-> :0 (NONE)"]
        );
        assert_eq!(all.iter().map(|c| c.inode).collect::<Vec<_>>(), [1234, 99, 100]);
        assert_eq!(all[1].protocol, Protocol::Unix(5));
    }
}
