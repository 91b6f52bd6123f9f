//! Which pages of a process are in its memory now.
//!
//! To read any other has the kernel fetch it first: from a swap device, from a file that may be a server's, or from whoever serves
//! the page (userfaultfd(2)), which can be a thread of the very process that is stopped, so that the read would never end. So
//! nothing but what is there is read in a stop. It stays there, as those who could take it away are stopped too.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use nix::unistd::{SysconfVar, sysconf};

/// /proc/PID/pagemap has a word for each page (Documentation/admin-guide/mm/pagemap.rst in the kernel).
#[derive(Debug)]
pub(super) struct Presence {
    pagemap: File,
    page: u64,
    /// Which of 64 neighbouring pages are there, by the number of the first, divided by 64.
    known: HashMap<u64, u64>,
}

const PRESENT: u64 = 1 << 63;
const WORD: u64 = size_of::<u64>() as u64;
const BLOCK: u64 = 64;

impl Presence {
    /// Of process `pid`; `None` where the kernel does not say it.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok()?;
        Some(Presence { pagemap, page: u64::try_from(page).ok()?, known: HashMap::new() })
    }

    /// Forgets what was seen: another stop begins.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The address of the first page of a range that is not there.
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

    /// Which pages of a block are there. Those beyond the end of all addresses are not.
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
        // Where large pages are in use, neighbours come with what was touched.
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
