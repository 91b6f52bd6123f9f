//! Architecture-dependent code: callers of frames, call instructions, registers in signal frames,
//! address ranges. Image formats have a module of their own, `symbols::arch`.
//!
//! Code that depends on the image is a [`Machine`], chosen by [`machine`]. Code that depends on the
//! machine on which this program runs is [`host`], chosen at compile time. Each architecture has
//! a folder like `amd64` and an arm in both. No code outside of these folders names a register.

mod amd64;
mod page;

#[cfg(target_arch = "x86_64")]
pub(crate) use amd64::host;
pub use page::page_size;

use symbols::image::Arch;

/// Rules of an architecture for walking Go stacks.
pub trait Machine: Sync + std::fmt::Debug {
    /// Address above the frame of a function whose stack pointer is `sp` and whose frame size at
    /// this instruction is `delta`: the caller's stack pointer (`unwinder.resolveInternal`'s
    /// `frame.fp`).
    fn frame_end(&self, sp: u64, delta: u32) -> Option<u64>;

    /// Stack address that holds the return address of a frame that ends at `frame_end`.
    fn return_slot(&self, frame_end: u64) -> u64;

    /// Address of the arguments of a frame that ends at `frame_end` (`frame.argp`).
    fn args(&self, frame_end: u64) -> u64;

    /// Number of bytes before a return address that [`Machine::call_before`] reads.
    fn longest_call(&self) -> usize;

    /// Decodes the call instruction at the end of `code`, which ends at return address `ret`.
    fn call_before(&self, code: &[u8], ret: u64) -> Option<CallTarget>;

    /// Interrupted program counter and stack pointer in a kernel signal frame whose `ucontext`
    /// begins with `context`.
    fn interrupted(&self, context: &[u8]) -> Option<(u64, u64)>;

    /// Number of bytes of a `ucontext` that [`Machine::interrupted`] reads.
    fn context_size(&self) -> usize;

    /// Returns true if `code` is a signal return trampoline, as the C library has one.
    fn is_sigreturn(&self, code: &[u8]) -> bool;

    /// Number of bytes of code that [`Machine::is_sigreturn`] reads.
    fn longest_sigreturn(&self) -> usize;

    /// Stack address that holds the return address of the C function that `racecall` has called on
    /// the system stack, which begins at `sp`.
    fn racecall_slot(&self, sp: u64) -> Option<u64>;

    /// Entry functions with which the system begins a program, in addition to those of all
    /// architectures.
    fn entry_functions(&self) -> &'static [&'static [u8]];

    /// First address above those of a process.
    fn max_addr(&self) -> u64;

    /// Offset added to an address before its arena number is computed (`runtime.arenaBaseOffset`,
    /// negated).
    fn arena_offset(&self) -> u64;

    /// Computes `math.Exp` as Go does, bit for bit, for arguments up to 0.
    fn exp_of_negative(&self, x: f64) -> f64;

    /// `uint64(value)` as Go's compiler converts it for this machine, also where the value does not fit
    /// (`float64ToUint64` in `cmd/compile/internal/ssagen/ssa.go`).
    fn float_to_uint64(&self, value: f64) -> u64;
}

/// Registers of a stopped thread, from which unwinding begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Program counter: address of the next instruction.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// Register in which the race detector's stack switch keeps the goroutine's stack pointer.
    pub kept: u64,
    /// Base of thread-local storage.
    pub tls: u64,
}

/// Target of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallTarget {
    /// Call of this address.
    Direct(u64),
    /// Call through a register or memory.
    Indirect,
}

/// Rules for images of `arch`; `None` if the architecture is not supported.
pub fn machine(arch: Arch) -> Option<&'static dyn Machine> {
    match arch {
        Arch::Amd64 => Some(&amd64::Amd64),
        Arch::Arm64 | Arch::Other(_) => None,
    }
}
