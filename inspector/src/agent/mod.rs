//! gops agents: programs that import `github.com/google/gops/agent` listen on a TCP port and write its number to a
//! file that is named after their pid.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::process::Process;

/// A gops agent that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMark {
    /// Its TCP port, in the network namespace of the process.
    pub port: u16,
    /// The file that says so, as seen from the process where it is in another mount namespace.
    pub port_file: PathBuf,
    /// The listening socket was found among the open files of the process. False where those may not be seen.
    pub confirmed: bool,
}

/// The port files where gops looks for them.
#[derive(Debug, Default)]
pub(crate) struct OwnPortFiles {
    dir: Option<PathBuf>,
    /// What was there: one look at the directory instead of one for each process.
    names: HashSet<OsString>,
}

impl OwnPortFiles {
    /// Lists them; none where there is no such directory.
    pub(crate) fn list() -> Self {
        let dir = own_config_dir();
        let entries = dir.as_ref().and_then(|dir| std::fs::read_dir(dir).ok());
        let names = entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name())).collect();
        OwnPortFiles { dir, names }
    }

    /// Looks for the agent of a process: where gops looks, and where the process itself would have written the port
    /// file. A file whose port the process does not listen on was left behind by an earlier process with this pid.
    pub(crate) fn agent_of(&self, process: &Process) -> Option<AgentMark> {
        let name = OsString::from(process.pid().to_string());
        let own = self.dir.as_ref().filter(|_| self.names.contains(&name)).map(|dir| dir.join(&name));
        let own = own.and_then(|path| Some((read_port(File::open(&path).ok()?)?, path)));
        let (port, port_file) = own.or_else(|| in_process(process))?;
        let confirmed = listens(process, port)?;
        Some(AgentMark { port, port_file, confirmed })
    }
}

/// `GOPS_CONFIG_DIR`, else `gops` below the user's configuration directory, as `internal.ConfigDir` of gops has it.
fn own_config_dir() -> Option<PathBuf> {
    config_dir(|key| std::env::var_os(key).map(|v| v.as_bytes().to_vec()))
}

fn config_dir(var: impl Fn(&str) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let path = |key| var(key).filter(|v| !v.is_empty()).map(|v| PathBuf::from(OsStr::from_bytes(&v)));
    if let Some(dir) = path("GOPS_CONFIG_DIR") {
        return Some(dir);
    }
    if let Some(dir) = path("XDG_CONFIG_HOME") {
        return dir.is_absolute().then(|| dir.join("gops"));
    }
    Some(path("HOME")?.join(".config/gops"))
}

/// Where the process would have written it: by its environment or its user's home, below its own root, under the pid
/// that it has in its own pid namespace.
fn in_process(process: &Process) -> Option<(u16, PathBuf)> {
    // Our own place is also that of our own processes beside us.
    if process.is_beside_us() {
        return None;
    }
    let status = process.status().ok()?;
    let uid = status.uids?[1];
    let environment = process.read("environ", "read the environment").ok()?;
    let var = |key: &str| {
        environment
            .split(|&b| b == 0)
            .find_map(|v| v.strip_prefix(key.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec))
    };
    let home = || {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
        Some(user.dir.join(".config/gops"))
    };
    let dir = config_dir(var).filter(|d| d.is_absolute()).or_else(home)?;
    let name = status.ns_pids.last().copied().unwrap_or(process.pid());
    let path = dir.join(name.to_string());
    let file = process.open_in_root(&path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    Some((read_port(File::from(file))?, path))
}

/// The number in a port file. Nothing longer than a number is read.
fn read_port(file: File) -> Option<u16> {
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|&port| port != 0)
}

/// Whether the process listens on the port. `None` where it does not; `Some(false)` where somebody does, and who that is
/// cannot be seen.
fn listens(process: &Process, port: u16) -> Option<bool> {
    let mut inodes = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        let Ok(bytes) = process.read(table, "read the sockets") else { continue };
        inodes.extend(listening(&bytes, port));
    }
    if inodes.is_empty() {
        return None;
    }
    match process.sockets() {
        Some(sockets) => sockets.iter().any(|s| inodes.contains(s)).then_some(true),
        None => Some(false),
    }
}

/// Inodes of the sockets that listen on a port, from /proc/PID/net/tcp or tcp6 (proc(5)).
fn listening(table: &[u8], port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let inode = |line: &[u8]| -> Option<u64> {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let local = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (local == port && state == LISTEN).then(|| inode.parse().ok())?
    };
    table.split(|&b| b == b'\n').filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5501 1 0 100 0\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 5502 1 0 100 0\n\
            2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5503 1 0 100 0\n";
        assert_eq!(listening(table, 8080), [5501]);
        assert_eq!(listening(table, 8081), [5503]);
        assert_eq!(listening(table, 1), [0u64; 0]);
    }

    #[test]
    fn config_directories() {
        let dir = |vars: &[(&str, &str)]| {
            config_dir(|k| vars.iter().find(|(n, _)| *n == k).map(|(_, v)| v.as_bytes().to_vec()))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(dir(&[home]), Some("/home/a/.config/gops".into()));
        assert_eq!(dir(&[home, ("XDG_CONFIG_HOME", "/x")]), Some("/x/gops".into()));
        assert_eq!(dir(&[home, ("GOPS_CONFIG_DIR", "/g"), ("XDG_CONFIG_HOME", "/x")]), Some("/g".into()));
        assert_eq!(dir(&[("HOME", "")]), None);
    }
}
