//! Build ids: identifiers of one build of a program, written by linkers into ELF notes.

use crate::image::Image;
use crate::sections;

/// Build ids of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildIds {
    /// Go build id, as `go tool buildid` prints it.
    pub go: Option<String>,
    /// GNU build id of the linker, in hexadecimal. Debug files are found by this id.
    pub gnu: Option<String>,
}

/// Maximum length of a build id in bytes; real build ids are shorter.
const MAX_ID: usize = 256;

/// Section of the GNU build id that Go's linker writes from Go 1.24 on. No segment of notes contains it.
const GNU_SECTION: &str = ".note.gnu.build-id";

/// Reads the build ids of an image.
pub fn of(image: &Image) -> BuildIds {
    let mut ids = BuildIds::default();
    for notes in image.notes() {
        add(&notes, &mut ids);
    }
    if ids.gnu.is_none() {
        let sections = sections::read(image).unwrap_or_default();
        let notes = sections.iter().find(|s| s.name == GNU_SECTION && s.size <= 4 * MAX_ID as u64);
        let len = notes.and_then(|s| usize::try_from(s.size).ok());
        if let (Some(notes), Some(len)) = (notes, len)
            && let Ok(bytes) = image.read_vec(notes.addr, len)
        {
            add(&bytes, &mut ids);
        }
    }
    ids
}

/// Returns the build ids in the bytes of ELF notes.
pub(crate) fn in_notes(notes: &[u8]) -> BuildIds {
    let mut ids = BuildIds::default();
    add(notes, &mut ids);
    ids
}

/// Adds the first build id of each kind from the bytes of notes (elf(5)). Notes are expected with an
/// alignment of four bytes; notes with eight contain no Go build id.
fn add(notes: &[u8], ids: &mut BuildIds) {
    let mut rest = notes;
    while let Some((name, kind, value)) = next(&mut rest) {
        match (name, kind) {
            (b"Go\0\0" | b"Go\0", 4) if ids.go.is_none() && value.len() <= MAX_ID && value.is_ascii() => {
                ids.go = Some(String::from_utf8_lossy(value).into_owned());
            }
            (b"GNU\0", 3) if ids.gnu.is_none() && value.len() <= MAX_ID => {
                ids.gnu = Some(value.iter().map(|b| format!("{b:02x}")).collect());
            }
            _ => {}
        }
    }
}

/// Takes the first note off `rest`. Returns its name, type and value.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], u32, &'a [u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let (name_len, value_len, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
    let value_at = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
    let name = rest.get(12..12usize.checked_add(name_len)?)?;
    let value = rest.get(value_at..value_at.checked_add(value_len)?)?;
    let end = value_at.checked_add(value_len.checked_next_multiple_of(4)?)?;
    *rest = rest.get(end..).unwrap_or_default();
    Some((name, kind, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, value.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, value] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn notes() {
        // Name length with padding, as Go's linker counts it.
        let mut bytes = note(b"Go\0\0", 4, b"abc/def");
        bytes.extend(note(b"GNU\0", 1, b"\0\0\0\0"));
        bytes.extend(note(b"GNU\0", 3, b"\x01\xff"));
        bytes.extend(note(b"GNU\0", 3, b"\x02"));
        let mut ids = BuildIds::default();
        add(&bytes, &mut ids);
        assert_eq!(ids, BuildIds { go: Some("abc/def".to_owned()), gnu: Some("01ff".to_owned()) });
        for end in 0..bytes.len() {
            add(&bytes[..end], &mut BuildIds::default());
        }
        add(&[0xff; 64], &mut ids);
    }
}
