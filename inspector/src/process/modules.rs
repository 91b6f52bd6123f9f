//! Shared objects that a process has mapped. In a C program, they may hold Go code.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::executable::Executable;
use super::maps::{self, Mapping};
use super::regular::{Links, NotOpened, RegularFile};
use super::{Error, Process, access::Access};
use crate::patience::{What, waiting};

/// Maximum bytes read of a maps file; a larger file is cut off. Programs with more than 65,530
/// mappings, the default limit, exist.
const MAX_MAPS: u64 = 32 << 20;
const USUAL_MAPS: usize = 32 << 10;

impl Process {
    /// Mappings of the process.
    ///
    /// # Errors
    /// Returns [`Error::Denied`] with the reason, or [`Error::Exited`] if the process has exited.
    pub fn mappings(&self) -> Result<Vec<Mapping>, Error> {
        let failed = |e| self.explain("read the memory map", Access::Read, e);
        let fd = rustix::fs::openat(self.dir(), "maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(e.into()))?;
        // The kernel gives a page or more per read, and no size to expect.
        let mut maps = Vec::with_capacity(USUAL_MAPS);
        File::from(fd).take(MAX_MAPS).read_to_end(&mut maps).map_err(failed)?;
        Ok(Mapping::parse_all(&maps))
    }

    /// Executable mappings of files, except those of the executable itself; one for each file.
    ///
    /// # Errors
    /// Returns [`Error::Denied`] with the reason, or [`Error::Exited`] if the process has exited.
    pub fn shared_objects(&self) -> Result<Vec<Mapping>, Error> {
        let mappings = self.mappings()?;
        Ok(self.shared_objects_of(&mappings).into_iter().cloned().collect())
    }

    /// Shared objects as in [`Process::shared_objects`], from mappings that were read already.
    pub(crate) fn shared_objects_of<'m>(&self, mappings: &'m [Mapping]) -> Vec<&'m Mapping> {
        let exe = maps::path_in_maps(&self.exe_path().unwrap_or_default());
        let mut seen = HashSet::new();
        let is_of_file = |m: &&Mapping| m.executable && m.inode != 0 && m.path.starts_with(b"/");
        let of_files = mappings.iter().filter(is_of_file);
        of_files.filter(|m| m.path != exe && seen.insert((m.device, m.inode))).collect()
    }

    /// Opens a mapped file: through the mapping itself if permitted, else by its path below the
    /// root of the process.
    ///
    /// # Errors
    /// Returns the error of the kernel, or an error if the path now leads to another file.
    pub fn open_mapping(&self, mapping: &Mapping) -> io::Result<Executable> {
        waiting(What::Proc(self.pid().as_raw(), "open a mapped file"), || self.open_mapped(mapping))
    }

    fn open_mapped(&self, mapping: &Mapping) -> io::Result<Executable> {
        let link = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        match RegularFile::open_at(self.dir(), Path::new(&link), Links::Follow) {
            Ok(file) => return Executable::new(file),
            // A mapped device has no other contents at its path.
            Err(special @ NotOpened::Special) => return Err(special.into()),
            Err(NotOpened::Refused(_)) => {}
        }
        let open = |path: &[u8]| -> io::Result<RegularFile> {
            let file = RegularFile::open_in_root(self, Path::new(OsStr::from_bytes(path)), Links::Follow)?;
            // Some file systems report another device number to stat than in maps, so the inode decides.
            if file.metadata()?.ino() == mapping.inode {
                Ok(file)
            } else {
                Err(io::Error::other("its path leads to another file now"))
            }
        };
        let file = open(&mapping.path).or_else(|e| match maps::with_newlines(&mapping.path) {
            Some(path) => open(&path),
            None => Err(e),
        })?;
        Executable::new(file)
    }
}
