//! Links from a file to other files with its debug information.

use super::elf::Sections;
use crate::build_id;
use crate::image::Source;

/// Maximum length of a link in bytes; paths of debug files are shorter.
const MAX_LINK: u64 = 4096;
const MAX_NOTES: u64 = 4096;
const MAX_ID: usize = 64;

/// Links and facts about a file's debug information.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Build id (`.note.gnu.build-id`) in hexadecimal. The debug file has the same build id.
    pub build_id: Option<String>,
    /// Link in `.gnu_debuglink`.
    pub debug: Option<DebugLink>,
    /// Link in `.gnu_debugaltlink`.
    pub alt: Option<AltLink>,
    /// True if the file itself contains DWARF.
    pub has_dwarf: bool,
}

/// Link to the file with debug information (`.gnu_debuglink`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugLink {
    /// File name without a directory: it has no slash and is neither `.` nor `..`.
    pub name: Vec<u8>,
    /// CRC-32 checksum of the whole debug file.
    pub crc: u32,
}

/// Link to the file with the common debug information of several files (`.gnu_debugaltlink`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltLink {
    /// Path of the file.
    pub path: Vec<u8>,
    /// Build id of the file, in hexadecimal.
    pub build_id: String,
}

impl Links {
    /// Reads the links. Damaged parts are left out.
    pub fn read(source: &dyn Source) -> Self {
        let sections = Sections::read(source);
        let notes = sections.bytes(".note.gnu.build-id", MAX_NOTES);
        let link = sections.bytes(".gnu_debuglink", MAX_LINK);
        let alt = sections.bytes(".gnu_debugaltlink", MAX_LINK);
        Links {
            build_id: notes.and_then(|notes| build_id::in_notes(&notes).gnu),
            debug: link.and_then(|link| DebugLink::parse(&link)),
            alt: alt.and_then(|alt| AltLink::parse(&alt)),
            has_dwarf: sections.named(".debug_info").is_some(),
        }
    }
}

impl DebugLink {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let name = bytes.get(..memchr::memchr(0, bytes)?)?;
        let at = (name.len() + 1).next_multiple_of(4);
        let crc = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
        is_name.then(|| DebugLink { name: name.to_vec(), crc })
    }
}

impl AltLink {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let path = bytes.get(..memchr::memchr(0, bytes)?)?;
        let id = bytes.get(path.len() + 1..).filter(|id| (1..=MAX_ID).contains(&id.len()))?;
        Some(AltLink { path: path.to_vec(), build_id: id.iter().map(|b| format!("{b:02x}")).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_other_files() {
        let link = |bytes: &[u8]| DebugLink::parse(bytes).map(|l| (l.name, l.crc));
        assert_eq!(link(b"a.debug\0\x01\0\0\0"), Some((b"a.debug".to_vec(), 1)));
        assert_eq!(link(b"ab\0\0\x02\0\0\0"), Some((b"ab".to_vec(), 2)));
        for hostile in [
            &b"../a\0\0\0\0\x01\0\0\0"[..],
            b"..\0\x01\0\0\0",
            b"\0\0\0\0\x01\0\0\0",
            b"ab",
            b"ab\0\x01",
            b"",
        ] {
            assert_eq!(link(hostile), None);
        }
        let alt = AltLink::parse(b"/usr/lib/debug/.dwz/a\0\x01\xff").unwrap();
        assert_eq!((alt.path.as_slice(), alt.build_id.as_str()), (&b"/usr/lib/debug/.dwz/a"[..], "01ff"));
        assert_eq!(AltLink::parse(b"a\0"), None);
        assert_eq!(AltLink::parse(b"a"), None);
    }
}
