//! Snapshot without a pause: each goroutine is read and verified by itself while the target runs. Threads
//! that run goroutines, or are in system calls for them, are stopped one at a time, for their registers.

use std::time::Duration;

use super::copier::{Class, Copier};
use super::settle::settle;
use super::threads::{Tids, running_thread};
use super::{Consistency, Details, Frames, Snapshot, SnapshotError, WORTH_A_SECOND, target_clock};
use crate::memory::{InStop, MemoryError, ReadCost};
use crate::runtime::goroutine::{Goroutine, status};
use crate::runtime::running::{NoStart, running_start};
use crate::stop::{StopError, Stopped};

/// Number of further readings of all gs. With many goroutines, a stack is read some time after its g. A
/// goroutine that stopped 256 times in between is found by a further reading, unless it does so each time.
const FURTHER_LOOKS: usize = 2;
/// Maximum number of readings of a goroutine that keeps changing. After that the last reading is printed,
/// marked.
const ROUNDS: usize = 4;
/// Maximum number of attempts for a goroutine that keeps switching between being on a thread and off it.
const ATTEMPTS: usize = 16;
/// Timeout for stopping a thread, which is then released.
const STOP_TIMEOUT: Duration = Duration::from_millis(20);

/// Maximum total time to wait for threads held by other tracers. Another gops-probe holds a thread for less
/// than a millisecond, a debugger permanently.
const TURN_TIMEOUT: Duration = Duration::from_millis(500);

/// Statistics of the stops of single threads.
#[derive(Debug, Default)]
struct Stops {
    longest: Duration,
    count: usize,
    /// Total time of waiting for threads held by other tracers.
    waited: Duration,
}

impl Stops {
    /// Waits a little for a thread held by another tracer. Returns false if the total waiting time is
    /// exhausted.
    fn wait_for_turn(&mut self) -> bool {
        if self.waited >= TURN_TIMEOUT {
            return false;
        }
        // Two tracers that wait for each other must not retry in step.
        let time = Duration::from_micros(200 + 100 * u64::from(std::process::id() % 7));
        std::thread::sleep(time);
        self.waited += time;
        true
    }
}

pub(super) fn take(mut copier: Copier<'_>) -> Result<Snapshot, SnapshotError> {
    let taken_at = target_clock(copier.view);
    let mut open = Vec::new();
    let closely = copier.list.len() < WORTH_A_SECOND;
    for piece in copier.list.pieces() {
        if closely {
            open.extend(read_piece_closely(&mut copier, piece)?);
        } else {
            let seen = copier.read_piece(piece.clone())?;
            copier.read_stacks(&seen)?;
            open.extend(verify_piece(&mut copier, piece)?);
        }
    }
    if !closely {
        for _ in 0..FURTHER_LOOKS {
            open.extend(look_again(&mut copier)?);
        }
    }
    settle(&mut copier, open, ROUNDS, true)?;
    let mut stops = Stops::default();
    read_on_threads(&mut copier, &mut stops);
    for (slot, &settled) in copier.slots.iter_mut().zip(&copier.settled) {
        slot.confirmed = settled;
    }
    let finalizer_runs_user_code = copier.view.finalizer_runs_user_code(copier.memory);
    Ok(Snapshot {
        ms: copier.view.read_ms(copier.memory),
        slots: copier.slots,
        shapes: copier.walker.shapes,
        consistency: Consistency::EachByItself,
        taken_at,
        finalizer_runs_user_code,
        stopped: stops.longest,
        until_stopped: Duration::ZERO,
        threads_stopped: stops.count,
        too_many: None,
        cost: ReadCost::default(),
    })
}

/// Reads the goroutines of a piece, and returns those that the reading does not prove.
fn read_piece_closely(
    copier: &mut Copier<'_>,
    piece: std::ops::Range<usize>,
) -> Result<Vec<usize>, MemoryError> {
    let seen = copier.read_new_piece(piece)?;
    Ok(settle_proven(copier, seen))
}

/// Settles the goroutines that the reading proves, and returns the others.
fn settle_proven(copier: &mut Copier<'_>, mut indices: Vec<usize>) -> Vec<usize> {
    indices.retain(|&index| {
        let g = copier.slots[index].g;
        let proven = matches!(copier.class(&g), Class::Parked | Class::Skipped) && !copier.loose[index];
        copier.settled[index] |= proven;
        !proven
    });
    indices
}

/// Reads all gs again, and returns those that moved since. They may have moved unnoticed earlier, too.
fn look_again(copier: &mut Copier<'_>) -> Result<Vec<usize>, MemoryError> {
    let mut moved = Vec::new();
    for piece in copier.list.pieces() {
        moved.extend(copier.compare_piece(piece)?);
    }
    for &index in &moved {
        copier.settled[index] = false;
    }
    Ok(moved)
}

