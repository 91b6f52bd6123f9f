//! Owners of the sockets that listen on a port of a process's network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::process::sock_diag::States;
use crate::process::{Pid, Process, find};

/// Socket that waits for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Address at which the socket waits.
    pub address: SocketAddr,
    /// Inode number of the socket, which /proc/PID/fd shows too.
    pub inode: u64,
}

impl Listener {
    /// Address to connect to from the same network namespace.
    pub(super) fn reach(&self) -> SocketAddr {
        // A socket for all IPv6 addresses takes IPv4 connections too, unless it was configured
        // otherwise.
        let ip =
            if self.address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { self.address.ip() };
        SocketAddr::new(ip, self.address.port())
    }

    /// Returns true if a connection to `address` may reach this socket.
    fn may_take(&self, address: SocketAddr) -> bool {
        let ip = canonical(self.address.ip());
        self.address.port() == address.port() && (ip.is_unspecified() || ip == canonical(address.ip()))
    }
}

fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Ownership of the sockets that listen on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// No socket listens.
    Nobody,
    /// The process listens, and no other socket takes the connections to it.
    Process(Listener),
    /// The process and another socket listen in the same place (`SO_REUSEPORT`): the kernel
    /// chooses.
    Shared(Listener),
    /// Only other processes listen.
    Others(Listener),
    /// A socket listens, but the open files of the process may not be seen.
    Unknown,
}

/// Finds the owner of the sockets that listen on a port in the network namespace of a process.
pub(super) fn ownership(process: &Process, port: u16) -> Ownership {
    let listening = listening(process, port);
    let Some(&first) = listening.first() else { return Ownership::Nobody };
    let Some(sockets) = process.sockets() else { return Ownership::Unknown };
    let (ours, others): (Vec<Listener>, Vec<Listener>) =
        listening.into_iter().partition(|l| sockets.contains(&l.inode));
    // gops connects to the loopback address.
    let ours = ours.iter().find(|l| l.reach().ip().is_loopback()).or(ours.first()).copied();
    match ours {
        None => Ownership::Others(first),
        Some(ours) if others.iter().any(|l| l.may_take(ours.reach())) => Ownership::Shared(ours),
        Some(ours) => Ownership::Process(ours),
    }
}

/// Lists the sockets that listen on a port: from the kernel's list of listening sockets, or, if
/// that fails, from /proc, which lists all connections.
fn listening(process: &Process, port: u16) -> Vec<Listener> {
    if let Ok(mut found) = process.tcp_sockets(States::Listening, |s| s.local.port() == port) {
        found.sort_by_key(|s| s.local.is_ipv6());
        return found.iter().map(|s| Listener { address: s.local, inode: s.inode }).collect();
    }
    let tables = ["net/tcp", "net/tcp6"].into_iter().filter_map(|t| process.read(t, "read the sockets").ok());
    tables
        .flat_map(|table| listeners(&table).filter(|l| l.address.port() == port).collect::<Vec<_>>())
        .collect()
}

/// Process that has a socket open, and its name; `None` if it may not be seen.
pub(super) fn owner(inode: u64) -> Option<(Pid, String)> {
    let mut processes = find::pids().ok()?.into_iter().filter_map(|pid| Process::pin(pid).ok());
    let owner = processes.find(|p| p.sockets().is_some_and(|s| s.contains(&inode)))?;
    Some((owner.pid(), owner.name().to_owned()))
}

/// User id of the process that has one end of a connection, by /proc/PID/net/tcp or tcp6 (proc(5));
/// `local` is that end. A socket without an inode belongs to no process any more, though its line
/// names root.
pub(super) fn user_of(table: &[u8], local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    table.split(|&b| b == b'\n').find_map(|line| {
        let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
        let is = |at: usize, address: SocketAddr| {
            let found = fields.get(at).and_then(|field| parse_address(field));
            found.is_some_and(|found| SocketAddr::new(canonical(found.ip()), found.port()) == address)
        };
        let inode: u64 = fields.get(9)?.parse().ok()?;
        (is(1, local) && is(2, remote) && inode != 0).then(|| fields.get(7)?.parse().ok()).flatten()
    })
}

fn parse_address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    Some(SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?))
}

/// Listening sockets in /proc/PID/net/tcp or tcp6 (proc(5)).
pub fn listeners(table: &[u8]) -> impl Iterator<Item = Listener> {
    const LISTEN: &str = "0A";
    let listener = |line: &[u8]| -> Option<Listener> {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let address = parse_address(local)?;
        (state == LISTEN).then_some(())?;
        Some(Listener { address, inode: inode.parse().ok()? })
    };
    table.split(|&b| b == b'\n').filter_map(listener)
}

/// Parses an IP address. It is printed as words of 32 bits, each in the machine's own byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at..at + 8).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(words.iter().flatten()) {
                *to = *from;
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_connection() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
              0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
              1: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12 1\n\
              2: 0100007F:D432 0100007F:1F90 04 00000000:00000000 00:00000000 00000000     0        0 0 1\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(user_of(table, at(0xd431), at(0x1f90)), Some(1000));
        assert_eq!(user_of(table, at(0xd432), at(0x1f90)), None, "closed: nobody's");
        assert_eq!(user_of(table, at(0x1f90), at(0xd431)), None);
        assert_eq!(user_of(b"\xff 1 2\n", at(1), at(2)), None);
    }

    #[test]
    fn listening_sockets() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5501 1 0 100 0\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 5502 1 0 100 0\n\
            2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5503 1 0 100 0\n";
        let found: Vec<_> = listeners(table).map(|l| (l.address.to_string(), l.inode)).collect();
        assert_eq!(found, [("127.0.0.1:8080".to_owned(), 5501), ("0.0.0.0:8081".to_owned(), 5503)]);
        let table = b"0: 00000000000000000000000001000000:1F90 \
            00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0\n";
        assert_eq!(listeners(table).next().unwrap().address, "[::1]:8080".parse().unwrap());
        for end in 0..table.len() {
            let _ = listeners(&table[..end]).count();
        }
    }

    #[test]
    fn where_connections_go() {
        let listener = |text: &str| Listener { address: text.parse().unwrap(), inode: 1 };
        let to = |text: &str| text.parse().unwrap();
        assert_eq!(listener("0.0.0.0:1").reach(), to("127.0.0.1:1"));
        assert_eq!(listener("[::]:1").reach(), to("127.0.0.1:1"));
        assert_eq!(listener("10.0.0.1:1").reach(), to("10.0.0.1:1"));
        assert!(listener("[::]:1").may_take(to("127.0.0.1:1")));
        assert!(listener("[::ffff:127.0.0.1]:1").may_take(to("127.0.0.1:1")));
        assert!(!listener("10.0.0.1:1").may_take(to("127.0.0.1:1")));
        assert!(!listener("127.0.0.1:2").may_take(to("127.0.0.1:1")));
    }
}
