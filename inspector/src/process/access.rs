//! Reason why the kernel denies access to a process. Found by checking the rules of `ptrace(2)`,
//! section "Ptrace access mode checking", one after the other.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD};
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use super::facts::Status;
use super::pin::read_file;
use super::{Namespace, Process};

/// Access that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `PTRACE_MODE_READ`: /proc/PID/exe, maps.
    Read,
    /// `PTRACE_MODE_READ`, and /proc/PID/fd has to be listed, which its mode 0500 allows to its owner
    /// (proc_fd_permission in Linux's fs/proc/fd.c).
    OpenFiles,
    /// `PTRACE_MODE_ATTACH`: memory, ptrace; subject to Yama.
    Attach,
}

/// Reason why access was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// We are not root, and the process belongs to another user.
    OtherUser {
        /// User id of the process.
        owner: u32,
    },
    /// Yama restricts access to ancestors (1), to holders of CAP_SYS_PTRACE (2) or to nobody (3).
    Yama {
        /// Value of /proc/sys/kernel/yama/ptrace_scope.
        scope: u32,
    },
    /// We are root, or the same user, but lack CAP_SYS_PTRACE, as in most containers.
    MissingCapability,
    /// The process is in a user namespace in which our capabilities do not count.
    UserNamespace,
    /// The process is not dumpable: it asked for that, or a set-uid program did.
    NotDumpable,
    /// The process holds capabilities that we do not hold.
    MoreCapable,
    /// We may inspect the process, but not read the file that it executes.
    Unreadable,
    /// We may inspect the process, but only its owner may list the folder /proc/PID/fd.
    PrivateFolder {
        /// User id of the folder's owner.
        owner: u32,
    },
    /// Access is allowed, as a later check showed: another process traced one of its threads at
    /// that moment.
    Busy,
    /// /proc shows processes of other users only to root (`hidepid`).
    Hidden,
    /// No known reason applies: a security module or a seccomp filter may deny it.
    Unknown,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::OtherUser { owner } => {
                write!(f, "permission denied: it belongs to another user (uid {owner})")
            }
            Denial::Yama { scope } => {
                write!(f, "permission denied: kernel.yama.ptrace_scope is {scope}")
            }
            Denial::MissingCapability => f.write_str("permission denied: we do not have CAP_SYS_PTRACE"),
            Denial::UserNamespace => {
                f.write_str("permission denied: it is in a user namespace where we have no capabilities")
            }
            Denial::NotDumpable => f.write_str("permission denied: it is not dumpable"),
            Denial::MoreCapable => f.write_str("permission denied: it has capabilities that we do not have"),
            Denial::Unreadable => f.write_str("permission denied: the file itself may not be read"),
            Denial::PrivateFolder { owner } => write!(
                f,
                "permission denied: /proc/PID/fd is its owner's alone (uid {owner}), and we do not have \
                 CAP_DAC_READ_SEARCH"
            ),
            Denial::Busy => f.write_str("another process traced one of its threads at that moment"),
            Denial::Hidden => f.write_str("permission denied: /proc is mounted with hidepid, which hides it"),
            Denial::Unknown => {
                f.write_str("permission denied, though user, capabilities and Yama would allow it")
            }
        }
    }
}

/// Hint how to get more rights: become root, or, if we are root already, add the missing
/// capability.
pub(crate) fn more_rights() -> &'static str {
    rights_for(rustix::process::geteuid().is_root())
}

fn rights_for(root: bool) -> &'static str {
    if root {
        "this root lacks capabilities: in a container, add CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE --pid ..., or \
         kubectl debug --profile=general), or run on the host"
    } else {
        "run with sudo"
    }
}

impl Denial {
    /// Remedy for this denial.
    pub fn hint(&self) -> Option<String> {
        Some(self.hint_for(rustix::process::geteuid().is_root()))
    }

