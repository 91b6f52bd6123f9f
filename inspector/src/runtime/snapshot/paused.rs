//! A snapshot of one instant: all threads stopped, for as short as possible.
//!
//! Before the stop everything is read, and what changed is read again until little changes any more. In the stop
//! come the goroutines that can only be read then (running, in system calls …) and those that were seen to move. That
//! the others were in the stop as they had been read is shown in one of two ways:
//!
//! * their gs are looked at once more in the stop, which takes the longer the more there are;
//! * they are looked at after it: a goroutine that was read before the stop and is unchanged after it was the same in
//!   between. This is tried first where hardly anything moves, and has to do where the stop would take longer than is
//!   allowed. Where it leaves anything open and there is time for the first way, that follows in a second stop.
//!
//! Where there are so many threads that a stop of all would be longer than is allowed, by the [forecast](super::forecast) or as it
//! turns out, there is no snapshot of one instant.

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

/// So few changes between two readings that another reading would find as many again.
const FEW: usize = 16;
/// Goroutines that were seen to move and are read in the stop for it, where hardly anything else does.
const MANY_MOVERS: usize = 64;
const MAX_ROUNDS: usize = 8;
/// So often a denial is tried again for which no tracer is seen.
const DENIED_TRIES: u32 = 5;
/// A thread that another tracer or another gops-probe holds is waited for so long.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long threads wait stopped for others that have not, where the allowed pause is shorter.
const MIN_HOLD: Duration = Duration::from_millis(20);
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
    /// All gs were looked at in the stop.
    scanned: bool,
    /// What could only be read in the stop, but there was no time for it.
    unread: Vec<usize>,
    /// What had moved just before the stop, and was not read in it either.
    unproven: Vec<usize>,
}

/// What was prepared for the stop, so that as little as possible is done in it.
struct Plan {
    /// Indices of gs by their address.
    by_addr: AddressMap<usize>,
    /// What has to be read in the stop in any case.
    hot: Vec<usize>,
    /// What moved just before the stop, so that one more look does not show that it has not since.
    fresh: Vec<usize>,
    tids: Tids,
    limit: Duration,
    /// Where there are many threads.
    forecast: Option<Forecast>,
}

impl Plan {
    /// What is only true while nothing runs has to be read then, and `movers` too.
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

    /// Whether so little was read in the stop that most of what threads have is unknown.
    fn is_unmet(&self, stop: &Stop) -> bool {
        self.forecast.is_some() && stop.unread.len() > forecast::FEW
    }

    /// Looks at all gs a last time: as little as possible lies between this and the stop.
    fn refresh(&mut self, copier: &mut Copier<'_>) -> Result<(), SnapshotError> {
        let added = copier.add_new()?;
        self.by_addr.extend(added.clone().map(|i| (copier.list.addr(i), i)));
        let changed = copier.reread_changed(false)?;
        self.fresh = copier.loose_ones();
        // What is not hot any more does no harm among what is.
        self.hot.extend(copier.hot(changed.into_iter().chain(added)));
        Ok(())
    }
}

/// What came of it.
pub(super) enum Paused {
    Taken(Snapshot),
    /// Nothing, as there are too many threads; how long they were stopped for that.
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
        // Not in the time that it was to take, though each of them may well stop.
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
    // Scanning in the stop takes as long as it did just now, or half of that.
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

/// How the target moved while it was read.
struct PreCopy {
    /// How long the last look at all gs took.
    last_scan: Duration,
    /// How many had changed by then.
    last_changed: usize,
    /// All that changed since they were first read.
    movers: Vec<usize>,
}

impl PreCopy {
    fn is_quiet(&self) -> bool {
        self.last_changed <= FEW && self.movers.len() <= MANY_MOVERS
    }
}

/// Reads again what changed, until little does.
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
        // Less than 30 % fewer than last time: it is what changes all the time.
        let shrinks = (last_changed as f64) < 0.7 * before as f64;
        if last_changed <= FEW || !shrinks || rounds >= MAX_ROUNDS {
            movers.sort_unstable();
            movers.dedup();
            return Ok(PreCopy { last_scan, last_changed, movers });
        }
        before = last_changed;
    }
}

/// Stops the target, trying again where somebody else holds one of its threads.
pub(crate) fn stop_all(process: &Process, limit: Duration) -> Result<Stopped, StopError> {
    let pid = process.pid().as_raw();
    in_turn(pid, || Stopped::all_threads(pid, limit.max(MIN_HOLD)))
}

/// Tries again where somebody else holds one of the threads.
fn in_turn(pid: i32, stop_them: impl Fn() -> Result<Stopped, StopError>) -> Result<Stopped, StopError> {
    let begun = Instant::now();
    let mut denied = 0;
    loop {
        match stop_them() {
            // Whoever held it may have let go before we look; a denial without a tracer stays one.
            Err(StopError::Denied)
                if (stop::is_traced(pid) || denied < DENIED_TRIES) && begun.elapsed() < TURN_TIMEOUT =>
            {
                denied += 1;
                // Two that each hold some of the threads must not retry in step.
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

    // What threads run, what was not settled at the last look, and what is new.
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
    // What was looked at and was not found changed is what it was.
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

/// Takes a g that changed as it was read in the stop, to be walked after it; false where there is more of it to read.
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

/// All threads are stopped.
struct InStop<'s> {
    ms: &'s [M],
    /// Indices of ms by the goroutine that they run.
    by_goroutine: AddressMap<usize>,
    stopped: &'s Stopped,
    tids: &'s Tids,
    deadline: Instant,
    /// So many goroutines are read even after that.
    past_the_deadline: usize,
}

impl InStop<'_> {
    /// Reads goroutines: what it reads is true at this instant. Some of them are read even past the deadline where they can be
    /// read `only_now`; the rest remains unsettled.
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

    /// gs in one go, then the stacks of those that saved where they are, then those for which registers are needed.
    fn read_batch(&self, copier: &mut Copier<'_>, indices: &[usize]) -> Result<(), SnapshotError> {
        // We go on, and take as long as was allowed at most.
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

/// Goroutines between two looks at the clock.
const BATCH: usize = 32;
/// With few threads, so many that can only be read in the stop are read past its deadline. With many, what is not read is read by
/// other means.
const PAST: usize = 256;

/// Reads gs in one go, then the stacks of those that saved where they are. Returns those that threads run.
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

/// Settles after the stop what is in its epoch of before; returns the others, whose slots stay as they were.
fn verify_unchanged(copier: &mut Copier<'_>) -> Result<Vec<usize>, SnapshotError> {
    let mut moved: Vec<usize> = Vec::new();
    for piece in copier.list.pieces() {
        moved.extend(copier.settle_unchanged(piece)?);
    }
    Ok(moved)
}

/// Verifies after the stop what was not verified in it: a goroutine whose epoch is the same as before the stop
/// was the same during it. What changed is read as it is now and stays unconfirmed. Of what is `unproven`, the frames have
/// to be the same, too.
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
    // An epoch that does not tell proves nothing, not even by being the same.
    for &index in unread {
        copier.settled[index] = false;
        moved.push(index);
    }
    settle(copier, moved, SETTLE_ROUNDS, false)
}
