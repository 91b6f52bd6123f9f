//! How long a stop of many threads would take, told from stops of a few of them and from reading a few goroutines.
//!
//! What is measured is of this machine, this process and this moment. The shortest of several times counts: what lies above that
//! is of others, who may be there at one time and not at the next.

use std::time::{Duration, Instant};

use super::copier::Copier;
use super::paused::read_gs;
use super::{SnapshotError, TooMany};
use crate::memory::MemoryError;
use crate::stop::{self, StopError, Stopped};

/// So few threads are stopped without asking: that takes a millisecond.
pub(super) const FEW: usize = 64;
/// Threads that are stopped together for a forecast, and how often some are.
const SAMPLE: u8 = 16;
const SAMPLES: usize = 3;
/// These wait no longer for each other.
const HOLD: Duration = Duration::from_millis(5);
/// Goroutines that are read for a forecast.
const READ: usize = 128;
/// Of stopping a thread, letting it go on takes no more than this part.
const RELEASE_PART: u32 = 2;

/// What a stop is expected to take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forecast {
    pub(super) threads: usize,
    /// In all.
    pub(super) total: Duration,
    /// Of that, at the end, to let all threads go on.
    pub(super) release: Duration,
}

impl Forecast {
    pub(super) fn too_many(&self) -> TooMany {
        TooMany { threads: self.threads, expected: self.total }
    }
}

/// `None` for few threads.
pub(super) fn of(copier: &mut Copier<'_>, hot: &[usize]) -> Result<Option<Forecast>, SnapshotError> {
    let pid = copier.process.pid().as_raw();
    let tids = stop::threads(pid)?;
    if tids.len() <= FEW {
        return Ok(None);
    }
    // Where nothing is known, a stop is tried.
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

/// What stopping a thread takes, together with others.
fn stopping_one(pid: i32, tids: &[i32]) -> Result<Option<Duration>, SnapshotError> {
    let mut least: Option<Duration> = None;
    let mut found = |each: Duration| least = Some(least.map_or(each, |least| least.min(each)));
    // Not only the oldest ones.
    let apart = (tids.len() / usize::from(SAMPLE) / SAMPLES).max(1);
    for sample in tids.chunks_exact(usize::from(SAMPLE)).step_by(apart).take(SAMPLES) {
        match Stopped::some_threads(pid, sample, HOLD) {
            Ok(stopped) => {
                let number = u32::try_from(stopped.tids().count()).unwrap_or(u32::MAX).max(1);
                found(stopped.thaw() / number);
            }
            // At least that.
            Err(StopError::Timeout(_)) => found(HOLD / u32::from(SAMPLE)),
            // Another tracer is there, which the stop itself deals with; or they have ended meanwhile.
            Err(StopError::Denied | StopError::Exited) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(least)
}

/// What reading one of the `hot` goroutines takes, of which nothing that is read now remains.
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
