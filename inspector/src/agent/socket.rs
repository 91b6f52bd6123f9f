//! Listening sockets of a server and their connections: TCP, or a socket in the file system.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::peer::Peer;

/// Address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP address, such as `127.0.0.1:0`.
    Tcp(SocketAddr),
    /// Path of a Unix socket, such as `unix:/run/gops.sock`.
    Unix(PathBuf),
}

/// Error that a text is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as 127.0.0.1:6060 or [::1]:0, nor unix:PATH")]
pub struct InvalidListen;

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        match text.strip_prefix("unix:") {
            Some("") => Err(InvalidListen),
            Some(path) => Ok(Listen::Unix(path.into())),
            None => text.parse().map(Listen::Tcp).map_err(|_| InvalidListen),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Name),
}

/// Name of a socket in the file system. It is removed together with the socket.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Name {
    fn of(path: &Path) -> Option<(u64, u64)> {
        let meta = path.symlink_metadata().ok()?;
        meta.file_type().is_socket().then_some((meta.dev(), meta.ino()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.file.is_some() && Name::of(&self.path) == self.file {
            // On failure, a name without a listener remains.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Begins to listen. Only the own user can connect to a socket in the file system. With
    /// `for_others`, all users can, as the clients are told apart later.
    pub(super) fn bind(at: &Listen, for_others: bool) -> io::Result<Self> {
        let listener = match at {
            Listen::Tcp(address) => Listener::Tcp(TcpListener::bind(address)?),
            Listen::Unix(path) => {
                let path = std::path::absolute(path)?;
                let listener = UnixListener::bind(&path)?;
                let name = Name { file: Name::of(&path), path };
                // Before this, the umask decides who may connect, and each client's identity is
                // checked.
                let mode = if for_others { 0o666 } else { 0o600 };
                std::fs::set_permissions(&name.path, std::fs::Permissions::from_mode(mode))?;
                Listener::Unix(listener, name)
            }
        };
        match &listener {
            Listener::Tcp(tcp) => tcp.set_nonblocking(true)?,
            Listener::Unix(unix, _) => unix.set_nonblocking(true)?,
        }
        Ok(listener)
    }

    pub(super) fn address(&self) -> io::Result<Listen> {
        match self {
            Listener::Tcp(tcp) => tcp.local_addr().map(Listen::Tcp),
            Listener::Unix(_, name) => Ok(Listen::Unix(name.path.clone())),
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(tcp) => tcp.accept().map(|(stream, from)| Stream::Tcp(stream, from)),
            Listener::Unix(unix, _) => unix.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(tcp) => tcp.as_fd(),
            Listener::Unix(unix, _) => unix.as_fd(),
        }
    }
}

/// Accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Stream {
    /// Client at the other end.
    pub(super) fn peer(&self) -> io::Result<Peer> {
        match self {
            Stream::Tcp(stream, from) => Peer::of_tcp(stream.local_addr()?, *from),
            // User id at the time of the connection.
            Stream::Unix(stream) => {
                Ok(Peer::User(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw()))
            }
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Stream::Tcp(stream, from) => Ok(Stream::Tcp(stream.try_clone()?, *from)),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream, _) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(stream, _) => stream.set_nonblocking(on),
            Stream::Unix(stream) => stream.set_nonblocking(on),
        }
    }

    pub(super) fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream, _) => stream.set_read_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)),
        }
    }

    pub(super) fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream, _) => stream.set_write_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(limit)),
        }
    }

    /// Makes closing abort the connection, so that the reader does not take the received part for
    /// the whole.
    pub(super) fn break_off(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream, _) => {
                Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
            }
            Stream::Unix(_) => Ok(()),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream, _) => { stream }.read(buf),
            Stream::Unix(stream) => { stream }.read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream, _) => { stream }.write(buf),
            Stream::Unix(stream) => { stream }.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen() {
        let parsed = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        for text in ["127.0.0.1:0", "[::1]:6060", "unix:/run/a b", "unix:relative"] {
            assert_eq!(parsed(text).as_deref(), Ok(text));
        }
        for text in ["", "unix:", "localhost:1", "127.0.0.1", "/run/socket"] {
            assert_eq!(parsed(text), Err(InvalidListen), "{text}");
        }
    }

    #[test]
    fn a_name_goes_with_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let at = Listen::Unix(path.clone());
        let listener = Listener::bind(&at, false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        let peer = listener.accept().unwrap().peer().unwrap();
        assert_eq!(peer, Peer::User(rustix::process::geteuid().as_raw()));
        assert!(Listener::bind(&at, false).is_err(), "it is in use");
        // Another file that took the name is not removed.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
