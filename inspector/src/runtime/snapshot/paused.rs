//! A snapshot of one instant: all threads stopped, for as short as possible.
//!
//! Before the stop everything is read, and what changed is read again until little changes any more. In the stop
//! come first the goroutines that can only be read then (running, in system calls …), then the gs once more, to
//! see what changed. Where that would take longer than allowed it is done after the stop: a goroutine that was
//! read before and is unchanged after was the same in between.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::copier::{Class, Copier};
use super::glist::GList;
use super::{Consistency, Details, Frames, Snapshot, SnapshotError, target_clock};
use crate::memory::{MemoryError, ReadCost};
use crate::runtime::code::AddressMap;
use crate::runtime::goroutine::{Goroutine, M};
use crate::runtime::running::{NoStart, running_start};
use crate::runtime::unwind::Start;
use crate::stop::{self, StopError, Stopped};

/// So few changes between two readings that another reading would find as many again.
const FEW: usize = 16;
const MAX_ROUNDS: usize = 8;
/// How often stopping is tried where a thread does not stop in time (a fork in progress, the disk).
const STOP_TRIES: u32 = 5;
/// A thread that another tracer or another gops-probe holds is waited for so long.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for all threads to stop, where the allowed pause is shorter.
const MIN_STOP_TIMEOUT: Duration = Duration::from_millis(20);
/// Changes after the stop are followed so often before a goroutine is given up as unreadable.
const SETTLE_ROUNDS: usize = 5;

/// Facts of the stop.
struct Stop {
    total: Duration,
    until_stopped: Duration,
    threads: usize,
    taken_at: i64,
    ms: Vec<M>,
    finalizer_runs_user_code: bool,
    /// All that was to be verified was verified in the stop.
    complete: bool,
}

pub(super) fn take(mut copier: Copier<'_>, limit: Duration) -> Result<Snapshot, SnapshotError> {
    copier.read_all()?;
    let mut last_scan;
    let mut before = usize::MAX;
    let mut rounds = 0;
    loop {
        copier.add_new()?;
        let begun = Instant::now();
        let changed = copier.reread_changed()?;
        last_scan = begun.elapsed();
        rounds += 1;
        // Less than 30 % fewer than last time: it is what changes all the time.
        let shrinks = (changed as f64) < 0.7 * before as f64;
        if changed <= FEW || !shrinks || rounds >= MAX_ROUNDS {
            break;
        }
        before = changed;
    }
    let by_addr: AddressMap<usize> = copier.slots.iter().enumerate().map(|(i, s)| (s.g.addr, i)).collect();
    let tids = Tids::of(&copier);
    // Scanning in the stop takes as long as it did just now, at least.
    let scan_in_stop = last_scan < limit;

    let stop = stop_and_read(&mut copier, &by_addr, &tids, limit, scan_in_stop)?;

    let mut consistency = Consistency::Instant;
    if !stop.complete {
        consistency = Consistency::InstantVerifiedAfterwards;
        verify_afterwards(&mut copier)?;
    }
    Ok(Snapshot {
        slots: copier.slots,
        shapes: copier.walker.shapes,
        ms: stop.ms,
        consistency,
        taken_at: stop.taken_at,
        finalizer_runs_user_code: stop.finalizer_runs_user_code,
        stopped: stop.total,
        until_stopped: stop.until_stopped,
        threads_stopped: stop.threads,
        cost: ReadCost::default(),
    })
}

/// Stops the target, trying again where a thread does not stop in time or somebody else holds one.
fn stop_all(pid: i32, limit: Duration) -> Result<Stopped, StopError> {
    let timeout = limit.max(MIN_STOP_TIMEOUT);
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        match Stopped::all_threads(pid, timeout) {
            Err(StopError::Denied) if stop::is_traced(pid) && begun.elapsed() < TURN_TIMEOUT => {
                // Two that each hold some of the threads must not retry in step.
                let jitter = u64::from(std::process::id() % 7);
                std::thread::sleep(Duration::from_millis(1 + jitter));
            }
            Err(StopError::Timeout(_)) if tries < STOP_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(2 << tries));
            }
            result => return result,
        }
    }
}

fn stop_and_read(
    copier: &mut Copier<'_>,
    by_addr: &AddressMap<usize>,
    tids: &Tids,
    limit: Duration,
    scan_in_stop: bool,
) -> Result<Stop, SnapshotError> {
    let view = copier.view;
    let stopped = stop_all(view.pid, limit)?;
    let begun = stopped.begun();
    let until_stopped = begun.elapsed();
    let taken_at = target_clock(view);
    let threads = stopped.tids().count();

    let ms = view.read_ms(copier.memory);
    let new = copier.add_new()?;
    let new_by_addr: HashMap<u64, usize> = new.clone().map(|i| (copier.list.addr(i), i)).collect();
    let index_of = |g: u64| by_addr.get(&g).or_else(|| new_by_addr.get(&g)).copied();

    // What threads run, what was not settled at the last look, and what is new.
    let mut hot: Vec<usize> = ms.iter().filter_map(|m| index_of(m.curg)).collect();
    for index in 0..copier.slots.len() {
        let g = copier.slots[index].g;
        if new.contains(&index) || matches!(copier.class(&g), Class::Running | Class::Unsettled) {
            hot.push(index);
        }
    }
    hot.sort_unstable();
    hot.dedup();
    read_hot(copier, &hot, &ms, &stopped, tids, begun + limit)?;

    let mut complete = scan_in_stop;
    if scan_in_stop {
        for piece in copier.list.pieces() {
            if begun.elapsed() > limit {
                complete = false;
                break;
            }
            let changed: Vec<usize> = copier.compare_piece_skipping_confirmed(piece)?;
            read_hot(copier, &changed, &ms, &stopped, tids, begun + limit)?;
        }
        complete &= copier.slots.iter().all(|s| s.confirmed || s.g.is_dead() || s.frames == Frames::Unwanted);
    }
    let finalizer_runs_user_code = view.finalizer_runs_user_code(copier.memory);
    let total = stopped.thaw();
    Ok(Stop { total, until_stopped, threads, taken_at, ms, finalizer_runs_user_code, complete })
}

