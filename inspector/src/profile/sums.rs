//! Sums of values by function: of the function itself, and with everything that it calls.

use std::collections::{HashMap, HashSet};

use super::write::Frame;
use super::{Profile, Sample};

/// Sums of a function.
pub(crate) struct Sums<'p> {
    /// Frame of the function, or of the place if it has no name.
    pub(crate) frame: Frame<'p>,
    /// Value of the function itself.
    pub(crate) flat: i64,
    /// Value of the function with everything that it calls.
    pub(crate) cumulative: i64,
}

/// Adds up the values by function. A stack counts once for each function in it, however often the
/// function occurs.
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
