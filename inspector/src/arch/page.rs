//! Size of memory pages, as the system reports it.

use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

/// Size of a page in bytes: 4, 16 or 64 KiB.
pub fn page_size() -> u64 {
    /// Size used if the system does not report one.
    const USUAL: u64 = 4096;
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        size.filter(|size| size.is_power_of_two()).unwrap_or(USUAL)
    })
}
