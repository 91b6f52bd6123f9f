//! Which other files hold debug information of a file.

use super::elf::Sections;
use crate::build_id;
use crate::image::Source;

/// Longer than any path of a debug file.
const MAX_LINK: u64 = 4096;
const MAX_NOTES: u64 = 4096;
const MAX_ID: usize = 64;

/// What a file says of its debug information.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Its build id (`.note.gnu.build-id`), in hexadecimal: that of its debug file is the same.
    pub build_id: Option<String>,
    /// `.gnu_debuglink`.
    pub debug: Option<DebugLink>,
    /// `.gnu_debugaltlink`.
    pub alt: Option<AltLink>,
    /// It has DWARF itself.
    pub has_dwarf: bool,
}

/// The file with the debug information of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugLink {
    /// Its name, without a directory: without a slash, and neither `.` nor `..`.
    pub name: Vec<u8>,
    /// The CRC-32 of all of it.
    pub crc: u32,
}

/// The file with what the debug information of several files has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltLink {
    /// Its path.
    pub path: Vec<u8>,
    /// Its build id, in hexadecimal.
    pub build_id: String,
}

impl Links {
    /// Reads them; what is damaged is left out.
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
        assert_eq!(link(b"ab\0\x02\0\0\0"), Some((b"ab".to_vec(), 2)));
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
