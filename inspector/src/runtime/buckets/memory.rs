//! Sampled allocations: the profiles `heap` and `allocs` (`runtime.MemProfile`,
//! `runtime/pprof/protomem.go`).

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use symbols::addr::RuntimeAddr;
use symbols::layout::Table;

use super::list::{self, Bucket, BucketKind};
use super::shape;
use super::{BucketsError, Tables};
use crate::arch::Machine;
use crate::memory::Memory;
use crate::profile::{Label, LabelValue, Mapping, Profile, Sample, ValueType};
use crate::runtime::record::{Record, RecordError};
use crate::runtime::release::GoRelease;
use crate::runtime::symbolize::Symbolizer;

/// Maximum number of readings of the table. Reading stops when two readings agree.
const MAX_READINGS: usize = 12;
/// Delay after a reading that differs from the previous one. Gives CPU time to the thread that publishes.
const BETWEEN_READINGS: Duration = Duration::from_millis(2);
/// Upper bound of cycle numbers (`runtime.mProfCycleWrap`).
const CYCLE_WRAP: u32 = 3 * (2 << 24);

/// Numbers of sampled objects allocated and freed, and their bytes (`runtime.memRecordCycle`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Number of objects allocated.
    pub allocs: u64,
    /// Number of objects freed.
    pub frees: u64,
    /// Number of bytes allocated.
    pub alloc_bytes: u64,
    /// Number of bytes freed.
    pub free_bytes: u64,
}

impl Counts {
    /// Returns the difference to `earlier` counts.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            allocs: self.allocs.wrapping_sub(earlier.allocs),
            frees: self.frees.wrapping_sub(earlier.frees),
            alloc_bytes: self.alloc_bytes.wrapping_sub(earlier.alloc_bytes),
            free_bytes: self.free_bytes.wrapping_sub(earlier.free_bytes),
        }
    }

    /// Returns the sum of both counts.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            allocs: self.allocs.wrapping_add(other.allocs),
            frees: self.frees.wrapping_add(other.frees),
            alloc_bytes: self.alloc_bytes.wrapping_add(other.alloc_bytes),
            free_bytes: self.free_bytes.wrapping_add(other.free_bytes),
        }
    }
}

/// Sampled objects of one size, allocated at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBucket {
    /// Size of each object in bytes.
    pub size: u64,
    /// Logical stack, innermost entry first.
    pub stack: Vec<u64>,
    /// Counts that the profile reports.
    pub published: Counts,
    /// All counts, including those that the profile does not report yet: allocations since the last
    /// collections. Only sweeping counts frees, so these counts show more objects in use than really are.
    pub counted: Counts,
}

/// Sampled allocations of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBuckets {
    /// Sampling rate (`MemProfileRate`): one sample per so many bytes. 0 or less if sampling is off now.
    pub rate: i64,
    /// Sampled allocations by place and size, newest bucket first.
    pub buckets: Vec<MemoryBucket>,
    /// True if no collection has published anything yet. All counts are then reported.
    pub before_first_collection: bool,
    /// True if two readings agreed, so that no collection changed the table during the reading.
    pub consistent: bool,
    /// Time of the reading.
    pub time: SystemTime,
}

impl MemoryBuckets {
    /// Returns the allocations counted since an `earlier` reading of the same process. All of them are
    /// reported, without waiting for collections. Frees of objects allocated before `earlier` are excluded.
    #[must_use]
    pub fn since(&self, earlier: &MemoryBuckets) -> MemoryBuckets {
        let before: HashMap<(u64, &[u64]), Counts> =
            earlier.buckets.iter().map(|b| ((b.size, b.stack.as_slice()), b.counted)).collect();
        let buckets = self.buckets.iter().filter_map(|bucket| {
            let known = before.get(&(bucket.size, bucket.stack.as_slice())).copied().unwrap_or_default();
            let mut counts = bucket.counted.since(known);
            // Frees of objects allocated before the window are not part of the result.
            counts.frees = counts.frees.min(counts.allocs);
            counts.free_bytes = counts.free_bytes.min(counts.alloc_bytes);
            (counts.allocs > 0).then(|| MemoryBucket {
                published: counts,
                counted: counts,
                size: bucket.size,
                stack: bucket.stack.clone(),
            })
        });
        MemoryBuckets {
            buckets: buckets.collect(),
            before_first_collection: false,
            consistent: self.consistent && earlier.consistent,
            ..*self
        }
    }
}

