//! Host-specific code for amd64: registers of held threads, registers of samples, and the
//! processor's counter.

use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::arch::{Machine, Registers};

/// Rules of this machine.
pub(crate) static MACHINE: &dyn Machine = &super::Amd64;

/// Reads the registers of a thread that we hold stopped.
pub(crate) fn registers(tid: Pid) -> nix::Result<Registers> {
    let regs = ptrace::getregs(tid)?;
    Ok(Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp, kept: regs.r12, tls: regs.fs_base })
}

/// Registers requested with each perf event sample, as bits of `enum perf_event_x86_regs`: frame
/// pointer, stack pointer and instruction pointer.
pub(crate) const PERF_REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;

/// Returns frame pointer, stack pointer and instruction pointer from the registers of a sample,
/// which come in this order.
pub(crate) fn perf_registers([fp, sp, ip]: [u64; PERF_REGISTERS.count_ones() as usize]) -> [u64; 3] {
    [fp, sp, ip]
}

/// Reads the processor's counter, by which Go measures contention. Machines without one count
/// `_monotonic`.
pub(crate) fn ticks(_monotonic: i64) -> i64 {
    // SAFETY: the instruction reads a register and touches no memory; every amd64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }.cast_signed()
}
