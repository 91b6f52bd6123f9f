//! Detection of contradictions: numbers of one answer that cannot all be true. Such an answer was read from
//! wrong addresses, whatever the layouts seem to say.
//!
//! Numbers read in one stop must agree exactly. Numbers read from a running process may be of different
//! moments: they are read again, and a remaining contradiction is reported.

use std::collections::BTreeMap;

use symbols::layout;
use symbols::program::{GoProgram, Release};

use super::goroutine::status;
use super::memstats::figures::MemStats;
use super::snapshot::{Consistency, Snapshot};
use super::stats::{More, Stats};
use super::view::View;

/// Numbers that cannot be true together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Contradiction {
    /// Fields of the answer that are not credible.
    pub fields: Vec<&'static str>,
    /// Description of the contradiction.
    pub why: String,
}

fn contradiction(fields: &[&'static str], why: String) -> Contradiction {
    Contradiction { fields: fields.to_vec(), why }
}

/// Maximum number of the runtime's own goroutines, besides one collector worker per P that ever existed:
/// sweeper, scavenger, finalizers, cleanups (one per four CPUs), signals, trace.
const OWN_GOROUTINES: u64 = 64;
/// Maximum number of goroutines that may come and go between two equal readings of the counters.
const UNSEEN: u64 = 64;

/// Checks the Go version that a program names. Its function table may have a form that only other releases
/// write.
pub fn of_version(program: &GoProgram) -> Option<Contradiction> {
    let (from, to) = program.contradicted?;
    let (named, is) = (&program.release, Release::Between(from, to));
    Some(contradiction(&["version"], format!("it would be {named}, and its function table is one of {is}")))
}

/// Maximum difference of thread counts between two equal readings: threads listed but not counted yet, or
/// counted but no longer listed.
const THREADS_UNSEEN: u64 = 4;

/// Checks `pprof-threadcreate`: the `listed` threads against the scheduler's thread counts `before` and
/// `after`.
pub fn of_threads(before: u64, listed: u64, after: u64) -> Option<Contradiction> {
    let (least, most) = (before.min(after), before.max(after));
    // The list may contain or lack each thread that came or went.
    let slack = THREADS_UNSEEN + (most - least).saturating_mul(2) + most / 8;
    let fits = (least.saturating_sub(slack)..=most.saturating_add(slack)).contains(&listed);
    let numbers = if least == most { least.to_string() } else { format!("{least} to {most}") };
    let why = || format!("{listed} threads are in the list, and the scheduler counts {numbers}");
    (!fits).then(|| contradiction(&["samples"], why()))
}

/// Checks `stats`: two readings of the counters, and the details counted between both.
pub fn of_stats(before: &Stats, after: &Stats, more: Option<&More>) -> Vec<Contradiction> {
    let mut found = Vec::new();
    for stats in [before, after] {
        let (all, kept, own) = (stats.gs, stats.free_gs, stats.system_goroutines);
        if kept.saturating_add(own) >= all {
            let why = format!("of {all} gs {kept} would be free, and {own} the runtime's own goroutines");
            found.push(contradiction(&["goroutines", "system_goroutines"], why));
        } else if own > OWN_GOROUTINES.saturating_add(stats.most_procs.saturating_mul(4)) {
            let why =
                format!("with at most {} Ps, {own} goroutines would be the runtime's", stats.most_procs);
            found.push(contradiction(&["goroutines", "system_goroutines"], why));
        }
        if !found.is_empty() {
            return found;
        }
    }
    let Some(more) = more else { return found };
    let counted: u64 = more.states.values().sum();
    let (least, most) = (before.goroutines.min(after.goroutines), before.goroutines.max(after.goroutines));
    let slack = UNSEEN.saturating_add(most / 4);
    if counted > most.saturating_add(slack) || counted.saturating_add(slack) < least {
        let why = format!("there would be {most} goroutines, and {counted} were counted one by one");
        found.push(contradiction(&["goroutines", "goroutines_by_state"], why));
    }
    let running = of_status(&more.states, status::RUNNING);
    // States are read one after another. A goroutine that gave way to the next may be counted, and the next
    // too.
    let could = after.gomaxprocs.max(before.gomaxprocs).saturating_mul(2).saturating_add(16);
    if running > could {
        let why = format!("{running} goroutines would run on {} Ps", after.gomaxprocs);
        found.push(contradiction(&["goroutines_by_state"], why));
    }
    found
}

fn of_status(states: &BTreeMap<(u32, u8), u64>, wanted: u32) -> u64 {
    states.iter().filter(|((status, _), _)| *status == wanted).map(|(_, count)| count).sum()
}

/// Counts of goroutines and threads in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Goroutines {
    /// Number of gs that hold a goroutine.
    pub live: usize,
    /// Number of goroutines in state running.
    pub running: usize,
    /// Number of running goroutines that a thread names as its current one.
    pub known_to_threads: usize,
    /// Number of threads that the runtime has; 0 if they could not be listed.
    pub threads: usize,
    /// Number of waiting goroutines.
    pub waiting: usize,
    /// Number of waiting goroutines with a wait reason unknown to every release.
    pub without_reason: usize,
    /// Number of goroutines with the id of another goroutine.
    pub duplicates: usize,
}

