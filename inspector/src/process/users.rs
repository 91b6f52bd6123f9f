//! Names and home directories of users.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::regular::{Links, RegularFile};

/// Maximum size read of `/etc/passwd`: enough for a machine with many users.
pub(crate) const MAX_PASSWD: u64 = 1 << 20;

/// Name of a user of this machine. `None` if no user has this id.
pub fn name(uid: u32) -> Option<String> {
    name_in_passwd(&passwd()?, uid).or_else(|| elsewhere(uid, |user| Some(user.name)))
}

/// Home directory of a user of this machine. `None` if no user has this id.
pub fn home(uid: u32) -> Option<PathBuf> {
    home_in_passwd(&passwd()?, uid).or_else(|| elsewhere(uid, |user| Some(user.dir)))
}

/// Contents of `/etc/passwd`. The file has most users of most machines, and is much cheaper than
/// asking all sources of names.
fn passwd() -> Option<Vec<u8>> {
    RegularFile::open(Path::new("/etc/passwd"), Links::Follow).ok()?.read_up_to(MAX_PASSWD).ok()
}

/// Looks for a user in the other sources of `/etc/nsswitch.conf`, such as directory services.
///
/// The C library loads a plug-in for each source. A static program has no matching plug-ins, and
/// crashes if it loads one of the machine's own C library. So it knows only the users of the file.
fn elsewhere<T>(uid: u32, part: impl FnOnce(nix::unistd::User) -> Option<T>) -> Option<T> {
    if is_static() {
        return None;
    }
    part(nix::unistd::User::from_uid(uid.into()).ok()??)
}

/// Returns true if this program was started without a dynamic linker. The way the libraries were
/// compiled does not tell how they were linked.
fn is_static() -> bool {
    // SAFETY: takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// Name of a user in `/etc/passwd` (passwd(5)).
pub fn name_in_passwd(text: &[u8], uid: u32) -> Option<String> {
    field(text, uid, 0).map(|name| String::from_utf8_lossy(name).into_owned())
}

/// Home directory of a user in `/etc/passwd` (passwd(5)).
pub fn home_in_passwd(text: &[u8], uid: u32) -> Option<PathBuf> {
    field(text, uid, 5).map(|home| PathBuf::from(OsStr::from_bytes(home)))
}

/// Field number `which` of the user's first line in which it is not empty; the third field is the
/// user id.
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
