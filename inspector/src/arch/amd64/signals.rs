//! Signal frames of Linux on amd64: the data that the kernel puts on a handler's stack, and the
//! signal return.

/// Signal return trampoline `mov $15, %rax; syscall` of glibc and musl.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// Signal return trampoline of Go: `movq $15, %rax; syscall` in its assembler's shorter encoding
/// (`runtime.sigreturn__sigaction`).
const SIGRETURN_SHORT: [u8; 7] = [0xb8, 15, 0, 0, 0, 0x0f, 0x05];

/// Offset of rsp in `struct ucontext`: flags, link and stack (40 bytes), then the registers r8–r15,
/// rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip. [`CONTEXT_PC`] is the offset of rip.
const CONTEXT_SP: usize = 40 + 8 * 15;
const CONTEXT_PC: usize = 40 + 8 * 16;

/// Number of bytes read of a `ucontext`.
pub(super) const CONTEXT_SIZE: usize = CONTEXT_PC + 8;
/// Number of bytes of code that are read.
pub(super) const LONGEST_SIGRETURN: usize = SIGRETURN.len();

/// Interrupted program counter and stack pointer from the first bytes of a `ucontext`.
pub(super) fn interrupted(context: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(context.get(at..at + 8)?.try_into().ok()?));
    Some((word(CONTEXT_PC)?, word(CONTEXT_SP)?))
}

pub(super) fn is_sigreturn(code: &[u8]) -> bool {
    code.starts_with(&SIGRETURN) || code.starts_with(&SIGRETURN_SHORT)
}
