//! Snapshot of one instant: all threads are stopped, for as short as possible.
//!
//! Before the stop everything is read, and changed goroutines are read again until little changes. The stop
//! then covers goroutines that can be read only there (running, in system calls …) and those that were seen
//! to move. For all others, one of two ways proves that their state in the stop is the state read before:
//!
//! * Their gs are read once more in the stop. The duration grows with their number.
//! * Their gs are read again after the stop. A goroutine that was read before the stop and is unchanged after
//!   it was the same in between. This way is tried first if hardly anything moves, and is the only one if the
//!   stop would exceed the allowed pause. If it leaves a goroutine open and there is time, the first way
//!   follows in a second stop.
//!
//! If there are so many threads that a stop of all would exceed the allowed pause, by the
//! [forecast](super::forecast) or in practice, there is no snapshot of one instant.

use std::time::{Duration, Instant};

use super::close::{self, Reading};
use super::copier::{Class, Copier};
use super::forecast::{self, Forecast};
use super::glist::GList;
use super::scan::{ArmedScan, Changed, Scan};
use super::settle::settle;
use super::threads::{Tids, running_thread};
use super::{Consistency, Details, Frames, Snapshot, SnapshotError, TooMany, target_clock};
use crate::memory::{self, MemoryError, ReadCost};
use crate::process::Process;
use crate::runtime::code::AddressMap;
use crate::runtime::goroutine::{Goroutine, M};
use crate::runtime::running::{NoStart, running_start};
use crate::runtime::unwind::Start;
use crate::stop::{self, StopError, Stopped};

/// Maximum number of changes between two readings that ends the repetition. Another reading would find as
/// many again.
const FEW: usize = 16;
/// Maximum number of moving goroutines that are simply read in the stop, if hardly anything else moves.
const MANY_MOVERS: usize = 64;
const MAX_ROUNDS: usize = 8;
/// Retries after EPERM when no tracer is visible.
const DENIED_TRIES: u32 = 5;
/// Maximum time to wait for a thread that another tracer or another gops-probe holds.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);
/// Minimum time that already stopped threads are held while the rest stop. Applies if the allowed pause is
/// shorter.
const MIN_HOLD: Duration = Duration::from_millis(20);
/// Maximum number of readings after the stop for changed goroutines; then a goroutine counts as unreadable.
const SETTLE_ROUNDS: usize = 5;

/// Results of a stop.
struct Stop {
    total: Duration,
    until_stopped: Duration,
    threads: usize,
    taken_at: i64,
    ms: Vec<M>,
    finalizer_runs_user_code: bool,
    /// True if all gs were read in the stop.
    scanned: bool,
    /// Goroutines that could be read only in the stop, but time ran out.
    unread: Vec<usize>,
    /// Goroutines that had moved just before the stop and were not read in it.
    unproven: Vec<usize>,
}

/// Preparation of a stop, so that little work remains in the stop.
struct Plan {
    /// Indices of gs by their address.
    by_addr: AddressMap<usize>,
    /// Goroutines that must be read in the stop in any case.
    hot: Vec<usize>,
    /// Goroutines that moved just before the stop. One more look at their gs cannot prove that they have not
    /// moved since.
    fresh: Vec<usize>,
    tids: Tids,
    limit: Duration,
    /// Forecast of the stop, present if there are many threads.
    forecast: Option<Forecast>,
}

impl Plan {
    /// Creates the plan. Goroutines that are valid only while nothing runs must be read in the stop, and
    /// `movers` too.
    fn new(copier: &mut Copier<'_>, limit: Duration, forecast: Option<Forecast>, movers: &[usize]) -> Self {
        let mut hot = copier.hot(0..copier.slots.len());
        hot.extend_from_slice(movers);
        Plan {
            by_addr: copier.slots.iter().enumerate().map(|(i, s)| (s.g.addr, i)).collect(),
            hot,
            fresh: copier.loose_ones(),
            tids: Tids::of(copier),
            limit,
            forecast,
        }
    }

    /// Returns true if the stop was so incomplete that most of the goroutines on threads are unknown.
    fn is_unmet(&self, stop: &Stop) -> bool {
        self.forecast.is_some() && stop.unread.len() > forecast::FEW
    }

