//! Start points for unwinding a goroutine, in particular one that a thread is running.

mod race;

use symbols::addr::RuntimeAddr;

use super::code::Special;
use super::goroutine::{Goroutine, M, status};
use super::snapshot::stacks::StackWalker;
use super::unwind::Start;
use super::view::View;
use crate::memory::Memory;
use crate::stop::Registers;

/// Reason why a goroutine's frames have no start point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoStart {
    /// Neither registers nor saved values point into the goroutine's stack.
    #[error("its thread is at {pc:#x} on another stack and nothing is saved")]
    NothingSaved {
        /// Program counter of the thread.
        pc: u64,
    },
    /// The thread that runs the goroutine is unknown or could not be stopped.
    #[error("its thread could not be looked at")]
    NoThread,
    /// The saved stack pointer is outside of the goroutine's stack, which is being moved.
    #[error("its stack is being moved")]
    Moving,
}

/// Determines the start point of a goroutine that no thread runs (`unwinder.initAt` with its saved values).
pub fn saved_start(g: &Goroutine) -> Result<Start, NoStart> {
    let (pc, sp, syscall) =
        if g.syscallsp != 0 { (g.syscallpc, g.syscallsp, true) } else { (g.sched_pc, g.sched_sp, false) };
    if !g.has_plausible_stack() || !g.stack_contains(sp) {
        return Err(NoStart::Moving);
    }
    Ok(Start { pc, sp, hi: g.stack_hi, interrupted: false, syscall })
}

/// Maximum number of stack switches in a row (signal handler on g0 on …).
const MAX_SWITCHES: usize = 4;

/// Determines the start point of a goroutine that a stopped thread with `registers` runs.
pub fn running_start(
    view: &View,
    memory: &dyn Memory,
    walker: &mut StackWalker<'_>,
    g: &Goroutine,
    m: &M,
    registers: Registers,
) -> Result<Start, NoStart> {
    let begin = |pc, sp, interrupted, syscall| Start { pc, sp, hi: g.stack_hi, interrupted, syscall };
    if g.status() == status::SYSCALL {
        return saved_start(g);
    }
    if m.vdso_sp != 0 && g.stack_contains(m.vdso_sp) {
        return Ok(begin(m.vdso_pc, m.vdso_sp, false, false));
    }
    let (mut pc, mut sp) = (registers.pc, registers.sp);
    let mut kept = registers.kept;
    for _ in 0..MAX_SWITCHES {
        if g.stack_contains(sp) {
            return on_own_stack(memory, walker, g, pc, sp);
        }
        match interrupted_by_signal(view, memory, walker, m, sp) {
            Some(interrupted) => {
                (pc, sp) = interrupted;
                kept = 0;
            }
            None => break,
        }
    }
    // The thread is on a system stack. The code that switched to it saved the position of the goroutine. The
    // runtime zeroes the saved stack pointer when the goroutine continues.
    if g.syscallsp != 0 && g.stack_contains(g.syscallsp) {
        return saved_start(g);
    }
    let there = Registers { pc, sp, kept, ..registers };
    if let Some((pc, sp)) = race::in_detector(view, memory, walker, g, m, there) {
        return Ok(begin(pc, sp, false, true));
    }
    if g.sched_sp != 0 && g.stack_contains(g.sched_sp) {
        return Ok(begin(g.sched_pc, g.sched_sp, false, false));
    }
    Err(NoStart::NothingSaved { pc })
}

