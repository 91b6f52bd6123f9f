//! Signal frames of Linux on amd64: what the kernel puts on the stack of a handler, and the way back.

/// `mov $15, %rax; syscall`: what glibc and musl give the kernel as the way back from a handler.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// The same as Go's assembler writes it: `movq $15, %rax; syscall` (`runtime.sigreturn__sigaction`).
const SIGRETURN_SHORT: [u8; 7] = [0xb8, 15, 0, 0, 0, 0x0f, 0x05];

/// Offsets in `struct ucontext`: flags, link and stack (40 bytes), then the registers r8–r15, rdi, rsi, rbp,
/// rbx, rdx, rax, rcx, rsp, rip.
const CONTEXT_SP: usize = 40 + 8 * 15;
const CONTEXT_PC: usize = 40 + 8 * 16;

/// How much of a `ucontext` is looked at.
pub(super) const CONTEXT_SIZE: usize = CONTEXT_PC + 8;
/// How many bytes of code are looked at.
pub(super) const LONGEST_SIGRETURN: usize = SIGRETURN.len();

/// The interrupted program counter and stack pointer, by the beginning of a `ucontext`.
pub(super) fn interrupted(context: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(context.get(at..at + 8)?.try_into().ok()?));
    Some((word(CONTEXT_PC)?, word(CONTEXT_SP)?))
}

pub(super) fn is_sigreturn(code: &[u8]) -> bool {
    code.starts_with(&SIGRETURN) || code.starts_with(&SIGRETURN_SHORT)
}
