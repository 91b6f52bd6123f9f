//! Processor ticks per second.

use std::time::Duration;

use super::{BucketsError, Tables};
use crate::arch::host;
use crate::clock;
use crate::memory::Memory;
use crate::runtime::record::Record;

/// Processor ticks (`cputicks`) per second of CLOCK_MONOTONIC, and the source of the number.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum TicksPerSecond {
    /// Value computed by the runtime. The runtime computes it only once.
    Runtime(i64),
    /// Value that the runtime would compute now, measured since the start of the process (from Go 1.22). The
    /// runtime has not computed it yet.
    SinceStart(i64),
    /// Value measured by this process, as the runtime does before Go 1.22. Used if the variable was not
    /// found or is still empty.
    Calibrated(i64),
}

impl TicksPerSecond {
    /// Returns the number of ticks per second.
    pub fn value(self) -> i64 {
        match self {
            TicksPerSecond::Runtime(v) | TicksPerSecond::SinceStart(v) | TicksPerSecond::Calibrated(v) => v,
        }
    }
}

/// Minimum time since the start of the process, in nanoseconds (`minTimeForTicksPerSecond`).
const MIN_SINCE_START: i64 = 5_000_000;
/// Duration of the measurement, as in the runtime before Go 1.22.
const MEASURED: Duration = Duration::from_millis(100);
/// Plausible range of ticks per second of any processor.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = 1_000_000..=100_000_000_000;

/// Determines `runtime.ticksPerSecond` of a process. A measurement, if needed, takes a tenth of a second.
///
/// # Errors
/// Returns a [`BucketsError`] if the memory of the target cannot be read.
pub fn ticks_per_second(tables: &Tables<'_>, memory: &dyn Memory) -> Result<TicksPerSecond, BucketsError> {
    if let Some(at) = tables.located.at("runtime.ticks") {
        let ticks = Record::read(memory, &tables.view.table, "runtime.ticks", at)?;
        if let Some(value) = ticks.i64("val").ok().filter(|v| PLAUSIBLE.contains(v)) {
            return Ok(TicksPerSecond::Runtime(value));
        }
        if let (Ok(start_ticks), Ok(start_time)) = (ticks.i64("startTicks"), ticks.i64("startTime"))
            && let Some(value) = since_start(start_ticks, start_time, tables.view.monotonic_offset)
        {
            return Ok(TicksPerSecond::SinceStart(value));
        }
    }
    Ok(TicksPerSecond::Calibrated(calibrate()))
}

fn since_start(start_ticks: i64, start_time: i64, offset: i64) -> Option<i64> {
    let (time, ticks) = now();
    let elapsed = time.checked_add(offset)?.checked_sub(start_time).filter(|e| *e > MIN_SINCE_START)?;
    let counted = ticks.checked_sub(start_ticks).filter(|t| *t > 0)?;
    let value = (counted as f64 * 1e9 / elapsed as f64) as i64;
    Some(value).filter(|v| PLAUSIBLE.contains(v))
}

fn calibrate() -> i64 {
    let (t0, c0) = now();
    std::thread::sleep(MEASURED);
    let (t1, c1) = now();
    let ticks = i128::from(c1.wrapping_sub(c0)) * 1_000_000_000 / i128::from((t1 - t0).max(1));
    i64::try_from(ticks).unwrap_or(i64::MAX).max(1)
}

/// Number of readings of both clocks for one pair. An interrupt may fall between the two clocks.
const TRIES: usize = 8;

/// Reads CLOCK_MONOTONIC in nanoseconds and the processor's counter at the same moment.
fn now() -> (i64, i64) {
    let pair = || {
        let before = clock::monotonic();
        let ticks = host::ticks(before);
        let after = clock::monotonic();
        (after - before, (before + (after - before) / 2, ticks))
    };
    (0..TRIES).map(|_| pair()).min_by_key(|(gap, _)| *gap).unwrap_or_else(pair).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree() {
        let (time, ticks) = now();
        let measured = calibrate();
        assert!(PLAUSIBLE.contains(&measured), "{measured}");
        let since = since_start(ticks, time, 0).unwrap();
        assert!((since - measured).abs() < measured / 100, "{since} {measured}");
        assert_eq!(since_start(ticks, i64::MAX, 0), None);
        assert_eq!(since_start(i64::MAX, time, 0), None);
        assert_eq!(since_start(0, i64::MIN, i64::MAX), None);
    }
}
