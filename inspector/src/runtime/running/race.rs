//! Goroutines in a call to the race detector (`runtime/race_*.s`, Go 1.18–1.27). The detector runs on the
//! system stack, and `racecall` saves nothing in the goroutine's g. Instead, it keeps the goroutine's stack
//! pointer in a register that C functions preserve. The value is still in that register, or in the frame of
//! the first C function that used the register.

use symbols::addr::RuntimeAddr;

use super::{caller_behind_call, follows_call};
use crate::memory::Memory;
use crate::runtime::code::Special;
use crate::runtime::goroutine::{Goroutine, M};
use crate::runtime::snapshot::stacks::StackWalker;
use crate::runtime::view::View;
use crate::stop::Registers;

/// Maximum size of the race detector's frames in bytes. Its frames are small, except in rare reports of
/// races.
const MAX_FRAMES_OF_IT: u64 = 64 << 10;

/// Returns a program counter in `racecall` and the goroutine's stack pointer there. Requires that the thread
/// is in a call to the race detector on the system stack, and that exactly one stack pointer is possible.
pub(super) fn in_detector(
    view: &View,
    memory: &dyn Memory,
    walker: &mut StackWalker<'_>,
    g: &Goroutine,
    m: &M,
    registers: Registers,
) -> Option<(u64, u64)> {
    if is_racecall(walker, registers.pc) {
        // The thread has just switched, or is about to switch back.
        return fits(memory, walker, g, registers.pc, registers.kept)
            .then_some((registers.pc, registers.kept));
    }
    let g0 = view.read_g(memory, m.g0)?;
    let slot = walker.machine().racecall_slot(g0.sched_sp)?;
    let pc = memory.word(RuntimeAddr(slot)).ok()?;
    if !is_racecall(walker, pc) || !follows_call(memory, walker, pc) {
        return None;
    }
    let below = slot.checked_sub(registers.sp).filter(|&len| len <= MAX_FRAMES_OF_IT)?;
    let frames = memory.bytes(RuntimeAddr(registers.sp), usize::try_from(below).ok()?).ok()?;
    let saved = frames.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let mut found = None;
    for candidate in saved.chain([registers.kept]) {
        if found != Some(candidate) && fits(memory, walker, g, pc, candidate) {
            if found.is_some() {
                // Several candidates fit; all but one are left from earlier calls.
                return None;
            }
            found = Some(candidate);
        }
    }
    found.map(|sp| (pc, sp))
}

fn is_racecall(walker: &mut StackWalker<'_>, pc: u64) -> bool {
    walker.code().get(pc).is_some_and(|info| info.special == Special::RaceCall)
}

/// Returns true if a call of `racecall` at `pc` is possible with this stack pointer.
fn fits(memory: &dyn Memory, walker: &mut StackWalker<'_>, g: &Goroutine, pc: u64, sp: u64) -> bool {
    g.stack_contains(sp) && sp.is_multiple_of(8) && caller_behind_call(memory, walker, pc, sp).is_some()
}
