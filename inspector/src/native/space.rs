//! Address space of a process: its mapped code.

use std::rc::Rc;
use std::time::{Duration, Instant};

use symbols::addr::{LinkAddr, LoadBias, RuntimeAddr};
use symbols::build_id::BuildIds;

use super::files::{CodeFile, Files};
use crate::process::maps::Mapping;
use crate::process::{self, Pid, Process};
use crate::profile::{self, mappings};

/// Minimum time between two reads of the memory map, if code runs in no known mapping.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of mappings; the default limit of the kernel for a process.
const MAX_REGIONS: usize = 1 << 16;

/// Mapped code of a process. The process is looked up by pid each time: many processes may be known, and
/// files cannot stay open for each.
#[derive(Debug)]
pub(super) struct Space {
    pid: Pid,
    /// Start time of the process; the pid may be reused.
    started: u64,
    files: Files,
    /// Regions, sorted and without overlaps. An unmapped region stays until its addresses are mapped again,
    /// because samples are named later.
    regions: Vec<Region>,
    /// Time of the last read of the memory map.
    read: Instant,
    added: Vec<profile::Mapping>,
}

#[derive(Debug)]
struct Region {
    mapping: Mapping,
    code: Code,
}

#[derive(Debug)]
enum Code {
    /// Code that was not looked up yet.
    New,
    /// Code of which nothing can be known.
    Unknown,
    In(Rc<CodeFile>, LoadBias),
}

impl Space {
    pub(super) fn read(process: &Process, files: &Files) -> Result<Self, process::Error> {
        let mut space = Space {
            pid: process.pid(),
            started: process.pinned_stat().start_time,
            files: files.clone(),
            regions: Vec::new(),
            read: Instant::now(),
            added: Vec::new(),
        };
        space.merge(process.mappings()?);
        Ok(space)
    }

    /// Returns the executable mappings that have a file or a name.
    pub(super) fn mappings(&self, process: &Process) -> Vec<profile::Mapping> {
        let all: Vec<Mapping> = self.regions.iter().map(|r| r.mapping.clone()).collect();
        self.shown(process, &all)
    }

    fn shown(&self, process: &Process, mappings: &[Mapping]) -> Vec<profile::Mapping> {
        let build_ids =
            |m: &Mapping| BuildIds { gnu: Some(self.files.build_id(process, m)), ..BuildIds::default() };
        mappings::executable_mappings(mappings, build_ids)
    }

    /// Takes the mappings found after the start and not taken yet.
    pub(super) fn take_added(&mut self) -> Vec<profile::Mapping> {
        std::mem::take(&mut self.added)
    }

    /// Returns true if there is code at the address.
    pub(super) fn is_code(&mut self, pc: u64) -> bool {
        self.region(pc).is_some()
    }

    /// Returns the file with the code at an address, and the link address in it.
    pub(super) fn find(&mut self, pc: u64) -> Option<(&CodeFile, LinkAddr)> {
        let index = self.region(pc)?;
        if matches!(self.regions.get(index)?.code, Code::New) {
            // The main thread may have ended, or the whole process.
            let process = self.process();
            let region = self.regions.get_mut(index)?;
            let file = process.and_then(|process| self.files.of(&process, &region.mapping));
            let found = file.and_then(|file| file.bias(&region.mapping).map(|bias| (file, bias)));
            region.code = found.map_or(Code::Unknown, |(file, bias)| Code::In(file, bias));
        }
        match &self.regions.get(index)?.code {
            Code::In(file, bias) => Some((file, bias.link(RuntimeAddr(pc)))),
            Code::New | Code::Unknown => None,
        }
    }

    fn process(&self) -> Option<Process> {
        Process::pin(self.pid).ok().filter(|p| p.pinned_stat().start_time == self.started)
    }

    /// Returns the region of an address. Reads the memory map again if no region is known.
    fn region(&mut self, pc: u64) -> Option<usize> {
        if let Some(index) = self.known(pc) {
            return Some(index);
        }
        if self.read.elapsed() < PAUSE {
            return None;
        }
        self.read = Instant::now();
        let process = self.process()?;
        let new = self.merge(process.mappings().ok()?);
        let shown = self.shown(&process, &new);
        self.added.extend(shown);
        self.known(pc)
    }

    fn known(&self, pc: u64) -> Option<usize> {
        let index = self.regions.partition_point(|r| r.mapping.start <= pc).checked_sub(1)?;
        self.regions.get(index)?.mapping.contains(pc).then_some(index)
    }