impl Goroutines {
    /// Counts the goroutines and threads of a snapshot.
    pub fn count(view: &View, snapshot: &Snapshot) -> Self {
        // Another release may have more wait reasons.
        let of_neighbour = matches!(view.layout, layout::Evidence::NeighbourMinor { .. });
        let reasons = view.table.wait_reasons().len();
        let known = |code: u8| of_neighbour || reasons == 0 || usize::from(code) < reasons;
        let mut counts = Goroutines { threads: snapshot.ms.len(), ..Goroutines::default() };
        let on_threads: std::collections::HashSet<u64> = snapshot.ms.iter().map(|m| m.curg).collect();
        let mut numbers = Vec::new();
        for g in snapshot.slots.iter().map(|slot| &slot.g).filter(|g| !g.is_dead()) {
            counts.live += 1;
            numbers.push(g.goid);
            match g.status() {
                status::RUNNING => {
                    counts.running += 1;
                    counts.known_to_threads += usize::from(on_threads.contains(&g.addr));
                }
                status::WAITING => {
                    counts.waiting += 1;
                    counts.without_reason += usize::from(!known(g.wait_reason));
                }
                _ => {}
            }
        }
        numbers.sort_unstable();
        counts.duplicates = numbers.windows(2).filter(|pair| pair.first() == pair.get(1)).count();
        counts
    }

    /// Returns the contradiction between the counts, if any. The limits depend on `consistency`: one
    /// instant, or successive moments.
    pub fn contradiction(&self, consistency: Consistency) -> Option<String> {
        let Goroutines { live, running, known_to_threads, threads, waiting, without_reason, duplicates } =
            *self;
        // Each goroutine was read at a moment of its own. Another one may have run on the same thread at
        // another moment.
        let could_run =
            if consistency == Consistency::Instant { threads } else { threads.saturating_mul(2) + 16 };
        if threads > 0 && running > could_run {
            return Some(format!("{running} goroutines would run on {threads} threads"));
        }
        // A few goroutines are in transition: the m names its goroutine before the goroutine's state
        // changes.
        if consistency == Consistency::Instant && threads > 0 && running > 8 && known_to_threads * 2 < running
        {
            return Some(format!(
                "{running} goroutines would run, and the threads know of {known_to_threads} of them"
            ));
        }
        if without_reason > 2 && without_reason * 10 > waiting {
            return Some(format!(
                "{without_reason} of {waiting} goroutines would wait for what no release knows"
            ));
        }
        if duplicates > 2 && duplicates * 10 > live && consistency == Consistency::Instant {
            return Some(format!("{duplicates} of {live} goroutines would have the number of another"));
        }
        None
    }
}

