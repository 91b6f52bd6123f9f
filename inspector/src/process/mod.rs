//! Processes: listing, facts from /proc, and their programs.
//!
//! [`Process`] is the one interface through which a process is read: its memory, its mappings, its
//! files and its threads. Readers of a Go runtime take it, or its `dyn Memory`, and no pid. Only
//! stops use the pid, as the kernel grants them by number.

pub mod access;
pub mod cgroup;
pub mod connections;
mod crew;
pub mod details;
mod enter;
mod error;
pub mod executable;
pub mod facts;
mod files;
pub mod find;
pub(crate) mod foreign;
pub mod maps;
mod memory;
mod modules;
mod pin;
mod proc;
mod programs;
pub mod regular;
pub mod select;
pub mod sock_diag;
pub mod tasks;
mod threads;
mod timezone;
pub mod users;

use std::fmt;
use std::str::FromStr;

pub use error::Error;
pub(crate) use memory::memory_of;
pub use pin::{Namespace, Process};
pub use proc::Foreign;
pub(crate) use threads::living_thread;

/// Process id in our own pid namespace: at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(i32);

impl Pid {
    /// Value for system calls.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

/// Error that a text or number is no pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pid is a number from 1 to {max}", max = i32::MAX)]
pub struct InvalidPid;

impl TryFrom<u64> for Pid {
    type Error = InvalidPid;

    fn try_from(value: u64) -> Result<Self, InvalidPid> {
        i32::try_from(value).ok().filter(|&pid| pid > 0).map(Pid).ok_or(InvalidPid)
    }
}

impl TryFrom<u32> for Pid {
    type Error = InvalidPid;

    fn try_from(value: u32) -> Result<Self, InvalidPid> {
        u64::from(value).try_into()
    }
}

impl FromStr for Pid {
    type Err = InvalidPid;

    fn from_str(text: &str) -> Result<Self, InvalidPid> {
        text.parse::<i32>().ok().filter(|&pid| pid > 0).map(Pid).ok_or(InvalidPid)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Pid> for nix::unistd::Pid {
    fn from(pid: Pid) -> Self {
        nix::unistd::Pid::from_raw(pid.0)
    }
}

impl From<Pid> for rustix::process::Pid {
    fn from(pid: Pid) -> Self {
        rustix::process::Pid::from_raw(pid.0).unwrap_or(rustix::process::Pid::INIT)
    }
}
