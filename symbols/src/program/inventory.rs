//! Which releases a program can be of, by the runtime functions that it has.

use crate::pclntab::Pclntab;

/// Functions that every program of this minor release and the later ones has, and none of an earlier one: compared
/// between the smallest programs that their releases build. Large ones on the main paths of scheduler,
/// allocator and collector, so that neither the linker nor the inliner makes them go away.
const FIRST_IN: &[(u32, [&str; 3])] = &include!("../../data/inventory.rs");

/// The first and the last minor release that the functions allow; no last one where they are the newest known.
pub(super) fn minors(table: &Pclntab) -> Option<(u32, Option<u32>)> {
    let count = |names: &[&str]| names.iter().map(|name| table.of_runtime(name).count()).sum::<usize>();
    let seen: Vec<u8> =
        FIRST_IN.iter().map(|(_, names)| u8::try_from(count(names)).unwrap_or(u8::MAX)).collect();
    bounds(&seen)
}

/// Two of three functions prove that a release is reached; only the lack of all three proves that it is not.
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