/// Checks relations between the fields of memory statistics, besides the sums that the runtime itself takes
/// as equal. `exact` is true if all fields are of one instant.
pub fn of_memstats(stats: &MemStats, exact: bool) -> Option<Contradiction> {
    let within = |small: (&'static str, Option<u64>), large: (&'static str, Option<u64>)| {
        let (part, whole) = (small.1?, large.1?);
        // A running process may allocate much between two reads.
        let slack = if exact { 0 } else { (64 << 20) + whole };
        (part > whole.saturating_add(slack)).then(|| {
            contradiction(&[small.0, large.0], format!("{} is {part}, {} {whole}", small.0, large.0))
        })
    };
    let pairs = [
        (("Frees", stats.frees), ("Mallocs", stats.mallocs)),
        (("HeapAlloc", stats.heap_alloc), ("TotalAlloc", stats.total_alloc)),
        (("HeapAlloc", stats.heap_alloc), ("HeapInuse", stats.heap_inuse)),
        (("HeapReleased", stats.heap_released), ("HeapIdle", stats.heap_idle)),
        (("HeapInuse", stats.heap_inuse), ("HeapSys", stats.heap_sys)),
        (("StackInuse", stats.stack_inuse), ("StackSys", stats.stack_sys)),
        (("MSpanInuse", stats.mspan_inuse), ("MSpanSys", stats.mspan_sys)),
        (("MCacheInuse", stats.mcache_inuse), ("MCacheSys", stats.mcache_sys)),
        (("HeapSys", stats.heap_sys), ("Sys", stats.sys)),
        (("NumForcedGC", stats.num_forced_gc), ("NumGC", stats.num_gc.map(|n| n.saturating_add(1)))),
    ];
    let fraction = stats.gc_cpu_fraction.filter(|f| !(0.0..=1.0).contains(f));
    let fraction = fraction
        .map(|f| contradiction(&["GCCPUFraction"], format!("GCCPUFraction is {f}, which is no part")));
    pairs.into_iter().find_map(|(small, large)| within(small, large)).or(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(gs: u64, free_gs: u64, own: u64) -> Stats {
        Stats {
            goroutines: gs.saturating_sub(free_gs).saturating_sub(own).max(1),
            threads: 5,
            gomaxprocs: 2,
            num_cpu: Some(2),
            system_goroutines: own,
            idle_procs: 0,
            gs,
            free_gs,
            most_procs: 2,
        }
    }

    fn more(states: &[((u32, u8), u64)]) -> More {
        More { states: states.iter().copied().collect(), ..More::default() }
    }

    #[test]
    fn numbers_of_goroutines() {
        let fine = stats(10_010, 5, 5);
        assert_eq!(of_stats(&fine, &fine, None), []);
        // Counts as a wrong layout, with larger locks, would give them.
        let wrong = stats(10_006, 0, 10_000);
        assert_eq!(of_stats(&fine, &wrong, None)[0].fields, ["goroutines", "system_goroutines"]);
        let none = stats(100, 98, 5);
        assert!(of_stats(&none, &none, None)[0].why.contains("98 would be free"));
    }

    #[test]
    fn counted_one_by_one() {
        let all = stats(1_005, 0, 5);
        let parked = more(&[((status::WAITING, 3), 998), ((status::RUNNING, 0), 2)]);
        assert_eq!(of_stats(&all, &all, Some(&parked)), []);
        let few = more(&[((status::WAITING, 3), 100)]);
        assert_eq!(of_stats(&all, &all, Some(&few))[0].fields, ["goroutines", "goroutines_by_state"]);
        // Goroutines created between the readings explain the difference.
        let later = stats(100_005, 0, 5);
        let half = more(&[((status::WAITING, 3), 50_000)]);
        assert_eq!(of_stats(&all, &later, Some(&half)), []);
        let runs = more(&[((status::RUNNING, 0), 1_000)]);
        assert_eq!(of_stats(&all, &all, Some(&runs))[0].fields, ["goroutines_by_state"]);
    }

    #[test]
    fn threads() {
        assert_eq!(of_threads(6, 6, 6), None);
        assert_eq!(of_threads(6, 9, 6), None);
        assert_eq!(of_threads(1_000, 2_500, 2_000), None);
        assert_eq!(of_threads(6, 12, 6).unwrap().fields, ["samples"]);
        assert!(of_threads(200, 1, 210).unwrap().why.contains("200 to 210"));
        assert!(of_threads(0, u64::MAX, 0).is_some());
        assert!(of_threads(u64::MAX, 5, u64::MAX).is_some());
    }

    #[test]
    fn goroutines_and_threads() {
        let fine = Goroutines {
            live: 100,
            running: 3,
            known_to_threads: 3,
            threads: 5,
            waiting: 97,
            ..Goroutines::default()
        };
        assert_eq!(fine.contradiction(Consistency::Instant), None);
        let many = Goroutines { running: 6, ..fine };
        assert!(many.contradiction(Consistency::Instant).is_some());
        assert_eq!(many.contradiction(Consistency::EachByItself), None);
        assert!(Goroutines { running: 90, ..fine }.contradiction(Consistency::EachByItself).is_some());
        let unknown = Goroutines { running: 12, known_to_threads: 2, threads: 20, ..fine };
        assert!(unknown.contradiction(Consistency::Instant).is_some());
        assert!(Goroutines { without_reason: 50, ..fine }.contradiction(Consistency::Instant).is_some());
        assert!(Goroutines { duplicates: 50, ..fine }.contradiction(Consistency::Instant).is_some());
        // Without a list of threads, no contradiction with threads is reported.
        assert_eq!(Goroutines { threads: 0, ..many }.contradiction(Consistency::Instant), None);
    }

    #[test]
    fn memory() {
        let fine = MemStats {
            mallocs: Some(10),
            frees: Some(9),
            heap_alloc: Some(1 << 20),
            total_alloc: Some(1 << 21),
            heap_inuse: Some(2 << 20),
            heap_sys: Some(4 << 20),
            sys: Some(8 << 20),
            gc_cpu_fraction: Some(0.5),
            ..MemStats::default()
        };
        assert_eq!(of_memstats(&fine, true), None);
        let freed = MemStats { frees: Some(11), ..fine.clone() };
        assert_eq!(of_memstats(&freed, true).unwrap().fields, ["Frees", "Mallocs"]);
        assert_eq!(of_memstats(&freed, false), None);
        let wrong = MemStats { heap_inuse: Some(1 << 40), ..fine.clone() };
        assert_eq!(of_memstats(&wrong, false).unwrap().fields, ["HeapInuse", "HeapSys"]);
        let fraction = MemStats { gc_cpu_fraction: Some(f64::NAN), ..fine };
        assert_eq!(of_memstats(&fraction, true).unwrap().fields, ["GCCPUFraction"]);
    }
}
