//! String `runtime.buildVersion`: the Go version, if the build info was removed.

use super::suspects;
use crate::addr::LinkAddr;
use crate::image::Image;
use crate::layout;
use crate::pclntab::Pclntab;
use crate::version::GoVersion;

/// Valid lengths of a version in bytes. The shortest is `go1.18`; no known vendor version reaches the
/// maximum.
const LENGTHS: std::ops::RangeInclusive<u64> = 6..=256;

/// Reads the version in `runtime.buildVersion`, for a program of one of the minor releases `from` to `to`.
/// `string` reads two words at an address of the image: address and length of a string. `text` reads the
/// bytes at the string's address, from the file or from a process.
///
/// Returns `None` if the recipes find no text in the form of a Go version, if they find different versions,
/// or if the version is of another minor release.
pub fn build_version(
    image: &Image,
    pclntab: &Pclntab,
    (from, to): (u32, Option<u32>),
    string: impl Fn(LinkAddr) -> Option<(u64, u64)>,
    text: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<GoVersion> {
    let mut newest: Vec<layout::Release> = Vec::new();
    for release in layout::releases().filter(|r| from <= r.minor && to.is_none_or(|to| r.minor <= to)) {
        match newest.last_mut() {
            Some(last) if last.minor == release.minor => *last = release,
            _ => newest.push(release),
        }
    }
    let read = |at| {
        let (text_at, len) = string(at)?;
        let len = usize::try_from(Some(len).filter(|len| LENGTHS.contains(len))?).ok()?;
        parse(String::from_utf8(text(text_at, len)?).ok()?)
    };
    newest.into_iter().rev().find_map(|release| {
        let version = GoVersion::release(release.minor, release.patch);
        let places = suspects(image, pclntab, &version, "runtime.buildVersion");
        let mut found = places.into_iter().filter_map(read);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first).filter(|v| v.minor == release.minor)
    })
}

/// Parses a version as the linker writes it: it begins with `go1.` or `devel go1.` and has only printable
/// characters.
fn parse(text: String) -> Option<GoVersion> {
    let begins = text.starts_with("go1.") || text.starts_with("devel go1.");
    let printed = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    GoVersion::parse(&text).filter(|_| begins && printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_are_taken() {
        assert_eq!(parse("go1.27.4 X:jsonv2".to_owned()).map(|v| v.minor), Some(27));
        assert_eq!(parse("devel go1.28-abc".to_owned()).map(|v| v.minor), Some(28));
        assert_eq!(parse("built by go1.27.4".to_owned()), None);
        assert_eq!(parse("go1.27.4\u{1b}[2J".to_owned()), None);
        assert_eq!(parse("nonsense".to_owned()), None);
    }
}
