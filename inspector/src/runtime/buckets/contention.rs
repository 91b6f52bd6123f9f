//! Blocking and lock contention: the profiles `block` and `mutex` (`runtime.BlockProfile`,
//! `runtime.MutexProfile`, `runtime/pprof.printCountCycleProfile`).

use std::collections::HashMap;
use std::time::SystemTime;

use symbols::layout::Table;

use super::list::{self, Bucket, BucketKind};
use super::shape;
use super::ticks::{TicksPerSecond, ticks_per_second};
use super::{BucketsError, Tables};
use crate::memory::Memory;
use crate::profile::{Mapping, Profile, Sample, ValueType};
use crate::runtime::record::{Record, RecordError};
use crate::runtime::symbolize::Symbolizer;

/// Maximum number of readings of a table. Reading stops when two readings agree.
const MAX_READINGS: usize = 4;

/// Kind of contention profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contention {
    /// Waiting for channels, locks and conditions, attributed to the place of the wait.
    Block,
    /// Waiting for locks, attributed to the place of the unlock.
    Mutex,
}

/// Contention events at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentionBucket {
    /// Stack, innermost entry first: logical up to Go 1.22, mostly physical from Go 1.23.
    pub stack: Vec<u64>,
    /// Number of events, estimated because only some are sampled. The runtime scales the number when it
    /// records, from Go 1.20.
    pub count: f64,
    /// Duration of the events, in processor ticks.
    pub cycles: i64,
}

/// Sampled contention events of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentionBuckets {
    /// Kind of contention.
    pub of: Contention,
    /// Sampled events by place, longest first.
    pub buckets: Vec<ContentionBucket>,
    /// Processor ticks per second.
    pub ticks: TicksPerSecond,
    /// Current sampling rate (`mutexprofilerate`): one of so many events is sampled. Present only if it
    /// scales the profile, which is for locks up to Go 1.19.
    pub fraction: Option<u64>,
    /// Maximum number of frames in an expanded stack (`debug.profstackdepth`, from Go 1.23).
    pub max_depth: usize,
    /// Time of the reading.
    pub time: SystemTime,
}

impl ContentionBuckets {
    /// Returns the events counted since an `earlier` reading of the same process.
    #[must_use]
    pub fn since(&self, earlier: &ContentionBuckets) -> ContentionBuckets {
        let before: HashMap<&[u64], (f64, i64)> =
            earlier.buckets.iter().map(|b| (b.stack.as_slice(), (b.count, b.cycles))).collect();
        let buckets = self.buckets.iter().filter_map(|bucket| {
            let (count, cycles) = before.get(bucket.stack.as_slice()).copied().unwrap_or_default();
            let (count, cycles) = (bucket.count - count, bucket.cycles.wrapping_sub(cycles));
            (count > 0.0 || cycles > 0).then(|| ContentionBucket {
                stack: bucket.stack.clone(),
                count,
                cycles,
            })
        });
        ContentionBuckets { buckets: buckets.collect(), ..self.clone() }
    }
}

/// Reads the blocking events of a process without stopping it.
///
/// # Errors
/// Returns a [`BucketsError`] if the table or one of its variables cannot be read.
pub fn read_block(tables: &Tables<'_>, memory: &dyn Memory) -> Result<ContentionBuckets, BucketsError> {
    read(tables, memory, Contention::Block)
}

/// Reads the contended locks of a process without stopping it.
///
/// # Errors
/// Returns a [`BucketsError`] if the table or one of its variables cannot be read. Up to Go 1.19 the
/// sampling rate is also required, because the values depend on it.
pub fn read_mutex(tables: &Tables<'_>, memory: &dyn Memory) -> Result<ContentionBuckets, BucketsError> {
    read(tables, memory, Contention::Mutex)
}

fn read(tables: &Tables<'_>, memory: &dyn Memory, of: Contention) -> Result<ContentionBuckets, BucketsError> {
    let view = tables.view;
    let (variable, kind) = match of {
        Contention::Block => ("runtime.bbuckets", BucketKind::Block),
        Contention::Mutex => ("runtime.xbuckets", BucketKind::Mutex),
    };
    let list = tables.at(variable)?;
    let layout = Layout::of(&view.table)?;
    let take = || list::of_runtime(view, memory, list, kind, layout.size);
    let mut time = SystemTime::now();
    let mut raw = take()?;
    // The runtime updates the count of an event before its ticks, so one reading may split an event. If
    // events never pause, a row may be one event off; the runtime itself adds another event the next moment.
    for _ in 1..MAX_READINGS {
        time = SystemTime::now();
        let before = std::mem::replace(&mut raw, take()?);
        if before == raw {
            break;
        }
    }
    if shape::is_borrowed(view) {
        shape::contention(&raw).map_err(|why| BucketsError::Damaged { list, why })?;
    }
    let mut buckets: Vec<ContentionBucket> = raw.into_iter().map(|bucket| layout.bucket(bucket)).collect();
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.cycles));
    let fraction = match of {
        Contention::Mutex if !view.release.scales_mutex_events_when_recorded() => {
            Some(memory.word(tables.at("runtime.mutexprofilerate")?)?)
        }
        _ => None,
    };
    let max_depth = if view.release.has_profile_depth() { depth(tables, memory)? } else { usize::MAX };
    // An empty table needs no conversion, so no calibration delay is spent.
    let ticks = if buckets.is_empty() {
        TicksPerSecond::Calibrated(1_000_000_000)
    } else {
        ticks_per_second(tables, memory)?
    };
    Ok(ContentionBuckets { of, buckets, ticks, fraction, max_depth, time })
}

