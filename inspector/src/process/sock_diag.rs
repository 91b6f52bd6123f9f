//! TCP sockets, listed by the kernel on request (sock_diag(7)). The kernel walks its table once for
//! both address families. If only listening sockets are requested, it does not walk the table of
//! connections. For /proc/PID/net it walks both tables, once for each family.
//!
//! The request is the old one, `TCPDIAG_GETSOCK`, which all kernels since 2.6.14 answer; the newer
//! request takes one family.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Namespace, Process};

/// Message type `TCPDIAG_GETSOCK` of `include/uapi/linux/inet_diag.h`.
const GET_TCP: u16 = 18;
/// Size of the header and `struct inet_diag_req`.
const REQUEST: usize = HEADER + 60;
/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Size of `struct inet_diag_msg`.
const SOCKET: usize = 72;
/// State `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTEN: u8 = 10;
/// State `TCP_TIME_WAIT`: no process has such a socket any more.
const TIME_WAIT: u8 = 6;
/// State `TCP_CLOSING`, the last one that /proc shows.
const CLOSING: u8 = 11;

/// TCP socket of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    /// Local end, in the family of the socket.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// State number of `include/net/tcp_states.h`.
    pub state: u8,
    /// Inode number, not zero.
    pub inode: u64,
    /// User id of the creator.
    pub uid: u32,
}

/// States of the requested sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum States {
    /// Sockets that wait for connections.
    Listening,
    /// All states that a socket of a process can have.
    All,
}

impl States {
    fn mask(self) -> u32 {
        match self {
            States::Listening => 1 << LISTEN,
            States::All => (1..=CLOSING).filter(|&s| s != TIME_WAIT).fold(0, |mask, s| mask | 1 << s),
        }
    }
}

/// Reason why a message is no part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// The kernel refuses, with this error number.
    Refused(i32),
    /// The lengths or addresses are impossible, or the message answers another request.
    Damaged,
    /// The table changed during the dump, so parts may be missing.
    Interrupted,
}

impl From<Bad> for io::Error {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Refused(number) => io::Error::from_raw_os_error(number),
            Bad::Damaged => io::ErrorKind::InvalidData.into(),
            Bad::Interrupted => io::ErrorKind::Interrupted.into(),
        }
    }
}

impl Process {
    /// TCP sockets of the process's network namespace for which `wanted` returns true. They are in
    /// the order of /proc/PID/net/tcp and tcp6, with both families mixed.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer, or the namespace may not be entered. /proc
    /// has the same data.
    pub(crate) fn tcp_sockets(
        &self,
        states: States,
        wanted: impl Fn(&TcpSocket) -> bool + Send,
    ) -> io::Result<Vec<TcpSocket>> {
        // If the namespace cannot be determined, ours may be another one.
        if self.is_in_other_namespace(Namespace::Net).is_none() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.in_network_namespace(|| dump(states, wanted))?
    }
}

/// User id of the process that has one end of a TCP connection, in the network namespace of this
/// thread; `local` is that end. `None` if no process here has it: it is on another machine or
/// closed. Also `None` if the kernel has no tcp_diag, as the answer is the same.
///
/// # Errors
/// Returns an error if the kernel does not answer.
pub(crate) fn user_of_connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    const SEQUENCE: u32 = 1;
    let socket = ask(&request_one(local, remote, SEQUENCE))?;
    let mut buffer = [0; 4096];
    for _ in 0..16 {
        let Some(message) = receive(&socket, &mut buffer)? else { continue };
        let mut found = None;
        match parse(message, SEQUENCE, |socket| found = Some(socket)) {
            Ok(_) => {}
            Err(Bad::Refused(libc::ENOENT)) => return Ok(None),
            Err(bad) => return Err(bad.into()),
        }
        // The answer could also be a socket that listens at that port.
        let it = found.filter(|socket| socket.local == local && socket.remote == remote);
        return Ok(it.map(|socket| socket.uid));
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Maximum wait for an answer. A Linux kernel answers during the request; this is for other
/// implementations.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends a request about the network namespace of this thread. Returns the socket on which the
/// kernel answers.
fn ask(request: &[u8; REQUEST]) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    rustix::net::send(&socket, request, SendFlags::empty())?;
    Ok(socket)
}

