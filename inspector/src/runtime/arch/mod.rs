//! What depends on the machine: how a frame gives its caller, how a call looks, where a signal frame keeps the
//! interrupted registers. The decoder of runtime globals has its own seam in `symbols::globals`.

pub mod amd64;

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
