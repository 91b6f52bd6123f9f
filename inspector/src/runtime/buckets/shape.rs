//! Form of a bucket's record, derived from memory. Used if no layout table of the program's own minor
//! release gives it.
//!
//! One allocator (`persistentalloc`) places buckets one behind the other. The distance of two neighbours in
//! a list therefore gives the record size. The contents of a record are checked against conditions that
//! always hold.

use super::list::Bucket;
use crate::runtime::view::View;

/// Number of bytes before the stack of a bucket (`runtime.bucket`). The hash of each bucket proves the
/// header fields.
const HEADER: u64 = 48;
/// Size in bytes of records with counts and byte sums (up to Go 1.26). `COUNTS` is the size of records with
/// counts alone.
pub(super) const WITH_BYTES: usize = 4 * 32;
pub(super) const COUNTS: usize = 4 * 16;
/// Upper bound of allocated objects that no program reaches.
const MAX_COUNT: u64 = 1 << 48;

/// Returns true if the layouts in use belong to another minor release, or to a candidate for the release.
pub(super) fn is_borrowed(view: &View) -> bool {
    use symbols::layout::Evidence::{Candidate, NeighbourMinor};
    matches!(view.layout, NeighbourMinor { .. } | Candidate { .. })
}

/// Returns the record size in bytes, from the distance of neighbours. `None` if the list has too few buckets
/// to tell. Two buckets are not neighbours if, beside a record of the `largest` size, a bucket of another
/// list fits between them.
fn size(buckets: &[Bucket], largest: u64) -> Option<u64> {
    let mut places: Vec<(u64, u64)> =
        buckets.iter().map(|bucket| (bucket.at, HEADER + 8 * bucket.stack.len() as u64)).collect();
    places.sort_unstable();
    places
        .windows(2)
        .filter_map(|pair| (pair[1].0 - pair[0].0).checked_sub(pair[0].1))
        .filter(|size| *size < largest + HEADER)
        .min()
}

/// Returns the record size in a list of allocations, which was read with records of [`WITH_BYTES`].
///
/// # Errors
/// Returns a description if the records have no known form.
pub(super) fn memory(buckets: &[Bucket]) -> Result<usize, String> {
    let words = |bucket: &Bucket| -> Vec<u64> {
        let words = bucket.record.chunks_exact(8);
        words.filter_map(|w| w.try_into().ok().map(u64::from_le_bytes)).collect()
    };
    let used: Vec<(u64, Vec<u64>)> = buckets
        .iter()
        .map(|b| (b.size, words(b)))
        .filter(|(_, w)| w.iter().take(8).any(|w| *w != 0))
        .collect();
    let with_bytes = |(size, words): &&(u64, Vec<u64>)| {
        words
            .chunks_exact(4)
            .all(|slot| slot[2] == slot[0].wrapping_mul(*size) && slot[3] == slot[1].wrapping_mul(*size))
    };
    let fitting = used.iter().filter(with_bytes).count();
    let counts = |(_, words): &(u64, Vec<u64>)| {
        let sum = |first| words.iter().take(8).skip(first).step_by(2).fold(0u64, |a, b| a.saturating_add(*b));
        sum(1) <= sum(0) && sum(0) <= MAX_COUNT
    };
    match size(buckets, WITH_BYTES as u64) {
        // The process runs, so a bucket may be caught between the updates of its counts and its bytes.
        Some(size) if size == WITH_BYTES as u64 && fitting + used.len() / 20 >= used.len() => Ok(WITH_BYTES),
        Some(size) if size == COUNTS as u64 && used.iter().all(counts) => Ok(COUNTS),
        None if used.is_empty() || fitting == used.len() => Ok(WITH_BYTES),
        Some(size) => Err(format!("its records of {size} bytes have no form that is known")),
        None => Err("it is too short to tell the form of its records".to_owned()),
    }
}

/// Checks that the records of a contention list hold a number of events and their ticks, as in all releases
/// so far.
///
/// # Errors
/// Returns a description if the records have another form.
pub(super) fn contention(buckets: &[Bucket]) -> Result<(), String> {
    const SIZE: u64 = 16;
    if let Some(size) = size(buckets, SIZE).filter(|size| *size != SIZE) {
        return Err(format!("its records have {size} bytes, where {SIZE} are known"));
    }
    let fits = |bucket: &Bucket| {
        let word = |at: usize| bucket.record.get(at..at + 8).and_then(|b| b.try_into().ok());
        let (Some(count), Some(ticks)) = (word(0).map(f64::from_le_bytes), word(8).map(i64::from_le_bytes))
        else {
            return false;
        };
        // An integer misread as a float is far smaller than any estimate.
        (count == 0.0 || (1e-9..1e18).contains(&count)) && ticks >= 0
    };
    if buckets.iter().all(fits) { Ok(()) } else { Err("its records are not events and ticks".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(at: u64, words: &[u64]) -> Bucket {
        let mut record: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        record.resize(WITH_BYTES, 0);
        Bucket { at, size: 32, stack: vec![1, 2], record }
    }

    #[test]
    fn both_forms_are_told_apart() {
        let next = HEADER + 16;
        let old = |at| bucket(at, &[5, 2, 160, 64, 1, 0, 32, 0]);
        assert_eq!(memory(&[old(0x1000), old(0x1000 + next + 128)]), Ok(WITH_BYTES));
        assert_eq!(memory(&[old(0x1000)]), Ok(WITH_BYTES));
        let new = |at| bucket(at, &[5, 2, 1, 0, 0, 0, 0, 0]);
        assert_eq!(memory(&[new(0x1000), new(0x1000 + next + 64)]), Ok(COUNTS));
        assert!(memory(&[new(0x1000)]).is_err());
        assert!(memory(&[new(0x1000), new(0x1000 + next + 128)]).is_err());
        assert!(memory(&[old(0x1000), old(0x1000 + next + 96)]).is_err());
        assert!(memory(&[bucket(0x1000, &[1, 5]), new(0x1000 + next + 64)]).is_err());
        assert_eq!(memory(&[]), Ok(WITH_BYTES));
    }

    #[test]
    fn events_are_no_whole_numbers() {
        let next = HEADER + 16 + 16;
        let good = |at| bucket(at, &[3.0f64.to_bits(), 77]);
        assert_eq!(contention(&[good(0x1000), good(0x1000 + next)]), Ok(()));
        assert!(contention(&[good(0x1000), good(0x1000 + next + 8)]).is_err());
        // A bucket of another list lies between the two buckets.
        assert_eq!(contention(&[good(0x1000), good(0x1000 + next + 272)]), Ok(()));
        assert!(contention(&[bucket(0x1000, &[3, 77])]).is_err());
        assert!(contention(&[bucket(0x1000, &[3.0f64.to_bits(), u64::MAX])]).is_err());
    }
}