/// Offsets of the counts in a record (`runtime.memRecord`): published counts, and three slots of future
/// counts.
struct Layout {
    size: usize,
    active: usize,
    future: usize,
    cycle: usize,
    allocs: usize,
    frees: usize,
    /// Offsets of the byte counts. Absent from Go 1.27, where bytes are counts times object size.
    bytes: Option<(usize, usize)>,
}

impl Layout {
    fn of(table: &Table) -> Result<Self, RecordError> {
        let (record, cycle) = ("runtime.memRecord", "runtime.memRecordCycle");
        let missing =
            |of: &str, field: &str| RecordError::NoField { of: of.to_owned(), field: field.to_owned() };
        let place = |of: &str, field: &str, size: u64| {
            let place = table.field(of, field).filter(|f| f.size == size);
            let offset = place.and_then(|f| usize::try_from(f.offset).ok());
            offset.ok_or_else(|| missing(of, field))
        };
        let size = |of: &str| table.size(of).ok_or_else(|| RecordError::NoLayout { of: of.to_owned() });
        let cycle_size = size(cycle)?;
        let bytes = (place(cycle, "alloc_bytes", 8), place(cycle, "free_bytes", 8));
        Ok(Layout {
            size: usize::try_from(size(record)?)
                .ok()
                .filter(|s| *s <= 4096)
                .ok_or_else(|| missing(record, ""))?,
            active: place(record, "active", cycle_size)?,
            future: place(record, "future", 3 * cycle_size)?,
            cycle: usize::try_from(cycle_size).unwrap_or_default(),
            allocs: place(cycle, "allocs", 8)?,
            frees: place(cycle, "frees", 8)?,
            bytes: match bytes {
                (Ok(allocated), Ok(freed)) => Some((allocated, freed)),
                _ => None,
            },
        })
    }

    /// Returns the layout of the release. If the table in use belongs to another release, returns the layout
    /// that the records in memory show.
    fn in_use(tables: &Tables<'_>, memory: &dyn Memory, list: RuntimeAddr) -> Result<Self, BucketsError> {
        let view = tables.view;
        if !shape::is_borrowed(view) {
            return Ok(Layout::of(&view.table)?);
        }
        let buckets = list::of_runtime(view, memory, list, BucketKind::Memory, shape::WITH_BYTES)?;
        let size = shape::memory(&buckets).map_err(|why| BucketsError::Damaged { list, why })?;
        let cycle = size / 4;
        let bytes = (size == shape::WITH_BYTES).then_some((16, 24));
        Ok(Layout { size, active: 0, future: cycle, cycle, allocs: 0, frees: 8, bytes })
    }

