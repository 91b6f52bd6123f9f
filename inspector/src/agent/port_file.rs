//! Port file of an agent: named after the pid, with the port number in it. Any user who can write
//! to the directory can forge it, so its contents are never trusted, printed or waited for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use crate::environment;
use crate::process::Process;
use crate::process::regular::{Links, NotOpened, RegularFile};
use crate::process::users::{self, MAX_PASSWD, home_in_passwd};

/// Maximum length of the text: no port is longer, and an editor may have added a line end.
const MAX_TEXT: usize = 16;

/// Reason why a file gives no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file does not exist.
    #[error("is not there")]
    Missing,
    /// The file may not be opened.
    #[error("may not be read")]
    Denied,
    /// The file is a symbolic link, which no agent creates.
    #[error("is a symbolic link")]
    Link,
    /// The path leads to a directory, a FIFO or a device.
    #[error("is no regular file")]
    Special,
    /// The file holds more than a number.
    #[error("holds more than a port number")]
    TooLong,
    /// The file holds no number.
    #[error("holds no port number")]
    NoNumber,
    /// Any other failure.
    #[error("cannot be read")]
    Unreadable,
}

impl From<NotOpened> for Problem {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::Special => Problem::Special,
            NotOpened::Refused(Errno::NOENT | Errno::NOTDIR) => Problem::Missing,
            NotOpened::Refused(Errno::ACCESS | Errno::PERM) => Problem::Denied,
            NotOpened::Refused(Errno::LOOP) => Problem::Link,
            NotOpened::Refused(_) => Problem::Unreadable,
        }
    }
}

/// Contents of a valid port file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortFile {
    pub(super) port: u16,
    /// Time of the last change of the file.
    pub(super) modified: Option<SystemTime>,
}

/// Reads a port file by a path of our own.
pub(super) fn read(path: &Path) -> Result<PortFile, Problem> {
    read_open(RegularFile::open(path, Links::Refuse)?)
}

/// Reads a port file by a path of the process: below its root directory, which no link leaves.
pub(super) fn read_in_root(process: &Process, path: &Path) -> Result<PortFile, Problem> {
    read_open(RegularFile::open_in_root(process, path, Links::Refuse)?)
}

fn read_open(file: RegularFile) -> Result<PortFile, Problem> {
    let modified = file.metadata().map_err(|_| Problem::Unreadable)?.modified().ok();
    let text = file.read_up_to(MAX_TEXT as u64 + 1).map_err(|_| Problem::Unreadable)?;
    Ok(PortFile { port: parse_port(&text)?, modified })
}

/// Parses the number in a port file.
///
/// # Errors
/// Returns [`Problem::TooLong`] or [`Problem::NoNumber`].
pub fn parse_port(text: &[u8]) -> Result<u16, Problem> {
    if text.len() > MAX_TEXT {
        return Err(Problem::TooLong);
    }
    let number =
        std::str::from_utf8(text).ok().map(str::trim).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|n| n.parse().ok()).filter(|&port| port != 0).ok_or(Problem::NoNumber)
}

/// Directory of our own port files, where gops itself looks.
pub(super) fn own_dir() -> Option<PathBuf> {
    config_dir(|key| environment::variable(key).map(|v| v.as_bytes().to_vec()))
        .or_else(|| Some(users::home(rustix::process::geteuid().as_raw())?.join(".config/gops")))
}

/// Configuration directory of gops: `GOPS_CONFIG_DIR`, else `gops` below the user's configuration
/// directory, as `internal.ConfigDir` of gops has it. `None` if only the user database can tell the
/// home directory.
fn config_dir(var: impl Fn(&str) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let path = |key| var(key).filter(|v| !v.is_empty()).map(|v| PathBuf::from(OsStr::from_bytes(&v)));
    if let Some(dir) = path("GOPS_CONFIG_DIR") {
        return Some(dir);
    }
    // Newer releases of Go refuse a path that is not absolute.
    if let Some(dir) = path("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()) {
        return Some(dir.join("gops"));
    }
    Some(path("HOME")?.join(".config/gops"))
}

/// Directory in which a process would have written its port file, as the process names it. Found by
/// its environment; if that does not tell or may not be read, by the home directory of its user.
pub(super) fn dir_of(process: &Process) -> Option<PathBuf> {
    let environment = process.read("environ", "read the environment").unwrap_or_default();
    let dir = config_dir(|key| variable(&environment, key)).or_else(|| {
        let uid = process.status().ok()?.uids?[1];
        Some(home_in_root(process, uid)?.join(".config/gops"))
    })?;
    // A relative path depends on the working directory at that time.
    dir.is_absolute().then_some(dir)
}

/// Value of a variable in an environment in the form of /proc/PID/environ.
pub fn variable(environment: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut variables = environment.split(|&b| b == 0);
    variables.find_map(|v| v.strip_prefix(key.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec))
}

/// Home directory of a user from the `/etc/passwd` of the process.
fn home_in_root(process: &Process, uid: u32) -> Option<PathBuf> {
    let file = RegularFile::open_in_root(process, Path::new("/etc/passwd"), Links::Follow).ok()?;
    home_in_passwd(&file.read_up_to(MAX_PASSWD).ok()?, uid)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn ports() {
        assert_eq!(parse_port(b"4711"), Ok(4711));
        assert_eq!(parse_port(b" 4711\n"), Ok(4711));
        for wrong in [&b""[..], b"0", b"65536", b"+1", b"-1", b"0x10", b"47 11", b"\xff"] {
            assert_eq!(parse_port(wrong), Err(Problem::NoNumber), "{wrong:?}");
        }
        assert_eq!(parse_port(&[b' '; 17]), Err(Problem::TooLong));
    }

    #[test]
    fn forged_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(read(&path("none")), Err(Problem::Missing));
        std::fs::write(path("good"), "4711\n").unwrap();
        assert_eq!(read(&path("good")).unwrap().port, 4711);
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        assert_eq!(read(&path("link")), Err(Problem::Link));
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path("fifo")), Err(Problem::Special));
        assert_eq!(read(dir.path()), Err(Problem::Special));
        let huge = File::create(path("huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert_eq!(read(&path("huge")), Err(Problem::TooLong));
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

    #[test]
    fn environments() {
        let environment = b"HOMER=1\0HOME=/home/a\0HOME=/home/b\0broken\0";
        assert_eq!(variable(environment, "HOME").as_deref(), Some(&b"/home/a"[..]));
        assert_eq!(variable(environment, "broken"), None);
    }
}
