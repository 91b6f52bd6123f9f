//! Pages of a process that are in physical memory now.
//!
//! Reading any other page makes the kernel fetch it first: from a swap device, from a file that may
//! be on a server, or from the thread that serves the page (userfaultfd(2)). That can be a thread
//! of the stopped process itself, so that the read would never end. So only present pages are read
//! in a stop. They stay present, as the threads that could remove them are stopped too.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use nix::unistd::{SysconfVar, sysconf};

/// Reader of /proc/PID/pagemap, which has a word for each page
/// (Documentation/admin-guide/mm/pagemap.rst in the kernel).
#[derive(Debug)]
pub(super) struct Presence {
    pagemap: File,
    page: u64,
    /// Bit set of present pages among 64 neighbours, by the number of the first page divided by 64.
    known: HashMap<u64, u64>,
}

const PRESENT: u64 = 1 << 63;
const WORD: u64 = size_of::<u64>() as u64;
const BLOCK: u64 = 64;

impl Presence {
    /// Opens the pagemap of process `pid`; `None` if it cannot be opened.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok()?;
        Some(Presence { pagemap, page: u64::try_from(page).ok()?, known: HashMap::new() })
    }

    /// Forgets the known pages, as another stop begins.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Address of the first absent page of a range.
    pub(super) fn first_absent(&mut self, start: u64, len: u64) -> Option<u64> {
        let last = start.checked_add(len.checked_sub(1)?)? / self.page;
        let mut number = start / self.page;
        while number <= last {
            let block = number / BLOCK;
            let pages = match self.known.get(&block) {
                Some(&pages) => pages,
                None => {
                    let pages = self.look(block);
                    self.known.insert(block, pages);
                    pages
                }
            };
            let ends = (block + 1) * BLOCK - 1;
            for n in number..=ends.min(last) {
                if pages & (1 << (n % BLOCK)) == 0 {
                    return Some(n * self.page);
                }
            }
            number = ends.saturating_add(1);
        }
        None
    }

    /// Bit set of the present pages of a block. Pages beyond the end of the address space count as
    /// absent.
    fn look(&self, block: u64) -> u64 {
        let mut words = [0; (BLOCK * WORD) as usize];
        let mut read = 0;
        while let Some(rest) = words.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let Some(at) = block.checked_mul(BLOCK * WORD).and_then(|at| at.checked_add(read as u64)) else {
                break;
            };
            match self.pagemap.read_at(rest, at) {
                Ok(n) if n > 0 => read += n,
                _ => break,
            }
        }
        let whole = words.get(..read).unwrap_or_default().chunks_exact(WORD as usize);
        let there = whole.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()) & PRESENT != 0);
        there.enumerate().fold(0, |pages, (i, there)| pages | (u64::from(there) << i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_nobody_has_touched_are_absent() {
        let Some(mut presence) = Presence::of(i32::try_from(std::process::id()).unwrap()) else { return };
        let page = presence.page as usize;
        // Pages of its own, not yet touched.
        let mut memory = vec![0u8; 300 * page];
        let first = (memory.as_ptr() as usize).next_multiple_of(page);
        let begins = first - memory.as_ptr() as usize;
        let at = |n: usize| (first + n * page) as u64;
        for n in [0, 1, 2, 100, 101] {
            memory[begins + n * page] = 1;
        }
        assert_eq!(presence.first_absent(at(0), 3 * page as u64), None);
        assert_eq!(presence.first_absent(at(1) + 8, page as u64 + 1), None);
        assert_eq!(presence.first_absent(at(1), 0), None);
        let absent = presence.first_absent(at(0), 200 * page as u64);
        // With large pages, neighbours become present together with a touched page.
        if let Some(absent) = absent {
            assert!((at(3)..at(200)).contains(&absent), "{absent:#x} {:#x}", at(0));
            memory[begins + (absent - at(0)) as usize] = 1;
            assert_eq!(presence.first_absent(absent, 8), Some(absent));
            presence.forget();
            assert_eq!(presence.first_absent(absent, 8), None);
        }
        for nowhere in [0, u64::MAX - 7] {
            assert!(presence.first_absent(nowhere, 8).is_some(), "{nowhere:#x}");
        }
    }
}
