//! Address of an agent, as a user writes it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use crate::process::Pid;

/// Maximum length of a DNS name.
const MAX_HOST: usize = 253;

/// Host and TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address, without the brackets of IPv6; empty for this machine.
    pub host: String,
    /// Port number, not 0.
    pub port: u16,
}

impl Address {
    /// Resolves the host to the addresses to try, in order.
    ///
    /// # Errors
    /// Returns the error of the resolver.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            return Ok(vec![(Ipv4Addr::LOCALHOST, self.port).into()]);
        }
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl FromStr for Address {
    type Err = String;

    /// Parses `host:port`, `[v6]:port` and `:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not HOST:PORT: {why}");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let bracketed = host.strip_prefix('[').map(|h| h.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => inner
                .filter(|inner| inner.contains(':'))
                .ok_or_else(|| wrong("brackets are for an IPv6 address"))?,
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address needs brackets, as in [::1]:6060"));
            }
            None => host,
        };
        if host.len() > MAX_HOST || host.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
            return Err(wrong("that is not the name of a host"));
        }
        let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
        let port = number.filter(|&p| p != 0).ok_or_else(|| wrong("a port is a number from 1 to 65535"))?;
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Process of this machine, or an agent by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentTarget {
    /// Process, by its pid in our pid namespace.
    Process(Pid),
    /// Agent, by its address.
    Address(Address),
}

impl fmt::Display for AgentTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentTarget::Process(pid) => write!(f, "process {pid}"),
            AgentTarget::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| text.parse::<Address>().map(|a| (a.host, a.port));
        assert_eq!(parsed("10.0.0.1:6060"), Ok(("10.0.0.1".into(), 6060)));
        assert_eq!(parsed("host.example:1"), Ok(("host.example".into(), 1)));
        assert_eq!(parsed("[::1]:80"), Ok(("::1".into(), 80)));
        assert_eq!(parsed(":6060"), Ok((String::new(), 6060)));
        for wrong in [
            "::1:80",
            "[::1:80",
            "[a]:80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "a b:1",
            "a/b:1",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert_eq!("[::1]:80".parse::<Address>().unwrap().to_string(), "[::1]:80");
        assert_eq!(":7".parse::<Address>().unwrap().resolve().unwrap(), ["127.0.0.1:7".parse().unwrap()]);
    }
}
