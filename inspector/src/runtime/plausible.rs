//! Plausibility conditions of each g and m. Memory is recognised as a g or an m by these alone.

use symbols::addr::RuntimeAddr;

use super::code::AddressMap;
use super::fields::{GFields, MFields};
use super::goroutine::{Goroutine, M, status};
use super::modules::Modules;
use crate::memory::Memory;

/// Returns true if `g` may be a goroutine: its stack, status, id, saved registers and start function fit
/// together.
pub fn plausible_g(g: &Goroutine, modules: &Modules) -> bool {
    if !g.has_plausible_stack() || g.goid == 0 || g.goid > 1 << 60 {
        return false;
    }
    let parked =
        matches!(g.status(), status::WAITING | status::RUNNABLE | status::PREEMPTED | status::LEAKED);
    let saved = !parked || (modules.lookup(g.sched_pc).is_some() && g.stack_contains(g.sched_sp));
    let known_status = g.status() <= status::DEADEXTRA;
    // The later fields have plausible values only if the layout is correct to its end.
    let starts_somewhere = [g.startpc, g.gopc].iter().all(|&pc| pc == 0 || modules.lookup(pc).is_some());
    let points = [g.m, g.lockedm, g.ancestors, g.bubble].iter().all(|&at| at == 0 || is_heap_pointer(at));
    saved && known_status && starts_somewhere && points && g.parent_goid <= 1 << 60
}

/// Returns the chain of ms from `head`, newest first. The chain ends at a null link, at a loop, at an
/// implausible m, or after `most` ms.
pub fn chain(memory: &dyn Memory, fields: &MFields, head: u64, most: usize) -> Vec<M> {
    let mut ms: Vec<M> = Vec::new();
    let mut seen: AddressMap<()> = AddressMap::default();
    let mut next = head;
    while next != 0 && ms.len() < most.min(MAX_THREADS) && seen.insert(next, ()).is_none() {
        let Ok(bytes) = memory.bytes(RuntimeAddr(next), fields.size) else { break };
        let m = M::parse(fields, next, &bytes);
        if !is_heap_pointer(m.g0) {
            break;
        }
        next = m.alllink;
        ms.push(m);
    }
    ms
}

/// Maximum number of threads. The runtime aborts at 10,000 threads unless configured otherwise.
pub const MAX_THREADS: usize = 20_000;

/// Returns true if an m is at `addr`, so that its scheduling goroutine points back to it.
pub fn is_m(memory: &dyn Memory, fields: &MFields, g: &GFields, addr: u64) -> bool {
    let Ok(bytes) = memory.bytes(RuntimeAddr(addr), fields.size) else { return false };
    let m = M::parse(fields, addr, &bytes);
    is_heap_pointer(m.g0) && memory.word(RuntimeAddr(m.g0).plus(g.m as u64)) == Ok(addr)
}

/// Returns true if `addr` may be the address of memory allocated by the runtime.
pub fn is_heap_pointer(addr: u64) -> bool {
    addr.is_multiple_of(8) && (1 << 16..1 << 56).contains(&addr)
}
