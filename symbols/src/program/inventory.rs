//! Range of releases that are possible by the runtime functions of a program.

use crate::pclntab::Pclntab;

/// Functions that date a minor release: each program of this release or a later one has them, and no program
/// of an earlier release. They come from a comparison of the smallest programs of each release. Large
/// functions on the main paths of scheduler, allocator and collector were chosen, so that neither linker nor
/// inliner removes them.
const FIRST_IN: &[(u32, [&str; 3])] = &include!("../../data/inventory.rs");

/// Returns the first and the last minor release that the functions allow. `None` as the last means that the
/// newest known release is possible.
pub(super) fn minors(table: &Pclntab) -> Option<(u32, Option<u32>)> {
    let count = |names: &[&str]| names.iter().map(|name| table.of_runtime(name).count()).sum::<usize>();
    let seen: Vec<u8> =
        FIRST_IN.iter().map(|(_, names)| u8::try_from(count(names)).unwrap_or(u8::MAX)).collect();
    bounds(&seen)
}

/// Evaluates the counts. Two of three functions prove that a release is reached. Only the absence of all
/// three proves that it is not.
fn bounds(seen: &[u8]) -> Option<(u32, Option<u32>)> {
    let reached = seen.iter().rposition(|&n| n >= 2);
    let first = reached.and_then(|i| FIRST_IN.get(i)).map_or(18, |(minor, _)| *minor);
    let none_of_next = seen.get(reached.map_or(0, |i| i + 1)) == Some(&0);
    match (reached, none_of_next) {
        (_, true) => Some((first, Some(first))),
        (Some(_), false) => Some((first, None)),
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_need_agreement() {
        assert_eq!(bounds(&[0; 9]), Some((18, Some(18))));
        assert_eq!(bounds(&[3, 3, 3, 3, 0, 0, 0, 0, 0]), Some((22, Some(22))));
        assert_eq!(bounds(&[3, 3, 3, 3, 1, 0, 0, 0, 0]), Some((22, None)));
        assert_eq!(bounds(&[3, 2, 3, 3, 3, 3, 3, 3, 3]), Some((27, None)));
        assert_eq!(bounds(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
