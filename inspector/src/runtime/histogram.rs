//! Histogram of durations: `runtime.timeHistogram` (`runtime/histogram.go`).

use symbols::layout::{Field, Table};

use super::batch::unsigned;

/// Number of durations between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bucket {
    /// Lower bound in nanoseconds, inclusive.
    pub from_ns: u64,
    /// Upper bound in nanoseconds, exclusive; absent in the last bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_ns: Option<u64>,
    /// Number of durations.
    pub count: u64,
}

/// Counts of durations by bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Histogram {
    /// Non-empty buckets, shortest durations first.
    pub buckets: Vec<Bucket>,
    /// Number of negative durations, caused by a clock that went backwards.
    pub negative: u64,
}

/// Number of sub-buckets per power of two up to Go 1.19. `OLD_COUNTS` is the number of all buckets.
const OLD_SUB: u64 = 16;
const OLD_COUNTS: usize = 45 * 16;
/// Number of sub-buckets per power of two from Go 1.20; the first group ends at 2^8. `NEW_COUNTS` is the
/// number of all buckets.
const NEW_SUB: u64 = 4;
const NEW_COUNTS: usize = 40 * 4;

impl Histogram {
    /// Reads the histogram in the field `name` of the struct `of`, from the bytes of that struct. Returns
    /// `None` if the field is no histogram.
    pub fn read(table: &Table, of: &str, name: &str, bytes: &[u8]) -> Option<Self> {
        let words = |field: Field| -> Option<Vec<u64>> {
            let at = usize::try_from(field.offset).ok()?;
            let bytes = bytes.get(at..at.checked_add(usize::try_from(field.size).ok()?)?)?;
            Some(bytes.chunks_exact(8).filter_map(unsigned).collect())
        };
        let word = |part: &str| words(table.field(of, &format!("{name}.{part}"))?)?.first().copied();
        let counts = words(table.field(of, &format!("{name}.counts"))?)?;
        let edge = match counts.len() {
            OLD_COUNTS => old_edge,
            NEW_COUNTS => new_edge,
            _ => return None,
        };
        let overflow = word("overflow").unwrap_or(0);
        let counts = counts.into_iter().chain([overflow]).enumerate();
        let last = if edge(1) == old_edge(1) { OLD_COUNTS - 1 } else { NEW_COUNTS };
        let buckets =
            counts.filter(|&(index, count)| count != 0 && index <= last).map(|(index, count)| Bucket {
                from_ns: edge(index as u64),
                below_ns: (index < last).then(|| edge(index as u64 + 1)),
                count,
            });
        Some(Histogram { buckets: buckets.collect(), negative: word("underflow").unwrap_or(0) })
    }

    /// Returns the number of all durations.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|b| b.count).fold(0, u64::saturating_add)
    }

    /// Returns the bucket of the given percentile.
    pub fn percentile(&self, percent: u64) -> Option<Bucket> {
        let rank = (u128::from(self.total()) * u128::from(percent)).div_ceil(100);
        let mut seen = 0u128;
        self.buckets.iter().copied().find(|bucket| {
            seen += u128::from(bucket.count);
            seen >= rank
        })
    }
}

/// Returns the lower bound of a bucket up to Go 1.19: exact up to 16, then sixteenths of each power of two.
/// The last bucket takes all longer durations.
fn old_edge(index: u64) -> u64 {
    let (power, sub) = (index / OLD_SUB, index % OLD_SUB);
    match power {
        0 => sub,
        _ => (OLD_SUB + sub).checked_shl(u32::try_from(power - 1).unwrap_or(64)).unwrap_or(u64::MAX),
    }
}

/// Returns the lower bound of a bucket from Go 1.20: quarters of 2^8, then quarters of each power of two.
/// The bucket after the last one is that of overflows.
fn new_edge(index: u64) -> u64 {
    let (power, sub) = (index / NEW_SUB, index % NEW_SUB);
    match power {
        0 => sub << 6,
        _ => (NEW_SUB + sub).checked_shl(u32::try_from(power + 5).unwrap_or(64)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use symbols::version::GoVersion;

    #[test]
    fn edges() {
        // Expected values from `timeHistogramMetricsBuckets`.
        assert_eq!([0, 15, 16, 17, 31, 32, 33].map(old_edge), [0, 15, 16, 17, 31, 32, 34]);
        assert_eq!([0, 3, 4, 5, 7, 8, 9].map(new_edge), [0, 192, 256, 320, 448, 512, 640]);
        assert_eq!(new_edge(NEW_COUNTS as u64), 1 << 47);
        let _ = (old_edge(u64::MAX), new_edge(u64::MAX));
    }

    #[test]
    fn both_shapes() {
        for (minor, patch, bytes, overflow) in [(19, 13, 5768, false), (24, 0, 1296, true)] {
            let table =
                symbols::layout::lookup(symbols::image::Arch::Amd64, &GoVersion::release(minor, patch))
                    .unwrap()
                    .table;
            let layout = table.get("runtime.sched").unwrap();
            let field = layout.field("timeToRun").unwrap();
            assert_eq!(field.size, bytes);
            let mut all = vec![0; layout.size as usize];
            let at = field.offset as usize;
            all[at] = 3;
            all[at + 8 * 20] = 2;
            all[at + bytes as usize - if overflow { 16 } else { 8 }] = 7;
            if overflow {
                all[at + bytes as usize - 8] = 1;
            }
            let histogram = Histogram::read(&table, "runtime.sched", "timeToRun", &all).unwrap();
            assert_eq!((histogram.negative, histogram.total()), (7, 5 + u64::from(overflow)));
            assert_eq!(histogram.buckets[0].from_ns, 0);
            assert_eq!(histogram.buckets[1].below_ns, Some(if overflow { 5 << 10 } else { 21 }));
            assert_eq!(histogram.percentile(50).unwrap().from_ns, 0);
            assert_eq!(histogram.percentile(100).unwrap(), *histogram.buckets.last().unwrap());
            assert_eq!(Histogram::read(&table, "runtime.sched", "nothing", &all), None);
            assert_eq!(Histogram::read(&table, "runtime.sched", "timeToRun", &all[..at + 9]), None);
        }
    }
}