/// Receives the next message. `None` if it is not from the kernel: privileged processes of the
/// namespace can send us messages too.
fn receive<'b>(socket: &OwnedFd, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
    let (_, len, from) = rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::TRUNC)?;
    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
    if from.is_none_or(|from| from.pid() != 0) {
        return Ok(None);
    }
    Ok(Some(buffer.get(..len).ok_or(Bad::Damaged)?))
}

/// Lists the sockets of the network namespace of this thread.
fn dump(states: States, wanted: impl Fn(&TcpSocket) -> bool) -> io::Result<Vec<TcpSocket>> {
    /// Maximum size of a dump message.
    const LONGEST: usize = 32 << 10;
    /// Maximum number of messages: tens of millions of sockets.
    const MOST: usize = 1 << 17;
    const SEQUENCE: u32 = 1;
    let socket = ask(&request(states.mask(), SEQUENCE))?;
    let mut buffer = vec![0; LONGEST];
    let mut found = Vec::new();
    for _ in 0..MOST {
        let Some(message) = receive(&socket, &mut buffer)? else { continue };
        if parse(message, SEQUENCE, |socket| found.extend(wanted(&socket).then_some(socket)))? {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Makes a request with `NLM_F_REQUEST` and a `struct inet_diag_req` that names one connection.
fn request_one(local: SocketAddr, remote: SocketAddr, sequence: u32) -> [u8; REQUEST] {
    const ONE: u16 = 1;
    /// Value `INET_DIAG_NOCOOKIE`: matches any socket of the connection.
    const ANY: [u8; 8] = [0xff; 8];
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(ip.octets()) {
                *to = from;
            }
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let length = u32::try_from(REQUEST).unwrap_or(0);
    // `struct inet_diag_sockid` begins four bytes after the header.
    let fields: [(usize, &[u8]); 10] = [
        (0, &length.to_ne_bytes()),
        (4, &GET_TCP.to_ne_bytes()),
        (6, &ONE.to_ne_bytes()),
        (8, &sequence.to_ne_bytes()),
        (HEADER, &[u8::try_from(family).unwrap_or(0)]),
        (HEADER + 4, &local.port().to_be_bytes()),
        (HEADER + 6, &remote.port().to_be_bytes()),
        (HEADER + 8, &bytes(local.ip())),
        (HEADER + 24, &bytes(remote.ip())),
        (HEADER + 44, &ANY),
    ];
    filled(&fields)
}

fn filled(fields: &[(usize, &[u8])]) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    for (at, bytes) in fields {
        for (to, from) in request.iter_mut().skip(*at).zip(*bytes) {
            *to = *from;
        }
    }
    request
}

/// Makes a request with `NLM_F_REQUEST | NLM_F_DUMP` and a `struct inet_diag_req` that is zero
/// except for the states.
fn request(states: u32, sequence: u32) -> [u8; REQUEST] {
    const DUMP: u16 = 0x301;
    let length = u32::try_from(REQUEST).unwrap_or(0);
    let fields: [(usize, &[u8]); 5] = [
        (0, &length.to_ne_bytes()),
        (4, &GET_TCP.to_ne_bytes()),
        (6, &DUMP.to_ne_bytes()),
        (8, &sequence.to_ne_bytes()),
        (HEADER + 52, &states.to_ne_bytes()),
    ];
    filled(&fields)
}

/// Parses a message of the kernel. Calls `each` for each socket in it that a process has. Returns
/// true at the end of the answer.
///
/// # Errors
/// Returns [`Bad`]; no part of the answer may be used then.
pub fn parse(message: &[u8], sequence: u32, mut each: impl FnMut(TcpSocket)) -> Result<bool, Bad> {
    const NOOP: u16 = 1;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const DUMP_INTERRUPTED: u16 = 0x10;
    let mut rest = message;
    while !rest.is_empty() {
        let length = usize::try_from(u32_at(rest, 0).ok_or(Bad::Damaged)?).map_err(|_| Bad::Damaged)?;
        let kind = u16_at(rest, 4).ok_or(Bad::Damaged)?;
        let flags = u16_at(rest, 6).ok_or(Bad::Damaged)?;
        if u32_at(rest, 8) != Some(sequence) {
            return Err(Bad::Damaged);
        }
        if flags & DUMP_INTERRUPTED != 0 {
            return Err(Bad::Interrupted);
        }
        let body = rest.get(HEADER..length).ok_or(Bad::Damaged)?;
        match kind {
            NOOP => {}
            GET_TCP => each_socket(body, &mut each)?,
            ERROR | DONE => {
                let error = u32_at(body, 0).map_or(0, u32::cast_signed);
                return match (kind, error) {
                    (DONE, 0..) => Ok(true),
                    (_, ..0) => Err(Bad::Refused(error.saturating_neg())),
                    _ => Err(Bad::Damaged),
                };
            }
            _ => return Err(Bad::Damaged),
        }
        // Each message begins at a multiple of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn each_socket(body: &[u8], each: &mut impl FnMut(TcpSocket)) -> Result<(), Bad> {
    let body = body.get(..SOCKET).ok_or(Bad::Damaged)?;
    let [family, state, ..] = *body else { return Err(Bad::Damaged) };
    let end = |port, address| {
        let port = u16::from_be_bytes(array(body, port)?);
        let ip: IpAddr = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::from(array::<4>(body, address)?).into(),
            libc::AF_INET6 => Ipv6Addr::from(array::<16>(body, address)?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    };
    let local = end(4, 8).ok_or(Bad::Damaged)?;
    let remote = end(6, 24).ok_or(Bad::Damaged)?;
    // The user id comes before the inode. A socket with an inode still belongs to a process; the
    // kernel assigns abandoned ones to root.
    let uid = u32_at(body, 64).ok_or(Bad::Damaged)?;
    let inode = u32_at(body, 68).ok_or(Bad::Damaged)?.into();
    // Zero: on its way to a process, or abandoned by one.
    if inode != 0 {
        each(TcpSocket { local, remote, state, inode, uid });
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(array(bytes, at)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(array(bytes, at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn socket(inode: u32) -> Vec<u8> {
        let mut body = vec![0; SOCKET];
        body[0] = 2;
        body[1] = LISTEN;
        body[4..8].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 0, 0, 2]);
        body[64..68].copy_from_slice(&1000_u32.to_ne_bytes());
        body[68..].copy_from_slice(&inode.to_ne_bytes());
        body
    }

    fn all(bytes: &[u8]) -> Result<(bool, Vec<TcpSocket>), Bad> {
        let mut found = Vec::new();
        Ok((parse(bytes, 7, |s| found.push(s))?, found))
    }

    #[test]
    fn answers() {
        let mut bytes = message(GET_TCP, 2, &socket(5501));
        bytes.extend(message(GET_TCP, 2, &socket(0)));
        let (done, found) = all(&bytes).unwrap();
        let expected = TcpSocket {
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "10.0.0.2:80".parse().unwrap(),
            state: LISTEN,
            inode: 5501,
            uid: 1000,
        };
        assert_eq!((done, found), (false, vec![expected]));
        bytes.extend(message(3, 2, &0_i32.to_ne_bytes()));
        assert_eq!(all(&bytes).unwrap(), (true, vec![expected]));
        for end in 0..bytes.len() {
            let _ = all(&bytes[..end]);
        }
    }

    #[test]
    fn no_answers() {
        assert_eq!(all(&message(2, 0, &(-2_i32).to_ne_bytes())), Err(Bad::Refused(2)));
        assert_eq!(all(&message(3, 2, &(-2_i32).to_ne_bytes())), Err(Bad::Refused(2)));
        assert_eq!(all(&message(GET_TCP, 0x12, &socket(1))), Err(Bad::Interrupted));
        assert_eq!(all(&message(GET_TCP, 2, &socket(1)[..71])), Err(Bad::Damaged));
        assert_eq!(all(&[0; 16]), Err(Bad::Damaged));
        assert_eq!(parse(&message(3, 2, &[0; 4]), 8, |_| {}), Err(Bad::Damaged));
    }

    #[test]
    fn states_that_are_asked_for() {
        assert_eq!(States::Listening.mask(), 0x400);
        assert_eq!(States::All.mask(), 0xfbe);
    }
}
