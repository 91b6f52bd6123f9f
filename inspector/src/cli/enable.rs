//! Option `--enable`: its value, and messages about the writes.

use std::time::Duration;

use super::args::{Common, MemoryLimit};
use super::duration::parse_duration;
use super::notices::Notice;
use crate::Error;
use crate::change::sampling::{Closed, DEFAULT_HEAP_RATE};
use crate::operations::enable::{Rate, Request};
use crate::operations::profile::ProfileKind;
use crate::report::changes::Written;

/// Default sampling rate of waits: a wait of at least this length is always sampled.
const BLOCK_RATE: Duration = Duration::from_micros(10);
/// Default sampling rate of contended locks: one in this number is sampled.
const MUTEX_RATE: u64 = 10;

/// Parses the value of `--enable` for a profile. Empty text means the default rate.
pub(super) fn request(kind: ProfileKind, rate: &str, duration: Duration) -> Result<Request, Error> {
    let wrong = |what: &str| Error::Usage(format!("--enable={rate}: {rate:?} is not {what}"));
    let rate = match kind {
        ProfileKind::Heap | ProfileKind::Allocs if rate.is_empty() => Rate::Bytes(DEFAULT_HEAP_RATE),
        ProfileKind::Heap | ProfileKind::Allocs => {
            let bytes = rate.parse::<MemoryLimit>().ok().and_then(|bytes| u64::try_from(bytes.0).ok());
            let bytes = bytes.filter(|&bytes| (1..=1 << 40).contains(&bytes));
            Rate::Bytes(bytes.ok_or_else(|| wrong("a number of bytes such as 64KiB"))?)
        }
        ProfileKind::Block if rate.is_empty() => Rate::Wait(BLOCK_RATE),
        ProfileKind::Block => {
            let wait = parse_duration(rate).ok().filter(|wait| !wait.is_zero());
            Rate::Wait(wait.ok_or_else(|| wrong("a duration such as 100us"))?)
        }
        ProfileKind::Mutex if rate.is_empty() => Rate::OneIn(MUTEX_RATE),
        ProfileKind::Mutex => {
            let events = rate.parse().ok().filter(|&events| events > 0);
            Rate::OneIn(events.ok_or_else(|| wrong("a number of events such as 5"))?)
        }
        ProfileKind::Goroutine | ProfileKind::ThreadCreate => {
            return Err(Error::Usage("--enable: this profile has no profiler to switch on".to_owned()));
        }
    };
    Ok(Request { rate, duration })
}

/// Prints the writes, with `-v`.
pub(super) fn tell(closed: &Closed, common: &Common) {
    if common.verbose == 0 {
        return;
    }
    for word in &closed.written {
        Notice::Wrote.tell(common, Written::from(word));
    }
    for restored in &closed.restored {
        let what = if restored.written { "put back" } else { "left as the program has set it" };
        Notice::Wrote.tell(common, format_args!("{} is {} again ({what})", restored.name, restored.value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = |kind, text: &str| request(kind, text, Duration::ZERO).map(|r| r.rate).ok();
        assert_eq!(rate(ProfileKind::Heap, ""), Some(Rate::Bytes(512 << 10)));
        assert_eq!(rate(ProfileKind::Allocs, "64KiB"), Some(Rate::Bytes(64 << 10)));
        assert_eq!(rate(ProfileKind::Heap, "1"), Some(Rate::Bytes(1)));
        assert_eq!(rate(ProfileKind::Block, ""), Some(Rate::Wait(Duration::from_micros(10))));
        assert_eq!(rate(ProfileKind::Block, "1ms"), Some(Rate::Wait(Duration::from_millis(1))));
        assert_eq!(rate(ProfileKind::Mutex, "7"), Some(Rate::OneIn(7)));
        for (kind, text) in [
            (ProfileKind::Heap, "0"),
            (ProfileKind::Heap, "off"),
            (ProfileKind::Heap, "2TiB"),
            (ProfileKind::Block, "0"),
            (ProfileKind::Block, "x"),
            (ProfileKind::Mutex, "0"),
            (ProfileKind::Mutex, "-1"),
            (ProfileKind::Goroutine, ""),
            (ProfileKind::ThreadCreate, "1"),
        ] {
            assert_eq!(rate(kind, text), None, "{kind:?} {text}");
        }
    }
}