/// Reads goroutines while all threads are stopped: what it reads is true at this instant.
fn read_hot(
    copier: &mut Copier<'_>,
    indices: &[usize],
    ms: &[M],
    stopped: &Stopped,
    tids: &Tids,
    deadline: Instant,
) -> Result<(), SnapshotError> {
    if indices.is_empty() {
        return Ok(());
    }
    // gs in batches, then the stacks of those that saved where they are, also in batches.
    let addrs = indices.iter().map(|&i| copier.list.addr(i)).collect();
    let mut list = GList::new(addrs, copier.view.g.size);
    let mut fresh: Vec<(usize, Goroutine)> = Vec::with_capacity(indices.len());
    let view = copier.view;
    list.read_all(copier.memory, |i, addr, bytes| {
        if let (Some(&index), Some(bytes)) = (indices.get(i), bytes) {
            fresh.push((index, Goroutine::parse(&view.g, addr, bytes)));
        }
    })?;
    let mut starts: Vec<(usize, Start)> = Vec::new();
    for (index, g) in fresh {
        let class = copier.class(&g);
        copier.slots[index].g = g;
        copier.slots[index].confirmed = true;
        match class {
            Class::Skipped => copier.slots[index].frames = Frames::Unwanted,
            Class::Parked | Class::Unsettled => starts.extend(copier.start(index, &g).map(|s| (index, s))),
            Class::Running => read_running(copier, index, &g, ms, stopped, tids),
        }
    }
    for batch in starts.chunks(BATCH) {
        if Instant::now() > deadline {
            // The rest is read again, and verified, after the stop.
            for &(index, _) in batch {
                copier.slots[index].confirmed = false;
                copier.slots[index].frames = Frames::Unavailable(NoStart::Moving);
            }
            continue;
        }
        copier.walk(batch)?;
    }
    Ok(())
}

/// Stacks between two looks at the clock.
const BATCH: usize = 256;

fn read_running(
    copier: &mut Copier<'_>,
    index: usize,
    g: &Goroutine,
    ms: &[M],
    stopped: &Stopped,
    tids: &Tids,
) {
    let memory = copier.memory;
    let frames = running_thread(g, ms)
        .and_then(|m| Some((m, stopped.registers(tids.host(m.procid)?).ok()?)))
        .ok_or(NoStart::NoThread)
        .and_then(|(m, registers)| running_start(copier.view, memory, &mut copier.walker, g, m, registers))
        .map(|start| copier.walker.walk_one(memory, start));
    let slot = &mut copier.slots[index];
    slot.frames = frames.map_or_else(Frames::Unavailable, Frames::Walked);
    slot.details = Details::read(copier.view, memory, g);
}

/// The m that runs `g`, if both say so.
pub(super) fn running_thread<'m>(g: &Goroutine, ms: &'m [M]) -> Option<&'m M> {
    ms.iter().find(|m| m.addr == g.m && m.curg == g.addr)
}

impl Copier<'_> {
    /// As `compare_piece`, with the target stopped: unchanged goroutines are confirmed thereby, and those that
    /// were read in this stop already are left alone.
    fn compare_piece_skipping_confirmed(
        &mut self,
        piece: std::ops::Range<usize>,
    ) -> Result<Vec<usize>, MemoryError> {
        let (view, slots) = (self.view, &mut self.slots);
        let mut changed = Vec::new();
        self.list.read_piece(self.memory, piece, |index, addr, bytes| {
            let (Some(slot), Some(bytes)) = (slots.get_mut(index), bytes) else { return };
            if slot.confirmed {
                return;
            }
            let now = Goroutine::parse(&view.g, addr, bytes);
            if now.epoch() == slot.g.epoch() {
                slot.confirmed = true;
                slot.g = now;
            } else {
                changed.push(index);
            }
        })?;
        Ok(changed)
    }
}

/// Verifies after the stop what was not verified in it: a goroutine whose epoch is the same as before the stop
/// was the same during it. What changed is read as it is now and stays unconfirmed.
fn verify_afterwards(copier: &mut Copier<'_>) -> Result<(), SnapshotError> {
    let mut unsettled: Vec<usize> = Vec::new();
    for piece in copier.list.pieces() {
        unsettled.extend(copier.compare_piece_skipping_confirmed(piece)?);
    }
    for (index, slot) in copier.slots.iter().enumerate() {
        if !slot.confirmed && matches!(slot.frames, Frames::Unavailable(_)) && !slot.g.is_dead() {
            unsettled.push(index);
        }
    }
    unsettled.sort_unstable();
    unsettled.dedup();
    super::unpaused::settle(copier, unsettled, SETTLE_ROUNDS, false)
}

/// Thread ids: in the target's pid namespace, as the runtime knows them, and in ours.
pub(super) struct Tids(Option<HashMap<u64, i32>>);

impl Tids {
    pub(super) fn of(copier: &Copier<'_>) -> Self {
        Tids(stop::namespaced_threads(copier.view.pid))
    }

    pub(super) fn host(&self, procid: u64) -> Option<i32> {
        match &self.0 {
            None => i32::try_from(procid).ok(),
            Some(map) => map.get(&procid).copied(),
        }
    }
}