    fn hint_for(&self, root: bool) -> String {
        let rights = rights_for(root);
        match self {
            Denial::OtherUser { .. } | Denial::Hidden => rights.to_owned(),
            Denial::Yama { scope: 3 } => {
                "kernel.yama.ptrace_scope=3 cannot be lifted until the machine restarts".to_owned()
            }
            Denial::Yama { .. } => format!("{rights}, or as root: sysctl kernel.yama.ptrace_scope=0"),
            Denial::MissingCapability if root => rights.to_owned(),
            Denial::MissingCapability => {
                "run with sudo; in a container, add the capability: docker run --cap-add SYS_PTRACE --pid ..., or kubectl \
                 debug --profile=general"
                    .to_owned()
            }
            Denial::UserNamespace if root => "run as root outside of the container".to_owned(),
            Denial::UserNamespace => "run with sudo outside of the container".to_owned(),
            Denial::NotDumpable | Denial::MoreCapable if root => rights.to_owned(),
            Denial::NotDumpable | Denial::MoreCapable => "run with sudo (it needs CAP_SYS_PTRACE)".to_owned(),
            Denial::Unreadable => {
                "run as a user who may read it: it may be execute-only, or on a file system that denies root".to_owned()
            }
            Denial::PrivateFolder { .. } if root => {
                "this root lacks capabilities: it needs CAP_DAC_READ_SEARCH beside CAP_SYS_PTRACE".to_owned()
            }
            Denial::PrivateFolder { .. } => {
                "run with sudo; with single capabilities it needs CAP_DAC_READ_SEARCH beside CAP_SYS_PTRACE".to_owned()
            }
            Denial::Busy => "run again when that is over: a debugger, or another gops-probe".to_owned(),
            Denial::Unknown => {
                "look at the seccomp filter of this container and at the security module's log (AppArmor, SELinux)"
                    .to_owned()
            }
        }
    }
}

/// Facts on which the decision depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    our_uid: u32,
    their_uids: [u32; 3],
    capable: bool,
    /// True if we have CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE: folder modes do not restrict us.
    opens_folders: bool,
    /// Owner of the files of /proc/PID.
    owner: u32,
    same_user_namespace: bool,
    more_capable: bool,
    dumpable: bool,
    yama: Option<u32>,
}

/// Finds the reason why `access` to a process was denied.
pub fn explain(process: &Process, access: Access) -> Denial {
    let denial = collect(process, access).map_or(Denial::Unknown, |facts| decide(facts, access));
    match denial {
        // Only one process can trace a thread. Any other obstacle to tracing would also deny this
        // access.
        Denial::Unknown if access == Access::Attach && may_attach(process) => Denial::Busy,
        denial => denial,
    }
}

/// Returns true if we may attach to the process. Tested with a file that needs the same right
/// (proc_pid_personality in Linux's fs/proc/base.c).
fn may_attach(process: &Process) -> bool {
    read_file(process.dir(), "personality").is_ok()
}

/// Collects the facts. A listing asks for each process of other users, so few files are read.
fn collect(process: &Process, access: Access) -> Option<Facts> {
    let ours = capabilities(None).ok()?;
    let theirs = Status::parse(&read_file(process.dir(), "status").ok()?);
    let their_uids = theirs.uids?;
    // The files of a process that is not dumpable belong to root.
    let owner = rustix::fs::statat(process.dir(), "stat", AtFlags::empty()).ok()?.st_uid;
    // The link is unreadable for the same reason as everything else, so only a visible difference
    // counts.
    let same_user_namespace = match process.is_in_other_namespace(Namespace::User) {
        Some(other) => !other,
        None => theirs.ns_pids.len() <= our_depth() || owner != 65534,
    };
    let effective = |any| ours.effective.intersects(any);
    Some(Facts {
        our_uid: geteuid().as_raw(),
        their_uids: [their_uids[0], their_uids[1], their_uids[2]],
        capable: effective(CapabilitySet::SYS_PTRACE),
        opens_folders: effective(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH),
        owner,
        same_user_namespace,
        more_capable: theirs.cap_permitted? & !ours.permitted.bits() != 0,
        dumpable: owner == their_uids[1],
        yama: (access == Access::Attach).then(yama).flatten(),
    })
}

/// Number of nested pid namespaces that we are in.
fn our_depth() -> usize {
    static DEPTH: OnceLock<usize> = OnceLock::new();
    *DEPTH.get_or_init(|| {
        read_file(CWD, "/proc/self/status").map_or(0, |status| Status::parse(&status).ns_pids.len())
    })
}

