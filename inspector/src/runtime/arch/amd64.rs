//! amd64: the call pushes the return address, the frame lies below it.

use super::{CallTarget, Machine};

/// See [`Machine`].
#[derive(Debug)]
pub struct Amd64;

/// `mov $15, %rax; syscall`: what glibc and musl give the kernel as the way back from a handler.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// The same as Go's assembler writes it: `movq $15, %rax; syscall` (`runtime.sigreturn__sigaction`).
const SIGRETURN_SHORT: [u8; 7] = [0xb8, 15, 0, 0, 0, 0x0f, 0x05];

/// Offsets in `struct ucontext`: flags, link and stack (40 bytes), then the registers r8–r15, rdi, rsi, rbp,
/// rbx, rdx, rax, rcx, rsp, rip.
const CONTEXT_SP: usize = 40 + 8 * 15;
const CONTEXT_PC: usize = 40 + 8 * 16;

impl Machine for Amd64 {
    fn frame_end(&self, sp: u64, delta: u32) -> Option<u64> {
        sp.checked_add(u64::from(delta) + 8)
    }

    fn return_slot(&self, frame_end: u64) -> u64 {
        frame_end.wrapping_sub(8)
    }

    fn args(&self, frame_end: u64) -> u64 {
        frame_end
    }

    fn longest_call(&self) -> usize {
        8
    }

    fn call_before(&self, code: &[u8], ret: u64) -> Option<CallTarget> {
        let from_end = |n: usize| code.len().checked_sub(n).and_then(|i| code.get(i..));
        // call rel32
        if let Some([0xe8, rel @ ..]) = from_end(5) {
            let rel = i32::from_le_bytes(rel.try_into().ok()?);
            return Some(CallTarget::Direct(ret.wrapping_add_signed(i64::from(rel))));
        }
        // ff /2 with each length that its operand can have, with or without a REX prefix.
        (2..=7).find_map(|n| {
            let at = from_end(n)?;
            (at.first() == Some(&0xff) && indirect_call_length(at) == Some(n)).then_some(CallTarget::Indirect)
        })
    }

    fn interrupted(&self, context: &[u8]) -> Option<(u64, u64)> {
        let word = |at: usize| Some(u64::from_le_bytes(context.get(at..at + 8)?.try_into().ok()?));
        Some((word(CONTEXT_PC)?, word(CONTEXT_SP)?))
    }

    fn context_size(&self) -> usize {
        CONTEXT_PC + 8
    }

    fn is_sigreturn(&self, code: &[u8]) -> bool {
        code.starts_with(&SIGRETURN) || code.starts_with(&SIGRETURN_SHORT)
    }
}

/// The length of `ff /2` at the start of `code`.
fn indirect_call_length(code: &[u8]) -> Option<usize> {
    let modrm = *code.get(1)?;
    if (modrm >> 3) & 7 != 2 {
        return None;
    }
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = usize::from(mode != 3 && rm == 4);
    let displacement = match mode {
        0 if rm == 5 => 4,
        0 if sib == 1 && code.get(2).is_some_and(|s| s & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(2 + sib + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let call = |code: &[u8]| Amd64.call_before(code, 0x1000);
        assert_eq!(call(&[0x90, 0xe8, 0xfb, 0xff, 0xff, 0xff]), Some(CallTarget::Direct(0xffb)));
        assert_eq!(call(&[0x90, 0xff, 0xd0]), Some(CallTarget::Indirect)); // call *%rax
        assert_eq!(call(&[0x41, 0xff, 0xd4]), Some(CallTarget::Indirect)); // call *%r12
        assert_eq!(call(&[0xff, 0x51, 0x18]), Some(CallTarget::Indirect)); // call *0x18(%rcx)
        assert_eq!(call(&[0xff, 0x94, 0x24, 0x80, 0, 0, 0]), Some(CallTarget::Indirect)); // call *0x80(%rsp)
        assert_eq!(call(&[0xff, 0x15, 1, 2, 3, 4]), Some(CallTarget::Indirect)); // call *rel(%rip)
        assert_eq!(call(&[0x90, 0x90, 0x90]), None);
        assert_eq!(call(&[0xff, 0xe0]), None); // jmp *%rax
        assert_eq!(call(&[]), None);
    }
}
