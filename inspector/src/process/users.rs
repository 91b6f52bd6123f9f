//! Names and home directories of users.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::regular::{Links, RegularFile};

/// `/etc/passwd` of a machine with many users; more is not read.
pub(crate) const MAX_PASSWD: u64 = 1 << 20;

/// The name of a user of this machine. `None` where nobody has this number.
pub fn name(uid: u32) -> Option<String> {
    name_in_passwd(&passwd()?, uid).or_else(|| elsewhere(uid, |user| Some(user.name)))
}

/// The home directory of a user of this machine. `None` where nobody has this number.
pub fn home(uid: u32) -> Option<PathBuf> {
    home_in_passwd(&passwd()?, uid).or_else(|| elsewhere(uid, |user| Some(user.dir)))
}

/// The file has most users of most machines, and costs a fraction of what asking all sources of names does.
fn passwd() -> Option<Vec<u8>> {
    RegularFile::open(Path::new("/etc/passwd"), Links::Follow).ok()?.read_up_to(MAX_PASSWD).ok()
}

/// The other sources of `/etc/nsswitch.conf`, such as directory services.
///
/// The C library loads a plug-in for each. A static program has none that fit, and crashes where a plug-in of
/// the machine's own C library is loaded: it knows the users of the file alone.
fn elsewhere<T>(uid: u32, part: impl FnOnce(nix::unistd::User) -> Option<T>) -> Option<T> {
    if is_static() {
        return None;
    }
    part(nix::unistd::User::from_uid(uid.into()).ok()??)
}

/// Whether this program was started without a dynamic linker: how the libraries were compiled does not say how they
/// were linked.
fn is_static() -> bool {
    // SAFETY: it takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// The name of a user in `/etc/passwd` (passwd(5)).
pub fn name_in_passwd(text: &[u8], uid: u32) -> Option<String> {
    field(text, uid, 0).map(|name| String::from_utf8_lossy(name).into_owned())
}

/// The home directory of a user in `/etc/passwd` (passwd(5)).
pub fn home_in_passwd(text: &[u8], uid: u32) -> Option<PathBuf> {
    field(text, uid, 5).map(|home| PathBuf::from(OsStr::from_bytes(home)))
}

/// A field of the first line of a user in which it is not empty; the third is the user's number.
fn field(text: &[u8], uid: u32, which: usize) -> Option<&[u8]> {
    text.split(|&b| b == b'\n').find_map(|line| {
        let field = |which| line.split(|&b| b == b':').nth(which);
        let number: u32 = std::str::from_utf8(field(2)?).ok()?.parse().ok()?;
        field(which).filter(|field| number == uid && !field.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let passwd =
            b"# comment\nroot:x:0:0:root:/root:/bin/sh\nodd:x\n:x:7:7::/:\nnobody:*:65534:65534::/:\n";
        assert_eq!(name_in_passwd(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in_passwd(passwd, 65534).as_deref(), Some("nobody"));
        assert_eq!((name_in_passwd(passwd, 7), name_in_passwd(passwd, 1)), (None, None));
    }

    #[test]
    fn homes() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\nbad:x:7\n\nuser:x:1000:1000::/home/user:/bin/sh\nno:x:3:3:::\n";
        assert_eq!(home_in_passwd(passwd, 1000), Some("/home/user".into()));
        assert_eq!(home_in_passwd(passwd, 0), Some("/root".into()));
        assert_eq!(home_in_passwd(passwd, 7), None);
        assert_eq!(home_in_passwd(passwd, 3), None);
    }

    #[test]
    fn of_this_machine() {
        assert!(!is_static());
        assert_eq!(name(0).as_deref(), Some("root"));
        assert_eq!(name(4_000_000_123), None);
        assert_eq!(home(4_000_000_123), None);
    }
}
