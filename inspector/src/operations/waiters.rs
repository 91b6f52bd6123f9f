//! Goroutines that have been waiting since before a profiler was switched on. The runtime counts a wait at
//! its end, with what it noted at its begin: block and mutex profiles of a period say nothing about
//! goroutines that are stuck.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::profile::ProfileKind;
use crate::process::Process;
use crate::profile::{Frame, mappings};
use crate::report::traceback::header_status;
use crate::runtime::goroutine::{Epoch, Goroutine};
use crate::runtime::snapshot::{self, Pause, Snapshot, SnapshotOptions};
use crate::runtime::stack_counts::goroutine_profile;
use crate::runtime::view::View;

/// Maximum number of places that are named.
const MAX_PLACES: usize = 3;
/// Maximum number of wait reasons that are named.
const MAX_REASONS: usize = 4;

/// Goroutines that wait at one time.
#[derive(Debug)]
pub(crate) struct Waiters {
    epochs: HashMap<u64, Epoch>,
    /// Number of goroutines that wait for a lock.
    for_locks: usize,
}

/// Returns true if a wait reason (`runtime.waitReasonStrings`) is that of a lock. Before Go 1.20, mutexes
/// have the reason of semaphores, which wait groups also have.
fn is_lock(reason: &str) -> bool {
    matches!(reason, "sync.Mutex.Lock" | "sync.RWMutex.RLock" | "sync.RWMutex.Lock" | "semacquire")
}

/// Returns true if a profile covers waits with this reason.
fn is_of(kind: ProfileKind, reason: &str) -> bool {
    match kind {
        ProfileKind::Mutex => is_lock(reason),
        ProfileKind::Block => {
            is_lock(reason)
                || reason.starts_with("chan receive")
                || reason.starts_with("chan send")
                || reason.starts_with("select")
                || matches!(reason, "sync.Cond.Wait" | "sync.WaitGroup.Wait")
        }
        ProfileKind::Heap | ProfileKind::Allocs | ProfileKind::Goroutine | ProfileKind::ThreadCreate => false,
    }
}

impl Waiters {
    /// Finds the waiting goroutines. Returns `None` for profiles without waits, and if the goroutines cannot
    /// be read: the profile is possible all the same.
    pub(crate) fn look(kind: ProfileKind, process: &Process, view: &View) -> Option<Self> {
        let snapshot = take(kind, process, view)?;
        let waits = |g: &&Goroutine| !g.is_dead() && is_of(kind, header_status(view, g));
        let waiting: Vec<&Goroutine> = snapshot.slots.iter().map(|slot| &slot.g).filter(waits).collect();
        Some(Waiters {
            for_locks: waiting.iter().filter(|g| is_lock(header_status(view, g))).count(),
            epochs: waiting.iter().map(|g| (g.goid, g.epoch())).collect(),
        })
    }

    /// Returns the notes for the end of the period about goroutines that have been waiting since before its
    /// begin.
    pub(crate) fn notes(self, kind: ProfileKind, view: &View, process: &Process) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(mut snapshot) = take(kind, process, view) {
            snapshot.slots.retain(|slot| self.epochs.get(&slot.g.goid) == Some(&slot.g.epoch()));
            notes.extend(still_waiting(view, process, &snapshot));
        }
        if kind == ProfileKind::Mutex && self.for_locks > 0 {
            notes.push(format!(
                "{} goroutines waited for locks when the profiler was switched on: of a queue that began before, the runtime \
                 has no time to measure from, so what is in this profile may be far less than what was waited; `gops-probe \
                 pprof-block --enable` sees each wait that begins and ends while it is on, and `gops-probe pprof-goroutine` who \
                 waits now",
                self.for_locks
            ));
        }
        notes
    }
}

/// Takes a snapshot of the program's goroutines. Returns `None` for profiles without waits.
fn take(kind: ProfileKind, process: &Process, view: &View) -> Option<Snapshot> {
    if !matches!(kind, ProfileKind::Block | ProfileKind::Mutex) {
        return None;
    }
    let options = SnapshotOptions { pause: Pause::No, system: false, goid: None };
    match snapshot::take(process, view, &options) {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            tracing::info!("who waits is not known: {error}");
            None
        }
    }
}

/// Describes the goroutines that have been waiting all the time: number, reasons, longest wait and places.
/// `None` if there are none.
fn still_waiting(view: &View, process: &Process, snapshot: &Snapshot) -> Option<String> {
    let count = snapshot.slots.len();
    if count == 0 {
        return None;
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for slot in &snapshot.slots {
        *reasons.entry(header_status(view, &slot.g)).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let named: Vec<String> =
        reasons.iter().take(MAX_REASONS).map(|(reason, count)| format!("{count} in {reason}")).collect();
    let oldest = snapshot.slots.iter().map(|slot| slot.g.waitsince).filter(|&since| since > 0).min();
    // The runtime notes the start of a wait in a garbage collection.
    let since = oldest.map_or_else(String::new, |since| {
        let waited = u64::try_from(snapshot.taken_at.saturating_sub(since)).unwrap_or(0);
        let waited = Duration::from_secs(waited / 1_000_000_000);
        format!(", the longest of them for {} at least", humantime::format_duration(waited))
    });
    let places = places(view, process, snapshot);
    let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
    Some(format!(
        "{count} goroutines have been waiting since before that time and still are, so that their waits are not in it: {}{since}{places}; \
         `gops-probe stack {}` shows them",
        named.join(", "),
        process.pid()
    ))
}

/// Returns the places with the most waiting goroutines, by the first frame outside of `runtime`, `sync` and
/// `internal`.
fn places(view: &View, process: &Process, snapshot: &Snapshot) -> Vec<String> {
    let memory = process.memory();
    let mapped = mappings::of(process).unwrap_or_default();
    let made = goroutine_profile(view, &memory, snapshot, mapped, SystemTime::now());
    let mut places: BTreeMap<String, i64> = BTreeMap::new();
    for sample in &made.profile.samples {
        let own = |frame: &Frame<'_>| {
            let name = frame.name();
            !["runtime.", "sync.", "internal/"].iter().any(|package| name.starts_with(package))
        };
        let Some(frame) = made.profile.frames(&sample.stack).find(own) else { continue };
        let place = match frame.function.filter(|f| !f.file.is_empty()) {
            Some(function) => {
                let file = function.file.rsplit('/').next().unwrap_or_default();
                format!("{} at {file}:{}", frame.name(), frame.line)
            }
            None => frame.name().to_string(),
        };
        *places.entry(place).or_default() += sample.values.first().copied().unwrap_or(0);
    }
    let mut places: Vec<(String, i64)> = places.into_iter().collect();
    places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    places.into_iter().take(MAX_PLACES).map(|(place, count)| format!("{count} {place}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_is_of() {
        for reason in ["sync.Mutex.Lock", "sync.RWMutex.RLock", "semacquire"] {
            assert!(is_of(ProfileKind::Mutex, reason) && is_of(ProfileKind::Block, reason), "{reason}");
        }
        for reason in ["chan receive", "chan send (nil chan)", "select", "sync.Cond.Wait"] {
            assert!(!is_of(ProfileKind::Mutex, reason) && is_of(ProfileKind::Block, reason), "{reason}");
        }
        for reason in ["IO wait", "sleep", "running", "finalizer wait"] {
            assert!(!is_of(ProfileKind::Mutex, reason) && !is_of(ProfileKind::Block, reason), "{reason}");
        }
        assert!(!is_of(ProfileKind::Heap, "sync.Mutex.Lock"));
    }
}
