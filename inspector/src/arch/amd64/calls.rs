//! Decoding of call instructions of amd64.

use crate::arch::CallTarget;

/// Decodes the call instruction at the end of `code`, which ends at return address `ret`.
pub(super) fn call_before(code: &[u8], ret: u64) -> Option<CallTarget> {
    let from_end = |n: usize| code.len().checked_sub(n).and_then(|i| code.get(i..));
    // call rel32
    if let Some([0xe8, rel @ ..]) = from_end(5) {
        let rel = i32::from_le_bytes(rel.try_into().ok()?);
        return Some(CallTarget::Direct(ret.wrapping_add_signed(i64::from(rel))));
    }
    // ff /2 with each possible operand length, with or without a REX prefix.
    (2..=7).find_map(|n| {
        let at = from_end(n)?;
        (at.first() == Some(&0xff) && indirect_call_length(at) == Some(n)).then_some(CallTarget::Indirect)
    })
}

/// Length of `ff /2` at the start of `code`.
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
        let call = |code: &[u8]| call_before(code, 0x1000);
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