    /// Reads all gs a last time, as shortly as possible before the stop.
    fn refresh(&mut self, copier: &mut Copier<'_>) -> Result<(), SnapshotError> {
        let added = copier.add_new()?;
        self.by_addr.extend(added.clone().map(|i| (copier.list.addr(i), i)));
        let changed = copier.reread_changed(false)?;
        self.fresh = copier.loose_ones();
        // Goroutines that are no longer hot do no harm in the list of hot ones.
        self.hot.extend(copier.hot(changed.into_iter().chain(added)));
        Ok(())
    }
}

/// Result of a paused snapshot.
pub(super) enum Paused {
    Taken(Snapshot),
    /// No snapshot because of too many threads, and the duration of the stops for the attempt.
    TooMany(TooMany, Duration),
}

pub(super) fn take(mut copier: Copier<'_>, limit: Duration) -> Result<Paused, SnapshotError> {
    copier.read_all()?;
    let hot = copier.hot(0..copier.slots.len());
    let forecast = forecast::of(&mut copier, &hot)?;
    if let Some(forecast) = forecast.filter(|forecast| forecast.total > limit) {
        return Ok(Paused::TooMany(forecast.too_many(), Duration::ZERO));
    }
    match take_at_once(copier, limit, forecast) {
        // All threads together did not stop in time, although each of them may stop by itself.
        Err(SnapshotError::Stop(StopError::Timeout(_))) if let Some(forecast) = forecast => {
            Ok(Paused::TooMany(forecast.too_many(), limit))
        }
        result => result,
    }
}

fn take_at_once(
    mut copier: Copier<'_>,
    limit: Duration,
    forecast: Option<Forecast>,
) -> Result<Paused, SnapshotError> {
    let mut before = pre_copy(&mut copier)?;
    // A scan in the stop takes as long as the last one, or half of it.
    let may_scan = before.last_scan < limit;
    let mut stopped_before = Duration::ZERO;
    if may_scan && before.is_quiet() {
        let plan = Plan::new(&mut copier, limit, forecast, &before.movers);
        let stop = stop_and_read(&mut copier, &plan, None)?;
        if let Some(forecast) = forecast.filter(|_| plan.is_unmet(&stop)) {
            return Ok(Paused::TooMany(forecast.too_many(), stop.total));
        }
        if stop.unread.is_empty()
            && stop.unproven.is_empty()
            && verify_unchanged(&mut copier)?.is_empty()
            && copier.is_complete()
        {
            return Ok(Paused::Taken(finish(copier, stop, Consistency::Instant, Duration::ZERO)));
        }
        stopped_before = stop.total;
        copier.settled.fill(false);
        before = pre_copy(&mut copier)?;
    }
    let mut plan = Plan::new(&mut copier, limit, forecast, &[]);
    let scan = (before.last_scan < limit).then(|| Scan::prepare(&copier));
    plan.refresh(&mut copier)?;
    let scan = scan.map(|scan| scan.arm(&copier));
    let stop = stop_and_read(&mut copier, &plan, scan)?;
    if let Some(forecast) = forecast.filter(|_| plan.is_unmet(&stop)) {
        return Ok(Paused::TooMany(forecast.too_many(), stopped_before + stop.total));
    }
    let mut consistency = Consistency::Instant;
    if !(stop.scanned && copier.is_complete()) {
        consistency = Consistency::InstantVerifiedAfterwards;
        verify_afterwards(&mut copier, &stop.unread, &stop.unproven)?;
    }
    Ok(Paused::Taken(finish(copier, stop, consistency, stopped_before)))
}

fn finish(
    mut copier: Copier<'_>,
    stop: Stop,
    consistency: Consistency,
    stopped_before: Duration,
) -> Snapshot {
    for (slot, &settled) in copier.slots.iter_mut().zip(&copier.settled) {
        slot.confirmed = settled;
    }
    Snapshot {
        slots: copier.slots,
        shapes: copier.walker.shapes,
        ms: stop.ms,
        consistency,
        taken_at: stop.taken_at,
        finalizer_runs_user_code: stop.finalizer_runs_user_code,
        stopped: stopped_before + stop.total,
        until_stopped: stop.until_stopped,
        threads_stopped: stop.threads,
        too_many: None,
        cost: ReadCost::default(),
    }
}

