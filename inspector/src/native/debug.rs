//! Separate debug files, at the places where gdb looks for them: below the root directory of the process,
//! then below ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use symbols::image::Source;
use symbols::native::{AltLink, Links, debug_path};

use crate::process::Process;
use crate::process::executable::Executable;
use crate::process::regular::{Links::Follow, NotOpened, RegularFile};

const DEBUG_ROOT: &str = "/usr/lib/debug";
/// Maximum size of a file whose checksum is computed, in bytes.
const MAX_CHECKED: u64 = 2 << 30;

/// Debug files of a file with code.
#[derive(Debug, Default)]
pub(super) struct DebugFiles {
    /// Debug file with symbols and DWARF.
    pub(super) debug: Option<Executable>,
    /// Debug file with the parts of the DWARF that several files share.
    pub(super) alt: Option<Executable>,
}

/// Finds the debug files of `file`, which the process has mapped from `path`.
pub(super) fn find(process: &Process, path: &[u8], file: &dyn Source) -> DebugFiles {
    let links = Links::read(file);
    if links.has_dwarf {
        let alt = links.alt.and_then(|alt| shared(process, path, &alt));
        return DebugFiles { debug: None, alt };
    }
    let by_id = links.build_id.as_ref().and_then(|id| {
        let path = PathBuf::from(debug_path(id)?);
        let debug = open(process, &path, |_, links| links.build_id.as_ref() == Some(id))?;
        Some((path, debug))
    });
    let found = by_id.or_else(|| {
        let link = links.debug.as_ref()?;
        let directory = Path::new(OsStr::from_bytes(path)).parent()?;
        let name = OsStr::from_bytes(&link.name);
        let global = Path::new(DEBUG_ROOT).join(directory.strip_prefix("/").ok()?);
        [directory.join(name), directory.join(".debug").join(name), global.join(name)].into_iter().find_map(
            |path| {
                let is_it = |file: &Executable, its: &Links| match (&links.build_id, &its.build_id) {
                    (Some(id), Some(its)) => id == its,
                    _ => checksum(file) == Some(link.crc),
                };
                let debug = open(process, &path, is_it)?;
                Some((path, debug))
            },
        )
    });
    let Some((path, (debug, links))) = found else { return DebugFiles::default() };
    let alt = links.alt.and_then(|alt| shared(process, path.as_os_str().as_bytes(), &alt));
    DebugFiles { debug: Some(debug), alt }
}

/// Finds the file that the debug file at `from` shares with others.
fn shared(process: &Process, from: &[u8], link: &AltLink) -> Option<Executable> {
    let directory = Path::new(OsStr::from_bytes(from)).parent()?;
    let path = directory.join(OsStr::from_bytes(&link.path));
    let by_id = debug_path(&link.build_id).map(PathBuf::from);
    let is_it = |_: &Executable, links: &Links| links.build_id.as_ref() == Some(&link.build_id);
    [Some(path), by_id]
        .into_iter()
        .flatten()
        .find_map(|path| open(process, &path, is_it))
        .map(|(file, _)| file)
}

/// Opens a file in either root directory, if it is the right one.
fn open(
    process: &Process,
    path: &Path,
    is_it: impl Fn(&Executable, &Links) -> bool,
) -> Option<(Executable, Links)> {
    let check = |file: Result<RegularFile, NotOpened>| {
        let file = Executable::new(file.ok()?).ok()?;
        let links = Links::read(&file);
        is_it(&file, &links).then_some((file, links))
    };
    check(RegularFile::open_in_root(process, path, Follow)).or_else(|| check(RegularFile::open(path, Follow)))
}

/// Computes the CRC-32 of a file.
fn checksum(file: &Executable) -> Option<u32> {
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 1 << 20];
    let len = Source::len(file);
    if len > MAX_CHECKED {
        return None;
    }
    let mut at = 0;
    while at < len {
        let size = usize::try_from(len - at).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..size)?;
        file.read_at(at, part).then_some(())?;
        crc.update(part);
        at += size as u64;
    }
    Some(crc.sum())
}
