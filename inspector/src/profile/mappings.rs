//! Mappings of a profile: the code that a process has mapped, and the build ids of its files.

use symbols::build_id::{self, BuildIds};
use symbols::image::Image;

use super::Mapping;
use crate::process::maps;
use crate::process::{Error, Process};

/// Maximum number of files whose build ids are read. No ordinary process maps so many; hostile ones
/// may.
const MAX_FILES: usize = 4096;

/// Executable mappings of a process, with the build ids of their files.
///
/// The files are opened through the process, so they are the ones that it runs. A file that cannot
/// be opened has no build id.
///
/// # Errors
/// Returns the errors of reading the memory map.
pub fn of(process: &Process) -> Result<Vec<Mapping>, Error> {
    let all = process.mappings()?;
    let executable = maps::path_in_maps(&process.exe_path().unwrap_or_default());
    let mut files = 0;
    Ok(executable_mappings(&all, |mapping| {
        files += 1;
        if files > MAX_FILES {
            return BuildIds::default();
        }
        let file = if mapping.path == executable {
            process.executable().ok()
        } else {
            process.open_mapping(mapping).ok()
        };
        file.and_then(|f| Image::parse(Box::new(f)).ok()).map(|i| build_id::of(&i)).unwrap_or_default()
    }))
}

/// Selects the mappings of a profile (`runtime/pprof/proto.go:parseProcSelfMaps`): the executable
/// ones that have a file or a name. `build_ids` is called once for each file.
///
/// The build id is the GNU one, or none. `go tool pprof` refuses a file whose GNU build id differs
/// from that of the mapping, and Go's own id always differs.
pub fn executable_mappings(
    all: &[maps::Mapping],
    mut build_ids: impl FnMut(&maps::Mapping) -> BuildIds,
) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut known: Vec<((u32, u32), u64, String)> = Vec::new();
    for mapping in all.iter().filter(|m| m.executable && (m.inode != 0 || !m.path.is_empty())) {
        let build_id = if mapping.inode == 0 {
            String::new()
        } else {
            match known.iter().find(|(device, inode, _)| (*device, *inode) == (mapping.device, mapping.inode))
            {
                Some((.., id)) => id.clone(),
                None => {
                    let id = build_ids(mapping).gnu.unwrap_or_default();
                    known.push((mapping.device, mapping.inode, id.clone()));
                    id
                }
            }
        };
        let path = mapping.path.strip_suffix(b" (deleted)").unwrap_or(&mapping.path);
        mappings.push(Mapping {
            start: mapping.start,
            end: mapping.end,
            offset: mapping.offset,
            file: String::from_utf8_lossy(path).into_owned(),
            build_id,
            symbolized: false,
        });
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_with_a_name() {
        let all = maps::Mapping::parse_all(
            b"00400000-00401000 r-xp 00000000 fe:00 131 /bin/a (deleted)\n\
              00401000-00402000 rw-p 00000000 fe:00 131 /bin/a\n\
              00402000-00403000 r-xp 00001000 fe:00 131 /bin/a (deleted)\n\
              00500000-00501000 r-xp 00000000 00:00 0 \n\
              7ffd0000-7ffd1000 r-xp 00000000 00:00 0                          [vdso]\n",
        );
        let mut asked = 0;
        let found = executable_mappings(&all, |_| {
            asked += 1;
            BuildIds { go: Some("x/y".to_owned()), gnu: Some("abcd".to_owned()) }
        });
        let found: Vec<_> = found.iter().map(|m| (m.start, m.offset, &*m.file, &*m.build_id)).collect();
        let expected = [
            (0x40_0000, 0, "/bin/a", "abcd"),
            (0x40_2000, 0x1000, "/bin/a", "abcd"),
            (0x7ffd_0000, 0, "[vdso]", ""),
        ];
        assert_eq!(found, expected);
        assert_eq!(asked, 1);
    }
}