    fn counts(&self, bucket: &Bucket, at: usize) -> Counts {
        let word = |offset: usize| {
            let start = at + offset;
            let bytes = bucket.record.get(start..start + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (allocs, frees) = (word(self.allocs), word(self.frees));
        let (alloc_bytes, free_bytes) = match self.bytes {
            Some((allocated, freed)) => (word(allocated), word(freed)),
            None => (allocs.wrapping_mul(bucket.size), frees.wrapping_mul(bucket.size)),
        };
        Counts { allocs, frees, alloc_bytes, free_bytes }
    }

    fn active(&self, bucket: &Bucket) -> Counts {
        self.counts(bucket, self.active)
    }

    fn future(&self, bucket: &Bucket, slot: usize) -> Counts {
        self.counts(bucket, self.future + slot * self.cycle)
    }

    /// Returns the counts that `runtime.MemProfile` would report: published counts plus the slot due in this
    /// cycle. The slot is empty if the runtime has already published it.
    fn published(&self, bucket: &Bucket, cycle: u32) -> Counts {
        self.active(bucket).plus(self.future(bucket, cycle as usize % 3))
    }

    fn counted(&self, bucket: &Bucket) -> Counts {
        (0..3).fold(self.active(bucket), |sum, slot| sum.plus(self.future(bucket, slot)))
    }
}

struct Reading {
    /// Number of the profile cycle, `None` if a new cycle began during the reading.
    cycle: Option<u32>,
    buckets: Vec<Bucket>,
}

impl Reading {
    fn take(
        tables: &Tables<'_>,
        memory: &dyn Memory,
        layout: &Layout,
        list: RuntimeAddr,
    ) -> Result<Self, BucketsError> {
        let view = tables.view;
        let before = cycle(tables, memory)?;
        let buckets = list::of_runtime(view, memory, list, BucketKind::Memory, layout.size)?;
        Ok(Reading { cycle: Some(before).filter(|b| cycle(tables, memory) == Ok(*b)), buckets })
    }

    /// Returns true if nothing was published between two readings. The later reading then holds no
    /// half-published bucket.
    fn agrees(&self, later: &Reading, layout: &Layout) -> bool {
        let (Some(cycle), true) = (later.cycle, later.cycle == self.cycle) else { return false };
        // New buckets are at the head of the list and have nothing to publish yet.
        let Some(new) = later.buckets.len().checked_sub(self.buckets.len()) else { return false };
        let (new, old) = later.buckets.split_at(new);
        let published = |bucket: &Bucket| layout.published(bucket, cycle);
        later.is_published(layout, cycle)
            && new.iter().all(|b| published(b) == Counts::default())
            && old.iter().zip(&self.buckets).all(|(a, b)| published(a) == published(b))
    }

    /// Returns true if no bucket has counts left to publish in this cycle. The runtime adds the counts of a
    /// slot to the published ones first and clears the slot then (`runtime.mProf_FlushLocked`), so in
    /// between they are present twice. The publishing thread may lose its CPU at that point, so that two
    /// readings agree on such a state.
    fn is_published(&self, layout: &Layout, cycle: u32) -> bool {
        self.buckets.iter().all(|bucket| layout.future(bucket, cycle as usize % 3) == Counts::default())
    }
}

/// Reads the sampled allocations of a process without stopping it.
///
/// A collection publishes bucket by bucket, under a lock that an outside reader cannot take. Therefore the
/// table is read until two readings agree.
///
/// # Errors
/// Returns a [`BucketsError`] if the table or one of its variables cannot be read.
pub fn read_memory(tables: &Tables<'_>, memory: &dyn Memory) -> Result<MemoryBuckets, BucketsError> {
    let rate = memory.word(tables.at("runtime.MemProfileRate")?)?.cast_signed();
    let list = tables.at("runtime.mbuckets")?;
    let layout = Layout::in_use(tables, memory, list)?;
    let mut time = SystemTime::now();
    let mut reading = Reading::take(tables, memory, &layout, list)?;
    let mut consistent = false;
    for _ in 1..MAX_READINGS {
        time = SystemTime::now();
        let again = Reading::take(tables, memory, &layout, list)?;
        consistent = reading.agrees(&again, &layout);
        reading = again;
        if consistent {
            break;
        }
        sleep(BETWEEN_READINGS);
    }
    let cycle = match reading.cycle {
        Some(cycle) => cycle,
        None => cycle(tables, memory)?,
    };
    let before_first_collection = reading.buckets.iter().all(|bucket| {
        let published = layout.published(bucket, cycle);
        published.allocs == 0 && published.frees == 0
    });
    let buckets = reading.buckets.into_iter().map(|bucket| {
        let counted = layout.counted(&bucket);
        let published = if before_first_collection { counted } else { layout.published(&bucket, cycle) };
        MemoryBucket { published, counted, size: bucket.size, stack: bucket.stack }
    });
    Ok(MemoryBuckets { rate, buckets: buckets.collect(), before_first_collection, consistent, time })
}

/// Reads the number of the profile cycle. From Go 1.19 it is in `mProfCycle`, with a flag in the lowest bit;
/// up to Go 1.18 it is in `mProf`.
fn cycle(tables: &Tables<'_>, memory: &dyn Memory) -> Result<u32, BucketsError> {
    let view = tables.view;
    let cycle = if view.release.has_profile_cycle() {
        let at = tables.at("runtime.mProfCycle")?;
        Record::read(memory, &view.table, "runtime.mProfCycle", at)?.u32("value")? >> 1
    } else {
        let at = tables.at("runtime.mProf")?;
        Record::read(memory, &view.table, "runtime.mProf", at)?.u32("cycle")?
    };
    if cycle >= CYCLE_WRAP {
        let why = format!("{cycle} is no number of a cycle");
        return Err(BucketsError::Damaged { list: tables.at("runtime.mbuckets")?, why });
    }
    Ok(cycle)
}

/// Builds the profile `heap`, with memory in use as the default sample type.
pub fn heap_profile(tables: &Tables<'_>, buckets: &MemoryBuckets, mappings: Vec<Mapping>) -> Profile {
    profile(tables, buckets, mappings, 3)
}

/// Builds the profile `allocs`, with allocated memory as the default sample type.
pub fn allocs_profile(tables: &Tables<'_>, buckets: &MemoryBuckets, mappings: Vec<Mapping>) -> Profile {
    profile(tables, buckets, mappings, 1)
}

fn profile(
    tables: &Tables<'_>,
    buckets: &MemoryBuckets,
    mappings: Vec<Mapping>,
    default_sample_type: usize,
) -> Profile {
    let rules = Rules { release: tables.view.release, machine: tables.view.machine };
    let mut symbolizer = Symbolizer::new(tables.view, mappings);
    let mut samples = Vec::with_capacity(buckets.buckets.len());
    for bucket in &buckets.buckets {
        let counts = bucket.published;
        let in_use = counts.allocs.wrapping_sub(counts.frees).cast_signed();
        let in_use_bytes = counts.alloc_bytes.wrapping_sub(counts.free_bytes).cast_signed();
        let allocated = scaled(
            counts.allocs.cast_signed(),
            counts.alloc_bytes.cast_signed(),
            bucket.size,
            buckets.rate,
            rules,
        );
        let used = scaled(in_use, in_use_bytes, bucket.size, buckets.rate, rules);
        // Releases that keep sums of bytes compute the object size from those sums.
        let size = match counts.allocs.cast_signed() {
            _ if rules.release.has_one_size_per_bucket() => Some(bucket.size.cast_signed()),
            allocs if allocs > 0 => Some(counts.alloc_bytes.cast_signed() / allocs).filter(|s| *s != 0),
            _ => None,
        };
        let label = |size| Label { key: "bytes".to_owned(), value: LabelValue::Number(size, String::new()) };
        samples.push(Sample {
            stack: locations(&mut symbolizer, &bucket.stack),
            values: vec![allocated.0, allocated.1, used.0, used.1],
            labels: size.map(label).into_iter().collect(),
        });
    }
    let symbols = symbolizer.finish();
    let mut comments = Vec::new();
    if !buckets.consistent {
        comments.push(
            "collections were at work on this profile all the time while it was read: some of its rows may be of \
             before one, others of after it"
                .to_owned(),
        );
    }
    let value_type = ValueType::new;
    Profile {
        sample_types: vec![
            value_type("alloc_objects", "count"),
            value_type("alloc_space", "bytes"),
            value_type("inuse_objects", "count"),
            value_type("inuse_space", "bytes"),
        ],
        default_sample_type,
        period: Some((value_type("space", "bytes"), buckets.rate)),
        time: buckets.time,
        duration: None,
        mappings: symbols.mappings,
        locations: symbols.locations,
        functions: symbols.functions,
        samples,
        comments,
    }
}

/// Returns the stack without runtime functions at its inner end, unless only those are in it.
fn locations(symbolizer: &mut Symbolizer<'_>, stack: &[u64]) -> Vec<usize> {
    let first = stack.iter().position(|&entry| !symbolizer.is_of_runtime(entry)).unwrap_or(0);
    let locations = symbolizer.logical(stack.get(first..).unwrap_or_default());
    if locations.is_empty() && first > 0 { symbolizer.logical(stack) } else { locations }
}

/// Rules by which the inspected program computes estimates.
#[derive(Debug, Clone, Copy)]
struct Rules {
    release: GoRelease,
    machine: &'static dyn Machine,
}

/// Estimates the number and bytes of all objects from the sampled ones (`scaleHeapSample`).
///
/// The sampling probability of an object of `size` bytes is 1-exp(-size/rate).
fn scaled(count: i64, bytes: i64, size: u64, rate: i64, rules: Rules) -> (i64, i64) {
    // The object size is that of the bucket if the bucket has one size, otherwise the mean.
    let (given, exact) = if rules.release.has_one_size_per_bucket() {
        let size = size.cast_signed();
        (size, count.wrapping_mul(size))
    } else {
        (bytes, bytes)
    };
    if count == 0 || given == 0 {
        return (0, 0);
    }
    if rate <= 1 {
        return (count, exact);
    }
    let mean =
        if rules.release.has_one_size_per_bucket() { given as f64 } else { bytes as f64 / count as f64 };
    let scale = 1.0 / (1.0 - rules.machine.exp_of_negative(-mean / rate as f64));
    ((count as f64 * scale) as i64, (exact as f64 * scale) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::host::MACHINE;

    const GO_1_24: Rules = Rules { release: GoRelease::of_minor(24), machine: MACHINE };
    const GO_1_27: Rules = Rules { release: GoRelease::of_minor(27), machine: MACHINE };

    #[test]
    fn scaling() {
        assert_eq!(scaled(3, 48, 16, 1, GO_1_24), (3, 48));
        assert_eq!(scaled(3, 0, 16, 0, GO_1_27), (3, 48));
        assert_eq!(scaled(0, 0, 16, 524_288, GO_1_24), (0, 0));
        // One sampled object of 16 bytes at one sample per 512 KiB stands for about 32768 objects.
        assert_eq!(scaled(1, 16, 16, 524_288, GO_1_24), (32_768, 524_296));
        assert_eq!(scaled(1, 16, 16, 524_288, GO_1_27), (32_768, 524_296));
        assert_eq!(scaled(2, 2 << 30, 1 << 30, 524_288, GO_1_24), (2, 2 << 30));
        assert_eq!(scaled(-1, -16, 16, 524_288, GO_1_24).0, -32_768);
    }

    #[test]
    fn what_a_window_saw() {
        let counts =
            |allocs, frees| Counts { allocs, frees, alloc_bytes: 16 * allocs, free_bytes: 16 * frees };
        let bucket = |entry, counted| MemoryBucket {
            size: 16,
            stack: vec![entry],
            published: Counts::default(),
            counted,
        };
        let reading = |buckets| MemoryBuckets {
            rate: 512,
            buckets,
            before_first_collection: true,
            consistent: true,
            time: SystemTime::UNIX_EPOCH,
        };
        let before = reading(vec![bucket(1, counts(5, 1)), bucket(2, counts(7, 0))]);
        let after = reading(vec![bucket(3, counts(2, 1)), bucket(1, counts(6, 4)), bucket(2, counts(7, 3))]);
        let window = after.since(&before);
        let seen: Vec<_> = window.buckets.iter().map(|b| (b.stack[0], b.published)).collect();
        // Three objects were freed at place 1, but only one was allocated since the first reading.
        assert_eq!(seen, [(3, counts(2, 1)), (1, counts(1, 1))]);
        assert!(!window.before_first_collection && window.rate == 512);
    }

    #[test]
    fn records_of_each_release() {
        for minor in symbols::layout::releases().map(|release| release.minor) {
            let layout = Layout::of(&list::tests::table(minor)).unwrap();
            let one_size = GoRelease::of_minor(minor).has_one_size_per_bucket();
            let words: Vec<u64> = (1..=if one_size { 8 } else { 16 }).collect();
            let record: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            assert_eq!(record.len(), layout.size, "{minor}");
            let bucket = Bucket { at: 0, size: 10, stack: Vec::new(), record };
            let active = layout.active(&bucket);
            assert_eq!((active.allocs, active.frees), (1, 2), "{minor}");
            let last = layout.future(&bucket, 2);
            let expected = if one_size { (7, 8, 70, 80) } else { (13, 14, 15, 16) };
            assert_eq!((last.allocs, last.frees, last.alloc_bytes, last.free_bytes), expected, "{minor}");
        }
    }

    #[test]
    fn what_is_just_being_published_is_not_consistent() {
        let layout = Layout::of(&list::tests::table(24)).unwrap();
        // Allocations in `active` and in the three future cycles. Each slot has four words.
        let reading = |allocs: [u64; 4]| Reading {
            cycle: Some(4),
            buckets: vec![Bucket {
                at: 0,
                size: 10,
                stack: Vec::new(),
                record: allocs.iter().flat_map(|n| [*n, 0, n * 10, 0]).flat_map(u64::to_le_bytes).collect(),
            }],
        };
        let agrees = |allocs| reading(allocs).agrees(&reading(allocs), &layout);
        assert!(agrees([5, 1, 0, 2]));
        // The slot is published and not cleared yet: five would be counted as ten.
        assert!(!agrees([5, 1, 5, 2]));
    }
}
