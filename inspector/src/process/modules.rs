//! Shared objects that a process has mapped: where Go code is that a C program loaded.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::executable::Executable;
use super::{Error, Process, access::Access};

/// A file that is mapped executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First runtime address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Major and minor number of the device, as /proc/PID/maps has them.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Its path in the mount namespace of the process, escaped as the kernel does.
    pub path: Vec<u8>,
}

/// Programs with more mappings exist (65,530 is the default limit); a larger file is cut off.
const MAX_MAPS: u64 = 32 << 20;

impl Process {
    /// The executable mappings of files, without that of the executable itself; one for each file.
    ///
    /// # Errors
    /// [`Error::Denied`] with the reason; [`Error::Exited`].
    pub fn shared_objects(&self) -> Result<Vec<Mapping>, Error> {
        let failed = |e| self.explain("read the memory map", Access::Read, e);
        let fd = rustix::fs::openat(self.dir(), "maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(e.into()))?;
        let mut maps = Vec::new();
        File::from(fd).take(MAX_MAPS).read_to_end(&mut maps).map_err(failed)?;
        let exe = self.exe_path().unwrap_or_default();
        let mut seen = HashSet::new();
        let mut objects = executable_files(&maps);
        objects.retain(|m| m.path != exe && seen.insert((m.device, m.inode)));
        Ok(objects)
    }

    /// Opens a mapped file: through the mapping itself where we may, else by its path below the root of the process.
    ///
    /// # Errors
    /// What the kernel says, or that the path now leads to another file.
    pub fn open_mapping(&self, mapping: &Mapping) -> io::Result<Executable> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let link = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        if let Ok(fd) = rustix::fs::openat(self.dir(), link, flags, Mode::empty()) {
            return Executable::new(fd);
        }
        let file = File::from(self.open_in_root(Path::new(OsStr::from_bytes(&mapping.path)), flags)?);
        // Some file systems report another device number to stat than in maps, so the inode decides.
        if file.metadata()?.ino() != mapping.inode {
            return Err(io::Error::other("its path leads to another file now"));
        }
        Executable::new(file.into())
    }
}

/// The lines of /proc/PID/maps that map a file executable.
fn executable_files(maps: &[u8]) -> Vec<Mapping> {
    maps.split(|&b| b == b'\n').filter_map(executable_file).collect()
}

fn executable_file(line: &[u8]) -> Option<Mapping> {
    let path_at = line.iter().position(|&b| b == b'/')?;
    let mut fields = std::str::from_utf8(line.get(..path_at)?).ok()?.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    (permissions.contains('x') && inode != 0).then(|| {
        Some(Mapping {
            start: hex(start)?,
            end: hex(end)?,
            offset: hex(offset)?,
            device,
            inode,
            path: line.get(path_at..)?.to_vec(),
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let maps = b"00400000-00401000 r--p 00000000 fe:00 11 /bin/x\n\
            00401000-00402000 r-xp 00001000 fe:00 11 /bin/x\n\
            7f0000000000-7f0000001000 r-xp 00002000 08:1f 12 /lib/a b\\012.so (deleted)\n\
            7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]\n\
            7ffe00000000-7ffe00001000 r-xp 00000000 00:00 0 \n\
            nonsense / \n";
        let found = executable_files(maps);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].start, found[0].inode), (0x401000, 11));
        assert_eq!((found[1].device, found[1].offset), ((8, 0x1f), 0x2000));
        assert_eq!(found[1].path, b"/lib/a b\\012.so (deleted)");
        for end in 0..maps.len() {
            executable_files(&maps[..end]);
        }
    }
}
