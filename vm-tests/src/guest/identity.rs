//! User and capabilities of a process.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::Failure;

/// Who a program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User and group.
    pub uid: u32,
    /// All capabilities that it has.
    pub capabilities: &'static [Capability],
}

/// The user that targets belong to.
pub(crate) const OWNER: Identity = Identity { uid: 1, capabilities: &[] };

/// Another user.
pub(crate) const OTHER: Identity = Identity { uid: 2, capabilities: &[] };

/// A user whom no machine knows.
pub(crate) const UNKNOWN: Identity = Identity { uid: 54_321, capabilities: &[] };

/// Root in name only.
pub(crate) const BARE_ROOT: Identity = Identity { uid: 0, capabilities: &[] };

impl Identity {
    /// The same user with these capabilities.
    pub(crate) const fn with(self, capabilities: &'static [Capability]) -> Self {
        Self { capabilities, ..self }
    }

    /// The capabilities as an argument of the runner.
    pub(crate) fn names(self) -> String {
        let names: Vec<String> = self.capabilities.iter().map(ToString::to_string).collect();
        names.join(",")
    }
}

/// Becomes a user with exactly these capabilities, and the program of the command. Returns only where it fails.
pub fn become_program(uid: u32, capabilities: &[Capability], mut command: Command) -> Failure {
    match assume(uid, capabilities) {
        Ok(()) => format!("{command:?} cannot be started: {}", command.exec()).into(),
        Err(error) => error,
    }
}

fn assume(uid: u32, capabilities: &[Capability]) -> Result<(), Failure> {
    let wanted: CapsHashSet = capabilities.iter().copied().collect();
    // What root executes gets all that is in the bounding set.
    for capability in caps::runtime::thread_all_supported().difference(&wanted) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    setgroups(&[])?;
    setgid(Gid::from_raw(uid))?;
    if uid != 0 {
        caps::securebits::set_keepcaps(true)?;
        setuid(Uid::from_raw(uid))?;
    }
    // Ambient capabilities are what other users keep when they execute a program.
    caps::set(None, CapSet::Effective, &CapsHashSet::new())?;
    caps::set(None, CapSet::Permitted, &wanted)?;
    caps::set(None, CapSet::Inheritable, &wanted)?;
    caps::set(None, CapSet::Ambient, &wanted)?;
    Ok(())
}