/// Changes of the target during the reading.
struct PreCopy {
    /// Duration of the last reading of all gs.
    last_scan: Duration,
    /// Number of gs changed in the last reading.
    last_changed: usize,
    /// Goroutines that changed since they were first read.
    movers: Vec<usize>,
}

impl PreCopy {
    fn is_quiet(&self) -> bool {
        self.last_changed <= FEW && self.movers.len() <= MANY_MOVERS
    }
}

/// Reads changed goroutines again until little changes.
fn pre_copy(copier: &mut Copier<'_>) -> Result<PreCopy, SnapshotError> {
    let mut movers = Vec::new();
    let mut before = usize::MAX;
    let mut rounds = 0;
    loop {
        copier.add_new()?;
        let begun = Instant::now();
        let changed = copier.reread_changed(true)?;
        let last_scan = begun.elapsed();
        let last_changed = changed.len();
        movers.extend(changed);
        rounds += 1;
        // A decrease of less than 30 % means that these goroutines change all the time.
        let shrinks = (last_changed as f64) < 0.7 * before as f64;
        if last_changed <= FEW || !shrinks || rounds >= MAX_ROUNDS {
            movers.sort_unstable();
            movers.dedup();
            return Ok(PreCopy { last_scan, last_changed, movers });
        }
        before = last_changed;
    }
}

/// Stops the target. Retries while another tracer holds one of its threads.
pub(crate) fn stop_all(process: &Process, limit: Duration) -> Result<Stopped, StopError> {
    let pid = process.pid().as_raw();
    in_turn(pid, || Stopped::all_threads(pid, limit.max(MIN_HOLD)))
}

/// Retries while another tracer holds one of the threads.
fn in_turn(pid: i32, stop_them: impl Fn() -> Result<Stopped, StopError>) -> Result<Stopped, StopError> {
    let begun = Instant::now();
    let mut denied = 0;
    loop {
        match stop_them() {
            // The other tracer may have released the thread before the check. A denial without a tracer is
            // permanent.
            Err(StopError::Denied)
                if (stop::is_traced(pid) || denied < DENIED_TRIES) && begun.elapsed() < TURN_TIMEOUT =>
            {
                denied += 1;
                // Two tracers that each hold some of the threads must not retry in step.
                let jitter = u64::from(std::process::id() % 7);
                std::thread::sleep(Duration::from_millis(1 + jitter));
            }
            result => return result,
        }
    }
}

