//! Pages of memory, in which the kernel maps it: their size is asked of the system.

use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

/// The size of a page in bytes: 4, 16 or 64 KiB.
pub fn page_size() -> u64 {
    /// Where the system does not say.
    const USUAL: u64 = 4096;
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        size.filter(|size| size.is_power_of_two()).unwrap_or(USUAL)
    })
}
