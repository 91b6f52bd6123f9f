//! `runtime.timeHistogram`: how often something took how long (`runtime/histogram.go`).

use symbols::layout::{Field, Table};

use super::batch::unsigned;

/// Durations between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bucket {
    /// From this many nanoseconds on.
    pub from_ns: u64,
    /// Shorter than this; absent in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_ns: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Counts of durations. Their sum is the number of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Histogram {
    /// The buckets that are not empty, shortest first.
    pub buckets: Vec<Bucket>,
    /// Durations that a clock which went backwards made negative.
    pub negative: u64,
}

/// Sub-buckets of each power of two up to Go 1.19, and how many powers there are.
const OLD_SUB: u64 = 16;
const OLD_COUNTS: usize = 45 * 16;
/// The same from Go 1.20 on; the first bucket reaches to 2^8.
const NEW_SUB: u64 = 4;
const NEW_COUNTS: usize = 40 * 4;

impl Histogram {
    /// Reads the histogram that the field `name` of `of` is, out of the bytes of that struct. `None` where there is none.
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

    /// How many durations there are.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|b| b.count).fold(0, u64::saturating_add)
    }

    /// The bucket in which the `percent`th percent of the durations ends.
    pub fn percentile(&self, percent: u64) -> Option<Bucket> {
        let rank = (u128::from(self.total()) * u128::from(percent)).div_ceil(100);
        let mut seen = 0u128;
        self.buckets.iter().copied().find(|bucket| {
            seen += u128::from(bucket.count);
            seen >= rank
        })
    }
}

/// The lower edge of a bucket up to Go 1.19: exact up to 16, then sixteenths of each power of two. The last one takes
/// all that is longer.
fn old_edge(index: u64) -> u64 {
    let (power, sub) = (index / OLD_SUB, index % OLD_SUB);
    match power {
        0 => sub,
        _ => (OLD_SUB + sub).checked_shl(u32::try_from(power - 1).unwrap_or(64)).unwrap_or(u64::MAX),
    }
}

/// The lower edge of a bucket from Go 1.20 on: quarters of 2^8, then of each power of two. The one behind the last is
/// that of overflow.
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
        // As `timeHistogramMetricsBuckets` computes them.
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