fn stop_and_read(
    copier: &mut Copier<'_>,
    plan: &Plan,
    scan: Option<ArmedScan>,
) -> Result<Stop, SnapshotError> {
    let view = copier.view;
    let stopped = match plan.forecast {
        None => stop_all(copier.process, plan.limit)?,
        Some(_) => {
            let pid = copier.process.pid().as_raw();
            in_turn(pid, || Stopped::all_threads_within(pid, plan.limit))?
        }
    };
    stopped.allow(plan.limit)?;
    let release = plan.forecast.map_or(Duration::ZERO, |forecast| forecast.release);
    let begun = stopped.begun();
    let in_stop = memory::InStop::begin(copier.memory);
    let until_stopped = begun.elapsed();
    let deadline = begun + plan.limit.saturating_sub(release);
    let scan = scan.map(|scan| scan.start(deadline));
    let taken_at = target_clock(view);
    let threads = stopped.tids().count();
    let ms = view.read_ms(copier.memory);
    let past_the_deadline = if plan.forecast.is_none() { PAST } else { BATCH };
    let by_goroutine = ms.iter().enumerate().filter(|(_, m)| m.curg != 0).map(|(i, m)| (m.curg, i)).collect();
    let mut stop =
        InStop { ms: &ms, by_goroutine, stopped: &stopped, tids: &plan.tids, deadline, past_the_deadline };

    // Hot goroutines: on threads, unsettled at the last reading, and new ones.
    let old = copier.list.len();
    let new = view.allgs.read(copier.memory, old)?;
    let index_of =
        |g: u64| plan.by_addr.get(&g).copied().or_else(|| new.iter().position(|&n| n == g).map(|i| old + i));
    let mut hot: Vec<usize> = ms.iter().filter(|m| m.curg != 0).filter_map(|m| index_of(m.curg)).collect();
    hot.extend_from_slice(&plan.hot);
    copier.append(&new);
    hot.extend(old..old + new.len());
    hot.sort_unstable();
    hot.dedup();
    stop.read(copier, &hot, true)?;

    let (mut seen, mut copied) = (Vec::new(), Vec::new());
    if let Some(scan) = scan {
        let found = scan.finish(copier.memory)?;
        let mut to_read = Vec::new();
        for mut part in found {
            seen.append(&mut part.pieces);
            part.changed.retain(|changed| {
                let (open, taken) = (!copier.settled[changed.index], take_copied(copier, changed));
                if open && !taken {
                    to_read.push(changed.index);
                }
                open && taken
            });
            copied.push(part);
        }
        stop.read(copier, &to_read, false)?;
        hot.extend(to_read);
    }
    let mut unproven = plan.fresh.clone();
    unproven.retain(|&index| !copier.settled[index]);
    stop.read(copier, &unproven, false)?;
    unproven.retain(|&index| !copier.settled[index]);
    let finalizer_runs_user_code = view.finalizer_runs_user_code(copier.memory);
    drop(in_stop);
    let total = stopped.thaw();
    for part in &copied {
        for changed in &part.changed {
            if let Some((start, bytes)) = &changed.stack {
                copier.walk_copied(changed.index, *start, part.stacks.get(bytes.clone()).unwrap_or_default());
            }
        }
    }
    hot.retain(|&index| !copier.settled[index]);
    let unread = hot;
    // A goroutine that was scanned and not found changed is in its earlier state.
    let pieces = copier.list.pieces();
    let scanned = seen.len() == pieces.len();
    for index in seen.into_iter().filter_map(|i| pieces.get(i)).flat_map(|p| copier.list.indices(p.clone())) {
        copier.settled[index] = true;
    }
    for &index in unread.iter().chain(&unproven) {
        copier.settled[index] = false;
    }
    copier.list.arrange();
    Ok(Stop {
        total,
        until_stopped,
        threads,
        taken_at,
        ms,
        finalizer_runs_user_code,
        scanned,
        unread,
        unproven,
    })
}

/// Stores a changed g and its stack copied in the stop; the stack is unwound after the stop. Returns false
/// if more must be read.
fn take_copied(copier: &mut Copier<'_>, changed: &Changed) -> bool {
    let index = changed.index;
    let Some(g) = changed.g.filter(|_| !copier.settled[index]) else { return false };
    let complete = match copier.class(&g) {
        Class::Skipped => true,
        Class::Parked | Class::Unsettled => changed.stack.is_some() && !Details::has_any(&g),
        Class::Running => false,
    };
    if complete {
        copier.put(index, g);
        copier.settled[index] = true;
    }
    complete
}

/// State while all threads are stopped.
struct InStop<'s> {
    ms: &'s [M],
    /// Indices of ms by the goroutine that they run.
    by_goroutine: AddressMap<usize>,
    stopped: &'s Stopped,
    tids: &'s Tids,
    deadline: Instant,
    /// Number of goroutines that are read even after the deadline.
    past_the_deadline: usize,
}

