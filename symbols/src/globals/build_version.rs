//! The string `runtime.buildVersion`, which says the release where the build info was wiped.

use super::suspects;
use crate::addr::LinkAddr;
use crate::image::Image;
use crate::layout;
use crate::pclntab::Pclntab;
use crate::version::GoVersion;

/// Longer than any version that a vendor made; `go1.18` is the shortest.
const LENGTHS: std::ops::RangeInclusive<u64> = 6..=256;

/// The version that `runtime.buildVersion` holds, of a program of one of the minor releases `from` to `to`. `string` reads
/// two words, address and length of a string, at an address of the image, and `text` the bytes at such an address: from
/// the file, or from a process.
///
/// `None` where nothing of the form of a Go version is where the recipes of any of the releases say, where they find
/// several, and where it is a version of another minor release.
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

/// A version as the linker writes it: nothing before it, and nothing in it that is not printed.
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
