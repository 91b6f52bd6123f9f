//! Settling: reads goroutines of a running target until each was the same before and after.

use super::close::{self, Reading};
use super::copier::{Class, Copier};
use super::{Frames, SnapshotError};
use crate::memory::MemoryError;
use crate::runtime::running::NoStart;
use crate::runtime::unwind::End;

/// Maximum number of readings of a goroutine with an unreliable epoch, until two are equal.
const READINGS: usize = 5;

/// Reads goroutines until each was the same before and after. Those that keep moving remain unconfirmed. The
/// others are confirmed only if each counts `alone`; otherwise they are not of the snapshot's instant.
pub(super) fn settle(
    copier: &mut Copier<'_>,
    mut open: Vec<usize>,
    rounds: usize,
    alone: bool,
) -> Result<(), SnapshotError> {
    for round in 1..=rounds {
        open.sort_unstable();
        open.dedup();
        if open.is_empty() {
            break;
        }
        let mut still = Vec::new();
        for &index in &open {
            let reading = close::read(copier, index)?;
            let is_true = match reading {
                Reading::OfOnePiece | Reading::Other(Class::Skipped) => true,
                Reading::Other(Class::Running) => {
                    copier.set_unavailable(index, NoStart::NoThread);
                    false
                }
                Reading::Other(Class::Unsettled) => {
                    // For most goroutines this state lasts only an instant.
                    if copier.slots[index].g.is_parked_on_thread() && round < rounds {
                        still.push(index);
                        continue;
                    }
                    read_unproven(copier, index)?;
                    false
                }
                Reading::Other(Class::Parked) | Reading::Moving => {
                    still.push(index);
                    false
                }
            };
            // Consistent by itself; in a paused snapshot not of its instant, and therefore not confirmed
            // there.
            copier.settled[index] = alone && is_true;
        }
        open = still;
    }
    // Unwinding a stack that changed meanwhile gives worthless frames.
    for index in open {
        let g = copier.slots[index].g;
        if copier.class(&g) != Class::Skipped {
            copier.set_unavailable(index, NoStart::Moving);
        }
    }
    Ok(())
}

/// Reads a goroutine with an unreliable epoch, as it appears, unconfirmed. Two equal readings are unlikely
/// to be torn; without two equal ones no frames are shown. An unwinding that leaves Go code or the stack has
/// met words that are in use for something else, even if two readings are equal.
fn read_unproven(copier: &mut Copier<'_>, index: usize) -> Result<(), MemoryError> {
    let mut before = None;
    for _ in 0..READINGS {
        let Some(g) = copier.view.read_g(copier.memory, copier.list.addr(index)) else { break };
        copier.put(index, g);
        if let Some(start) = copier.start(index, &g) {
            copier.walk(&[(index, start)])?;
        }
        let frames = copier.slots[index].frames.clone();
        let is_whole = match &frames {
            Frames::Walked(stack) => !matches!(
                stack.end,
                End::UnexpectedReturn { .. } | End::OutOfStack(_) | End::UnknownPc(_) | End::TooManyFrames
            ),
            Frames::Unwanted | Frames::Unavailable(_) => false,
        };
        let read = is_whole.then_some((g.epoch(), frames));
        if read.is_some() && read == before {
            return Ok(());
        }
        before = read;
    }
    copier.set_unavailable(index, NoStart::Moving);
    Ok(())
}