/// Default value of `debug.profstackdepth`.
const DEPTH: usize = 128;

/// Reads `debug.profstackdepth`, limited to 1024 (`maxProfStackDepth`).
fn depth(tables: &Tables<'_>, memory: &dyn Memory) -> Result<usize, BucketsError> {
    if shape::is_borrowed(tables.view) {
        return Ok(DEPTH);
    }
    let at = tables.at("runtime.debug")?;
    let debug = Record::read(memory, &tables.view.table, "runtime.debug", at)?;
    Ok(usize::try_from(debug.i32("profstackdepth")?).unwrap_or(0).min(1024))
}

/// Field offsets of a `runtime.blockRecord`.
struct Layout {
    size: usize,
    count: usize,
    cycles: usize,
}

impl Layout {
    fn of(table: &Table) -> Result<Self, RecordError> {
        let of = "runtime.blockRecord";
        let missing = |field: &str| RecordError::NoField { of: of.to_owned(), field: field.to_owned() };
        let size = table.size(of).ok_or_else(|| RecordError::NoLayout { of: of.to_owned() })?;
        let place = |field: &str| {
            let place = table.field(of, field).filter(|f| f.size == 8 && f.offset + 8 <= size);
            place.and_then(|f| usize::try_from(f.offset).ok()).ok_or_else(|| missing(field))
        };
        let size = usize::try_from(size).ok().filter(|s| *s <= 4096).ok_or_else(|| missing(""))?;
        Ok(Layout { size, count: place("count")?, cycles: place("cycles")? })
    }

    fn bucket(&self, bucket: Bucket) -> ContentionBucket {
        let word =
            |at: usize| bucket.record.get(at..at + 8).and_then(|b| b.try_into().ok()).unwrap_or([0; 8]);
        ContentionBucket {
            count: f64::from_le_bytes(word(self.count)),
            cycles: i64::from_le_bytes(word(self.cycles)),
            stack: bucket.stack,
        }
    }
}

/// Builds the profile `block`.
pub fn block_profile(tables: &Tables<'_>, buckets: &ContentionBuckets, mappings: Vec<Mapping>) -> Profile {
    profile(tables, buckets, mappings)
}

/// Builds the profile `mutex`.
pub fn mutex_profile(tables: &Tables<'_>, buckets: &ContentionBuckets, mappings: Vec<Mapping>) -> Profile {
    profile(tables, buckets, mappings)
}

fn profile(tables: &Tables<'_>, buckets: &ContentionBuckets, mappings: Vec<Mapping>) -> Profile {
    let release = tables.view.release;
    let mut symbolizer = Symbolizer::new(tables.view, mappings);
    let ticks_per_nanosecond = buckets.ticks.value() as f64 / 1e9;
    let mut samples = Vec::with_capacity(buckets.buckets.len());
    for bucket in &buckets.buckets {
        let stack = if release.records_contention_by_frame_pointers() {
            let expanded = symbolizer.expand_partial(&bucket.stack, buckets.max_depth);
            symbolizer.logical(&expanded)
        } else {
            symbolizer.logical(&bucket.stack)
        };
        let (count, nanoseconds) = values(bucket, buckets.of, buckets.fraction, ticks_per_nanosecond);
        samples.push(Sample { stack, values: vec![count, nanoseconds], labels: Vec::new() });
    }
    let symbols = symbolizer.finish();
    let mut comments = Vec::new();
    if let (TicksPerSecond::Calibrated(ticks), false) = (buckets.ticks, samples.is_empty()) {
        comments.push(format!(
            "times are ticks of the processor, of which {ticks} were measured in a second; the runtime may count with a \
             slightly different number"
        ));
    }
    Profile {
        sample_types: vec![ValueType::new("contentions", "count"), ValueType::new("delay", "nanoseconds")],
        default_sample_type: 1,
        period: Some((ValueType::new("contentions", "count"), 1)),
        time: buckets.time,
        duration: None,
        mappings: symbols.mappings,
        locations: symbols.locations,
        functions: symbols.functions,
        samples,
        comments,
    }
}

/// Returns the number of events and their duration in nanoseconds.
fn values(
    bucket: &ContentionBucket,
    of: Contention,
    fraction: Option<u64>,
    ticks_per_nanosecond: f64,
) -> (i64, i64) {
    let mut count = bucket.count as i64;
    // A sample may count less than one event if the event is rarer than the sampling rate.
    if of == Contention::Block && count == 0 {
        count = 1;
    }
    let nanoseconds = bucket.cycles as f64 / ticks_per_nanosecond;
    match fraction {
        Some(fraction) => {
            (count.wrapping_mul(fraction.cast_signed()), (nanoseconds * fraction as f64) as i64)
        }
        None => (count, nanoseconds as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_rows() {
        let row = |count, cycles| ContentionBucket { stack: Vec::new(), count, cycles };
        assert_eq!(values(&row(0.5, 250), Contention::Block, None, 2.5), (1, 100));
        assert_eq!(values(&row(0.5, 250), Contention::Mutex, None, 2.5), (0, 100));
        assert_eq!(values(&row(3.9, 251), Contention::Mutex, Some(5), 2.5), (15, 502));
        assert_eq!(values(&row(3.0, 250), Contention::Mutex, Some(0), 2.5), (0, 0));
    }
}