/// Reads the gs of a piece again right after their stacks, and returns those that are not proven.
fn verify_piece(copier: &mut Copier<'_>, piece: std::ops::Range<usize>) -> Result<Vec<usize>, MemoryError> {
    let moved = copier.compare_piece(piece.clone())?;
    copier.mark_loose(&moved, true);
    let all = copier.list.indices(piece);
    Ok(settle_proven(copier, all))
}

/// Returns true if a thread has the goroutine: runs it, waits in the kernel for it, parks it, is about to
/// run it, or grows its stack. `runtime.newstack` moves the stack of the running goroutine; a goroutine with
/// a shrinking stack is parked.
fn is_on_thread(g: &Goroutine) -> bool {
    g.m != 0 || matches!(g.status(), status::RUNNING | status::SYSCALL | status::COPYSTACK)
}

/// Reads the goroutines that threads run or wait for in the kernel, each while its thread is stopped.
fn read_on_threads(copier: &mut Copier<'_>, stops: &mut Stops) {
    let tids = Tids::of(copier);
    let on_threads: Vec<usize> = (0..copier.slots.len())
        .filter(|&i| {
            let g = copier.slots[i].g;
            is_on_thread(&g) && copier.class(&g) != Class::Skipped
        })
        .collect();
    for index in on_threads {
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            attempts += 1;
            let addr = copier.list.addr(index);
            let Some(g) = copier.view.read_g(copier.memory, addr) else { break };
            copier.put(index, g);
            if is_on_thread(&g) && g.m != 0 {
                match read_with_thread_stopped(copier, index, &tids, stops) {
                    Caught::Done => break,
                    Caught::Moved => {}
                    Caught::Held if stops.wait_for_turn() => attempts -= 1,
                    Caught::Held => {}
                }
            } else {
                // The goroutine has left its thread: it is an ordinary goroutine now, or soon on another
                // thread.
                let _unreadable = settle(copier, vec![index], 1, true);
                if copier.settled[index] {
                    break;
                }
            }
        }
        if copier.slots[index].frames == Frames::Unwanted && !copier.settled[index] {
            let _unreadable = settle(copier, vec![index], ROUNDS, true);
        }
    }
}

/// Result of stopping a thread for its goroutine.
enum Caught {
    /// The goroutine was read, or its thread does not stop. Another try for such a thread would take the
    /// full timeout again.
    Done,
    /// The goroutine was no longer on that thread.
    Moved,
    /// Another tracer holds the thread, as another gops-probe does for an instant.
    Held,
}

/// Stops the thread of the goroutine in a slot and reads the goroutine.
fn read_with_thread_stopped(copier: &mut Copier<'_>, index: usize, tids: &Tids, stops: &mut Stops) -> Caught {
    let (view, memory) = (copier.view, copier.memory);
    let m = copier.slots[index].g.m;
    let Some(tid) = view.read_m(memory, m).and_then(|m| tids.host(m.procid)).filter(|&t| t != 0) else {
        return Caught::Moved;
    };
    let stopped = match Stopped::one_thread(copier.process.pid().as_raw(), tid, STOP_TIMEOUT) {
        Ok(stopped) => stopped,
        Err(StopError::Timeout(_)) => return Caught::Done,
        Err(StopError::Denied) => return Caught::Held,
        Err(_) => return Caught::Moved,
    };
    stops.count += 1;
    let in_stop = InStop::begin(memory);
    let caught = (|| {
        let (g, m) = (view.read_g(memory, copier.list.addr(index))?, view.read_m(memory, m)?);
        running_thread(&g, &[m])?;
        if !is_on_thread(&g) {
            return None;
        }
        let registers = stopped.registers(tid).ok()?;
        let frames = running_start(view, memory, &mut copier.walker, &g, &m, registers)
            .map(|start| copier.walker.walk_one(memory, start));
        if frames == Err(NoStart::Moving) {
            // The goroutine is between its old and its new stack for an instant.
            return None;
        }
        let details = Details::read(view, memory, &g);
        // Another thread may have taken the goroutine out of its system call meanwhile.
        let after = view.read_g(memory, g.addr)?;
        (after.epoch() == g.epoch()).then_some((g, frames, details))
    })();
    drop(in_stop);
    stops.longest = stops.longest.max(stopped.resume());
    let Some((g, frames, details)) = caught else { return Caught::Moved };
    let slot = &mut copier.slots[index];
    slot.g = g;
    slot.frames = frames.map_or_else(Frames::Unavailable, Frames::Walked);
    slot.details = details;
    copier.settled[index] = true;
    Caught::Done
}
