//! What functions have: by themselves, and with all that they call.

use std::collections::{HashMap, HashSet};

use super::write::Frame;
use super::{Profile, Sample};

/// The sums of a function.
pub(crate) struct Sums<'p> {
    /// The function, or the place where that has no name.
    pub(crate) frame: Frame<'p>,
    /// What it has by itself.
    pub(crate) flat: i64,
    /// What it has with all that it calls.
    pub(crate) cumulative: i64,
}

/// Adds up the values by function: once for each stack that a function is in, however often it is.
pub(crate) fn sums<'p>(profile: &'p Profile, value: impl Fn(&Sample) -> i64) -> Vec<Sums<'p>> {
    let mut known: HashMap<(usize, u64), usize> = HashMap::new();
    let mut list: Vec<Sums<'p>> = Vec::new();
    for sample in &profile.samples {
        let value = value(sample);
        if value == 0 {
            continue;
        }
        let mut seen: HashSet<usize> = HashSet::new();
        for (depth, frame) in profile.frames(&sample.stack).enumerate() {
            let key = (frame.index, if frame.function.is_none() { frame.address } else { 0 });
            let index = *known.entry(key).or_insert_with(|| {
                list.push(Sums { frame, flat: 0, cumulative: 0 });
                list.len() - 1
            });
            if let Some(sums) = list.get_mut(index) {
                if depth == 0 {
                    sums.flat = sums.flat.saturating_add(value);
                }
                if seen.insert(index) {
                    sums.cumulative = sums.cumulative.saturating_add(value);
                }
            }
        }
    }
    list
}