fn on_own_stack(
    memory: &dyn Memory,
    walker: &mut StackWalker<'_>,
    g: &Goroutine,
    pc: u64,
    sp: u64,
) -> Result<Start, NoStart> {
    let begin = |pc, sp, interrupted, syscall| Start { pc, sp, hi: g.stack_hi, interrupted, syscall };
    let Some(info) = walker.code().get(pc).cloned() else {
        // Foreign code on the goroutine's stack (race detector, vDSO): starts at its caller if a call
        // precedes the return address.
        if pc == 0 || g.syscallsp == 0 {
            let machine = walker.machine();
            let end = machine.frame_end(sp, 0).unwrap_or(sp);
            let ret = memory.word(RuntimeAddr(machine.return_slot(end))).ok();
            if let Some(ret) = ret.filter(|&ret| follows_call(memory, walker, ret)) {
                return Ok(begin(ret, end, false, false));
            }
        }
        return if g.syscallsp != 0 { saved_start(g) } else { Err(NoStart::NothingSaved { pc }) };
    };
    if info.special == Special::Gogo && g.sched_pc != 0 {
        // gogo has loaded the goroutine's stack pointer and is about to jump to its saved pc.
        return Ok(begin(g.sched_pc, sp, false, false));
    }
    let caller = caller_behind_call(memory, walker, pc, sp);
    if info.writes_sp && caller.is_some() {
        // The function switches stacks, but has not switched yet or has already switched back. Its frame
        // leads to its caller, as the call before the return address shows.
        return Ok(begin(pc, sp, true, true));
    }
    if let Some((ret, end)) = caller
        && walker.code().get(ret).is_some_and(|caller| caller.writes_sp)
        && caller_behind_call(memory, walker, ret, end).is_some()
    {
        // The same case while the function saves its position (`gosave_systemstack_switch`): starts at the
        // function that switches.
        return Ok(begin(ret, end, false, true));
    }
    Ok(begin(pc, sp, true, false))
}

/// Returns the return address of the frame at `pc` and `sp`, and the end of the frame. `None` unless a call
/// precedes the return address.
fn caller_behind_call(
    memory: &dyn Memory,
    walker: &mut StackWalker<'_>,
    pc: u64,
    sp: u64,
) -> Option<(u64, u64)> {
    let machine = walker.machine();
    let delta = walker.code().get(pc)?.sp_delta?;
    let end = machine.frame_end(sp, delta)?;
    let ret = memory.word(RuntimeAddr(machine.return_slot(end))).ok()?;
    follows_call(memory, walker, ret).then_some((ret, end))
}

/// Returns true if `ret` is in Go code directly after a call.
fn follows_call(memory: &dyn Memory, walker: &mut StackWalker<'_>, ret: u64) -> bool {
    let machine = walker.machine();
    if walker.code().get(ret).is_none() {
        return false;
    }
    let len = machine.longest_call();
    let Ok(code) = memory.bytes(RuntimeAddr(ret.wrapping_sub(len as u64)), len) else { return false };
    machine.call_before(&code, ret).is_some()
}

/// Returns the place where a signal interrupted the thread, if `sp` is on its signal stack. Searches for the
/// return address that the kernel was given, so frames of a foreign C handler do not matter.
fn interrupted_by_signal(
    view: &View,
    memory: &dyn Memory,
    walker: &StackWalker<'_>,
    m: &M,
    sp: u64,
) -> Option<(u64, u64)> {
    let machine = walker.machine();
    let gsignal = view.read_g(memory, m.gsignal)?;
    if !gsignal.stack_contains(sp) || !gsignal.has_plausible_stack() {
        return None;
    }
    let len = usize::try_from(gsignal.stack_hi - sp).ok().filter(|&l| l <= MAX_SIGNAL_STACK)?;
    let stack = memory.bytes(RuntimeAddr(sp), len).ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(stack.get(at..at + 8)?.try_into().ok()?));
    for at in (0..stack.len().saturating_sub(machine.context_size() + 8)).step_by(8) {
        let Some(candidate) = word(at) else { break };
        let is_way_back = view.sigreturn == Some(candidate)
            || (candidate != 0
                && view.is_foreign_code(candidate)
                && memory
                    .bytes(RuntimeAddr(candidate), machine.longest_sigreturn())
                    .is_ok_and(|code| machine.is_sigreturn(&code)));
        if is_way_back && let Some(found) = machine.interrupted(stack.get(at + 8..)?) {
            return Some(found);
        }
    }
    None
}

/// Maximum size of a signal stack in bytes. Go gives its threads 32 KB; C libraries may give more.
const MAX_SIGNAL_STACK: usize = 1 << 20;
