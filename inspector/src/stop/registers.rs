//! The registers of a stopped thread: the part of stopping that depends on the machine we run on.

use nix::sys::ptrace;
use nix::unistd::Pid;

/// What unwinding begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// The instruction that runs next.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// The register in which the race detector's switch of stacks keeps the goroutine's stack pointer.
    pub kept: u64,
    /// Base of thread-local storage.
    pub tls: u64,
}

/// Reads them from a thread that we hold stopped.
#[cfg(target_arch = "x86_64")]
pub(super) fn read(tid: Pid) -> nix::Result<Registers> {
    let regs = ptrace::getregs(tid)?;
    Ok(Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp, kept: regs.r12, tls: regs.fs_base })
}
