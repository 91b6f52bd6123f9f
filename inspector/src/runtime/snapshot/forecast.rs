//! Forecast of the duration of a stop of many threads, from stops of a few threads and reads of a few
//! goroutines.
//!
//! The measurements are of this machine, this process and this moment. The shortest of several times counts,
//! because anything above it is interference by other processes, which may vary.

use std::time::{Duration, Instant};

use super::copier::Copier;
use super::paused::read_gs;
use super::{SnapshotError, TooMany};
use crate::memory::MemoryError;
use crate::stop::{self, StopError, Stopped};

/// Maximum number of threads that are stopped without a forecast. Such a stop takes a millisecond.
pub(super) const FEW: usize = 64;
/// Number of threads that are stopped together for a forecast. `SAMPLES` is the number of such stops.
const SAMPLE: u8 = 16;
const SAMPLES: usize = 3;
/// Maximum time that threads of a sample wait for each other.
const HOLD: Duration = Duration::from_millis(5);
/// Maximum number of goroutines read for a forecast.
const READ: usize = 128;
/// Divisor of the stop time that gives an upper bound of the time to resume all threads.
const RELEASE_PART: u32 = 2;

/// Expected duration of a stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forecast {
    pub(super) threads: usize,
    /// Total duration of the stop.
    pub(super) total: Duration,
    /// Part of the total at the end, to resume all threads.
    pub(super) release: Duration,
}

impl Forecast {
    pub(super) fn too_many(&self) -> TooMany {
        TooMany { threads: self.threads, expected: self.total }
    }
}

/// Computes the forecast. Returns `None` if the process has few threads.
pub(super) fn of(copier: &mut Copier<'_>, hot: &[usize]) -> Result<Option<Forecast>, SnapshotError> {
    let pid = copier.process.pid().as_raw();
    let tids = stop::threads(pid)?;
    if tids.len() <= FEW {
        return Ok(None);
    }
    // Without a measurement, a stop is attempted.
    let each = stopping_one(pid, &tids)?.unwrap_or_default();
    let begun = Instant::now();
    let ms = copier.view.read_ms(copier.memory);
    let listing = begun.elapsed();
    drop(ms);
    let reading = reading_one(copier, hot)?;
    let times = |one: Duration, number: usize| one.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
    let stopping = times(each, tids.len());
    let total = stopping + listing + times(reading, hot.len());
    Ok(Some(Forecast { threads: tids.len(), total, release: stopping / RELEASE_PART }))
}

/// Measures the time to stop one thread, in a group with others.
fn stopping_one(pid: i32, tids: &[i32]) -> Result<Option<Duration>, SnapshotError> {
    let mut least: Option<Duration> = None;
    let mut found = |each: Duration| least = Some(least.map_or(each, |least| least.min(each)));
    // Samples are spread over all threads, not only the oldest.
    let apart = (tids.len() / usize::from(SAMPLE) / SAMPLES).max(1);
    for sample in tids.chunks_exact(usize::from(SAMPLE)).step_by(apart).take(SAMPLES) {
        match Stopped::some_threads(pid, sample, HOLD) {
            Ok(stopped) => {
                let number = u32::try_from(stopped.tids().count()).unwrap_or(u32::MAX).max(1);
                found(stopped.thaw() / number);
            }
            // The stop takes at least this time.
            Err(StopError::Timeout(_)) => found(HOLD / u32::from(SAMPLE)),
            // Another tracer is present, which the real stop handles, or the threads have ended.
            Err(StopError::Denied | StopError::Exited) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(least)
}

/// Measures the time to read one of the `hot` goroutines. Discards the results.
fn reading_one(copier: &mut Copier<'_>, hot: &[usize]) -> Result<Duration, MemoryError> {
    let sample = hot.get(..hot.len().min(READ)).unwrap_or_default();
    let begun = Instant::now();
    read_gs(copier, sample)?;
    let took = begun.elapsed();
    for &index in sample {
        if let Some(settled) = copier.settled.get_mut(index) {
            *settled = false;
        }
    }
    Ok(took / u32::try_from(sample.len()).unwrap_or(u32::MAX).max(1))
}