/// Value of Yama's ptrace_scope; `None` if the kernel has no Yama.
fn yama() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

fn decide(facts: Facts, access: Access) -> Denial {
    let same_user = facts.their_uids.iter().all(|&u| u == facts.our_uid);
    let yama = facts.yama.filter(|&scope| scope > 0 && access == Access::Attach);
    match yama {
        Some(scope @ 3..) => return Denial::Yama { scope },
        Some(scope) if !facts.capable && same_user => return Denial::Yama { scope },
        _ => {}
    }
    if facts.capable {
        return if !facts.same_user_namespace {
            Denial::UserNamespace
        } else if access == Access::OpenFiles && !facts.opens_folders && facts.owner != facts.our_uid {
            Denial::PrivateFolder { owner: facts.owner }
        } else {
            Denial::Unknown
        };
    }
    if !same_user {
        return if facts.our_uid == 0 {
            Denial::MissingCapability
        } else {
            Denial::OtherUser { owner: facts.their_uids[1] }
        };
    }
    if !facts.dumpable {
        Denial::NotDumpable
    } else if facts.more_capable {
        Denial::MoreCapable
    } else if facts.our_uid == 0 {
        Denial::MissingCapability
    } else {
        Denial::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Facts = Facts {
        our_uid: 1000,
        their_uids: [1000; 3],
        capable: false,
        opens_folders: false,
        owner: 1000,
        same_user_namespace: true,
        more_capable: false,
        dumpable: true,
        yama: Some(0),
    };

    #[test]
    fn root_is_not_told_to_become_root() {
        let all = [
            Denial::OtherUser { owner: 1 },
            Denial::Yama { scope: 1 },
            Denial::MissingCapability,
            Denial::UserNamespace,
            Denial::NotDumpable,
            Denial::MoreCapable,
            Denial::PrivateFolder { owner: 1 },
            Denial::Hidden,
        ];
        for denial in all {
            assert!(!denial.hint_for(true).contains("sudo"), "{denial}");
            assert!(denial.hint_for(false).contains("sudo"), "{denial}");
        }
    }

    #[test]
    fn reasons_are_told_apart() {
        let cases = [
            (Facts { their_uids: [0; 3], ..USER }, Denial::OtherUser { owner: 0 }),
            (Facts { their_uids: [1000, 0, 0], ..USER }, Denial::OtherUser { owner: 0 }),
            (Facts { yama: Some(1), ..USER }, Denial::Yama { scope: 1 }),
            (Facts { yama: Some(3), capable: true, ..USER }, Denial::Yama { scope: 3 }),
            (Facts { dumpable: false, ..USER }, Denial::NotDumpable),
            (Facts { more_capable: true, ..USER }, Denial::MoreCapable),
            (Facts { our_uid: 0, ..USER }, Denial::MissingCapability),
            (Facts { our_uid: 0, capable: true, same_user_namespace: false, ..USER }, Denial::UserNamespace),
            (Facts { our_uid: 0, capable: true, ..USER }, Denial::Unknown),
            (USER, Denial::Unknown),
        ];
        for (facts, denial) in cases {
            assert_eq!(decide(facts, Access::Attach), denial, "{facts:?}");
        }
        // Permission to inspect a process does not include listing its open files.
        let other = Facts { their_uids: [7; 3], owner: 7, ..USER };
        let capable = Facts { capable: true, ..other };
        let cases = [
            (other, Denial::OtherUser { owner: 7 }),
            (capable, Denial::PrivateFolder { owner: 7 }),
            (Facts { our_uid: 0, ..capable }, Denial::PrivateFolder { owner: 7 }),
            (Facts { opens_folders: true, ..capable }, Denial::Unknown),
            (Facts { capable: true, ..USER }, Denial::Unknown),
            (Facts { same_user_namespace: false, ..capable }, Denial::UserNamespace),
        ];
        for (facts, denial) in cases {
            assert_eq!(decide(facts, Access::OpenFiles), denial, "{facts:?}");
        }
        assert_eq!(decide(capable, Access::Read), Denial::Unknown);
        // Yama does not restrict reading.
        assert_eq!(
            decide(Facts { yama: Some(1), dumpable: false, ..USER }, Access::Read),
            Denial::NotDumpable
        );
    }
}