impl InStop<'_> {
    /// Reads goroutines; the results are true at this instant. After the deadline, only a limited number is
    /// read, and only if they can be read `only_now`. The rest remains unsettled.
    fn read(
        &mut self,
        copier: &mut Copier<'_>,
        indices: &[usize],
        only_now: bool,
    ) -> Result<(), SnapshotError> {
        let past = if only_now { self.past_the_deadline } else { 0 };
        for (i, batch) in indices.chunks(BATCH).enumerate() {
            if i * BATCH >= past && Instant::now() > self.deadline {
                break;
            }
            self.read_batch(copier, batch)?;
        }
        Ok(())
    }

    /// Reads a batch: all gs in one call, then the stacks of those with saved registers, then those that
    /// need thread registers.
    fn read_batch(&self, copier: &mut Copier<'_>, indices: &[usize]) -> Result<(), SnapshotError> {
        // The stop continues, for the maximum allowed duration.
        self.stopped.allow(Duration::ZERO)?;
        for (index, g) in read_gs(copier, indices)? {
            self.read_running(copier, index, &g);
        }
        Ok(())
    }

    fn read_running(&self, copier: &mut Copier<'_>, index: usize, g: &Goroutine) {
        let memory = copier.memory;
        let m = self.by_goroutine.get(&g.addr).and_then(|&i| self.ms.get(i));
        let frames = running_thread(g, m.map(std::slice::from_ref).unwrap_or_default())
            .and_then(|m| Some((m, self.stopped.registers(self.tids.host(m.procid)?).ok()?)))
            .ok_or(NoStart::NoThread)
            .and_then(|(m, registers)| {
                running_start(copier.view, memory, &mut copier.walker, g, m, registers)
            })
            .map(|start| copier.walker.walk_one(memory, start));
        let slot = &mut copier.slots[index];
        slot.frames = frames.map_or_else(Frames::Unavailable, Frames::Walked);
        slot.details = Details::read(copier.view, memory, g);
    }
}

/// Number of goroutines between two checks of the clock.
const BATCH: usize = 32;
/// Number of goroutines, readable only in the stop, that are read past its deadline if there are few
/// threads. With many threads, unread goroutines are read by other means.
const PAST: usize = 256;

/// Reads gs in one call, then the stacks of those with saved registers. Returns the goroutines that threads
/// run.
pub(super) fn read_gs(
    copier: &mut Copier<'_>,
    indices: &[usize],
) -> Result<Vec<(usize, Goroutine)>, MemoryError> {
    let view = copier.view;
    let addrs = indices.iter().map(|&i| copier.list.addr(i)).collect();
    let mut fresh: Vec<(usize, Goroutine)> = Vec::with_capacity(indices.len());
    GList::new(addrs, view.g.size).read_all(copier.memory, &mut copier.buffer, |i, addr, bytes| {
        if let (Some(&index), Some(bytes)) = (indices.get(i), bytes) {
            fresh.push((index, Goroutine::parse(&view.g, addr, bytes)));
        }
    })?;
    let mut starts: Vec<(usize, Start)> = Vec::with_capacity(indices.len());
    fresh.retain(|(index, g)| {
        copier.put(*index, *g);
        copier.settled[*index] = true;
        match copier.class(g) {
            Class::Skipped => false,
            Class::Parked | Class::Unsettled => {
                starts.extend(copier.start(*index, g).map(|s| (*index, s)));
                false
            }
            Class::Running => true,
        }
    });
    copier.walk(&starts)?;
    Ok(fresh)
}

/// Settles, after the stop, goroutines that are still in their epoch from before it. Returns the others,
/// with unchanged slots.
fn verify_unchanged(copier: &mut Copier<'_>) -> Result<Vec<usize>, SnapshotError> {
    let mut moved: Vec<usize> = Vec::new();
    for piece in copier.list.pieces() {
        moved.extend(copier.settle_unchanged(piece)?);
    }
    Ok(moved)
}

/// Verifies, after the stop, goroutines that were not verified in it: if the epoch is the same as before the
/// stop, the goroutine was the same during it. Changed goroutines are read in their present state and remain
/// unconfirmed. For `unproven` ones the frames must be the same, too.
fn verify_afterwards(
    copier: &mut Copier<'_>,
    unread: &[usize],
    unproven: &[usize],
) -> Result<(), SnapshotError> {
    let mut moved = verify_unchanged(copier)?;
    for &index in unproven {
        if !copier.settled[index] {
            continue;
        }
        let of = |copier: &Copier<'_>| (copier.epochs[index], copier.slots[index].frames.clone());
        let before = of(copier);
        if close::read(copier, index)? != Reading::OfOnePiece || of(copier) != before {
            copier.settled[index] = false;
            moved.push(index);
        }
    }
    // An unreliable epoch proves nothing, even if it is the same.
    for &index in unread {
        copier.settled[index] = false;
        moved.push(index);
    }
    settle(copier, moved, SETTLE_ROUNDS, false)
}
