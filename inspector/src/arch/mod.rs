//! What depends on the machine: how a frame gives its caller, how a call looks, where a signal frame keeps the
//! interrupted registers, how far addresses reach. What its images say has a seam of its own, `symbols::arch`.
//!
//! What depends on the image is a [`Machine`], chosen by [`machine`]. What depends on the machine that this program runs on
//! is [`host`], chosen when it is compiled. A machine is a folder beside `amd64`, an arm of both; nothing outside of these
//! folders names a register.

mod amd64;
mod page;

#[cfg(target_arch = "x86_64")]
pub(crate) use amd64::host;
pub use page::page_size;

use symbols::image::Arch;

/// The rules of a machine for walking Go stacks.
pub trait Machine: Sync + std::fmt::Debug {
    /// The address above the frame of a function whose stack pointer is `sp` and whose frame size at this
    /// instruction is `delta`: the caller's stack pointer (`unwinder.resolveInternal`'s `frame.fp`).
    fn frame_end(&self, sp: u64, delta: u32) -> Option<u64>;

    /// Where the return address of a frame that ends at `frame_end` is.
    fn return_slot(&self, frame_end: u64) -> u64;

    /// Where the arguments of a frame that ends at `frame_end` begin (`frame.argp`).
    fn args(&self, frame_end: u64) -> u64;

    /// How many bytes before a return address [`Machine::call_before`] looks at.
    fn longest_call(&self) -> usize;

    /// The call that ends where `code`, which ends at return address `ret`, ends.
    fn call_before(&self, code: &[u8], ret: u64) -> Option<CallTarget>;

    /// The interrupted program counter and stack pointer in a kernel signal frame whose `ucontext` begins with
    /// `context`.
    fn interrupted(&self, context: &[u8]) -> Option<(u64, u64)>;

    /// How much of a `ucontext` [`Machine::interrupted`] looks at.
    fn context_size(&self) -> usize;

    /// Whether `code` is a signal return trampoline, as the C library has one.
    fn is_sigreturn(&self, code: &[u8]) -> bool;

    /// How many bytes of code [`Machine::is_sigreturn`] looks at.
    fn longest_sigreturn(&self) -> usize;

    /// Where the return address of the C function is that `racecall` has called on the system stack, which begins at `sp`.
    fn racecall_slot(&self, sp: u64) -> Option<u64>;

    /// Functions that the system begins a program with, besides those that each machine has.
    fn entry_functions(&self) -> &'static [&'static [u8]];

    /// The first address above those of a process.
    fn max_addr(&self) -> u64;

    /// What is added to an address before the number of its arena is taken (`runtime.arenaBaseOffset`, negated).
    fn arena_offset(&self) -> u64;

    /// `math.Exp` as Go computes it, bit for bit, for arguments up to 0.
    fn exp_of_negative(&self, x: f64) -> f64;

    /// `uint64(value)` as Go's compiler converts it for this machine, also where the value does not fit
    /// (`float64ToUint64` in `cmd/compile/internal/ssagen/ssa.go`).
    fn float_to_uint64(&self, value: f64) -> u64;
}

/// The registers of a stopped thread that unwinding begins with.
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

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallTarget {
    /// To this address.
    Direct(u64),
    /// Through a register or memory.
    Indirect,
}

/// The rules for images of `arch`.
pub fn machine(arch: Arch) -> Option<&'static dyn Machine> {
    match arch {
        Arch::Amd64 => Some(&amd64::Amd64),
        Arch::Arm64 | Arch::Other(_) => None,
    }
}
