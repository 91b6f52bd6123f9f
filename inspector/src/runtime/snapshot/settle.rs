//! Reading goroutines of a running target until each was the same before and after.

use super::copier::{Class, Copier};
use super::{Frames, SnapshotError};
use crate::memory::MemoryError;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::running::NoStart;

/// Goroutines that are read together in a target that runs.
const CHUNK: usize = 32;
/// Readings of a goroutine of which no epoch tells, until two say the same.
const READINGS: usize = 5;

/// Reads goroutines until each was the same before and after; those that stay in motion are left unconfirmed, and
/// unless each counts `alone`, so are the others: they are not of the snapshot's instant.
pub(super) fn settle(
    copier: &mut Copier<'_>,
    mut open: Vec<usize>,
    rounds: usize,
    alone: bool,
) -> Result<(), SnapshotError> {
    for _ in 0..rounds {
        open.sort_unstable();
        open.dedup();
        if open.is_empty() {
            break;
        }
        let mut still = Vec::new();
        // Few at a time: the less lies between two looks at a goroutine, the likelier it is the same in both.
        for chunk in open.chunks(CHUNK) {
            settle_once(copier, chunk, alone, &mut still)?;
        }
        open = still;
    }
    // A walk of what changed under it is worth nothing.
    for index in open {
        let g = copier.slots[index].g;
        if copier.class(&g) != Class::Skipped {
            copier.set_unavailable(index, NoStart::Moving);
        }
    }
    Ok(())
}

/// Reads goroutines once; those that changed meanwhile go to `still`.
fn settle_once(
    copier: &mut Copier<'_>,
    indices: &[usize],
    alone: bool,
    still: &mut Vec<usize>,
) -> Result<(), MemoryError> {
    refresh(copier, indices)?;
    copier.read_stacks(indices)?;
    for &index in indices {
        let before = copier.slots[index].g;
        let Some(now) = copier.view.read_g(copier.memory, before.addr) else { continue };
        if now.epoch() != before.epoch() {
            still.push(index);
            continue;
        }
        let class = copier.class(&now);
        match class {
            // Of one piece; in a paused snapshot not of its instant, so not confirmed there.
            Class::Parked | Class::Skipped => copier.slots[index].g = now,
            Class::Unsettled => read_unproven(copier, index, &now)?,
            Class::Running => copier.set_unavailable(index, NoStart::NoThread),
        }
        copier.settled[index] = alone && matches!(class, Class::Parked | Class::Skipped);
    }
    Ok(())
}

/// Reads a goroutine of which no epoch tells whether it moved: as it seems, unconfirmed. Two readings that say
/// the same are not likely to be torn; where there are none, none is shown.
fn read_unproven(copier: &mut Copier<'_>, index: usize, g: &Goroutine) -> Result<(), MemoryError> {
    let mut before = Frames::Unwanted;
    for _ in 0..READINGS {
        let Some(g) = copier.view.read_g(copier.memory, g.addr) else { break };
        copier.put(index, g);
        if let Some(start) = copier.start(index, &g) {
            copier.walk(&[(index, start)])?;
        }
        let frames = copier.slots[index].frames.clone();
        if matches!(frames, Frames::Walked(_)) && frames == before {
            return Ok(());
        }
        before = frames;
    }
    copier.set_unavailable(index, NoStart::Moving);
    Ok(())
}

fn refresh(copier: &mut Copier<'_>, indices: &[usize]) -> Result<(), MemoryError> {
    for &index in indices {
        let addr = copier.list.addr(index);
        if let Some(g) = copier.view.read_g(copier.memory, addr) {
            copier.put(index, g);
        }
    }
    Ok(())
}