    /// Merges the present mappings into the regions. Returns the new mappings.
    fn merge(&mut self, mut now: Vec<Mapping>) -> Vec<Mapping> {
        now.retain(|m| m.executable && m.start < m.end);
        now.sort_by_key(|m| m.start);
        now.truncate(MAX_REGIONS);
        let old = std::mem::take(&mut self.regions);
        // A new mapping over part of an old region replaces it.
        let stays = |region: &Region| {
            let next = now.partition_point(|m| m.end <= region.mapping.start);
            now.get(next).is_none_or(|m| region.mapping.end <= m.start || *m == region.mapping)
        };
        let kept: Vec<Region> = old.into_iter().filter(stays).collect();
        let known = |m: &Mapping| kept.binary_search_by_key(&m.start, |r| r.mapping.start).is_ok();
        let mut new: Vec<Mapping> = now.iter().filter(|m| !known(m)).cloned().collect();
        // Each mapping is stored twice, and once more in a profile.
        let size: usize = new.iter().map(|m| 3 * (size_of::<Mapping>() + m.path.len())).sum();
        if !self.files.take_maps(size as u64, new.len()) {
            new.clear();
        }
        self.regions = kept;
        if self.regions.len() + new.len() > MAX_REGIONS {
            self.regions.retain(|r| now.binary_search_by_key(&r.mapping.start, |m| m.start).is_ok());
        }
        self.regions.extend(new.iter().map(|m| Region { mapping: m.clone(), code: Code::New }));
        self.regions.sort_by_key(|r| r.mapping.start);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lines: &[(u64, u64, u64)]) -> Vec<Mapping> {
        let line =
            |&(start, end, inode): &(u64, u64, u64)| format!("{start:x}-{end:x} r-xp 0 fe:00 {inode} /a\n");
        Mapping::parse_all(lines.iter().map(line).collect::<String>().as_bytes())
    }

    #[test]
    fn what_is_mapped_later() {
        let process = Process::pin(std::process::id().try_into().unwrap()).unwrap();
        let mut space = Space::read(&process, &Files::default()).unwrap();
        space.regions.clear();
        let inodes = |space: &Space| space.regions.iter().map(|r| r.mapping.inode).collect::<Vec<_>>();
        assert_eq!(space.merge(at(&[(0x1000, 0x3000, 1), (0x5000, 0x6000, 2)])).len(), 2);
        space.regions[0].code = Code::Unknown;
        // The second region is unmapped; the new one lies beside.
        assert_eq!(space.merge(at(&[(0x1000, 0x3000, 1), (0x3000, 0x4000, 3)])).len(), 1);
        assert_eq!(inodes(&space), [1, 3, 2]);
        assert!(matches!(space.regions[0].code, Code::Unknown), "it is still the same");
        // Another mapping replaces the first two.
        assert_eq!(space.merge(at(&[(0x2000, 0x3800, 4)])).len(), 1);
        assert_eq!(inodes(&space), [4, 2]);
        assert!(space.known(0x37ff).is_some() && space.known(0x3800).is_none() && space.known(0).is_none());
    }

    #[test]
    fn our_own_code() {
        let process = Process::pin(std::process::id().try_into().unwrap()).unwrap();
        let files = Files::default();
        let mut space = Space::read(&process, &files).unwrap();
        let here = our_own_code as fn() as usize as u64;
        let (file, link) = space.find(here).unwrap();
        let frames = file.frames(link);
        assert!(frames.iter().any(|f| f.name.ends_with("our_own_code")), "{frames:?}");
        let file = std::ptr::from_ref(file);
        let mut again = Space::read(&process, &files).unwrap();
        assert_eq!(std::ptr::from_ref(again.find(here).unwrap().0), file, "files are shared");
        assert!(!space.is_code(0x10) && space.find(0x10).is_none());
        // Code of the kernel.
        let vdso = space.regions.iter().find(|r| r.mapping.path == b"[vdso]").unwrap().mapping.clone();
        let (vdso_file, _) = space.find(vdso.start).unwrap();
        let names = (vdso.start..vdso.end).filter_map(|pc| vdso_file.frames(LinkAddr(pc - vdso.start)).pop());
        assert!(names.into_iter().any(|f| f.name.contains("clock_gettime")));
    }
}
