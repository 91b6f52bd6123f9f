//! Place of g in thread-local storage, from amd64 code. The place is relative to the base of `fs`.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::addr::LinkAddr;
use crate::tls::GPlace;

/// Valid offsets of g. The thread-local storage of a program is below the base of `fs`.
const PLACES: std::ops::Range<i64> = -(1 << 20)..0;

/// Finds the place of g, from code that begins with loading g.
pub(super) fn g_place(code: &[u8], entry: LinkAddr) -> Option<GPlace> {
    let mut decoder = Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    // Register that was loaded last, and the place of g that it holds.
    let mut loaded: Option<(Register, GPlace)> = None;
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        let in_storage = instruction.segment_prefix() == Register::FS;
        if in_storage {
            let displacement = instruction.memory_displacement64().cast_signed();
            match instruction.memory_base() {
                Register::None if instruction.memory_index() == Register::None => {
                    return PLACES.contains(&displacement).then_some(GPlace::Offset(displacement));
                }
                base => {
                    if let Some((register, place)) = loaded
                        && register == base
                        && displacement == 0
                    {
                        return Some(place);
                    }
                }
            }
        }
        if instruction.mnemonic() == Mnemonic::Mov && instruction.op0_kind() == OpKind::Register {
            let with = if instruction.is_ip_rel_memory_operand() {
                Some(GPlace::InWord(LinkAddr(instruction.ip_rel_memory_address())))
            } else if instruction.op1_kind() == OpKind::Immediate32to64 {
                // Constant offset: the linker replaced a load from a word that the loader would have filled.
                Some(instruction.immediate32to64()).filter(|at| PLACES.contains(at)).map(GPlace::Offset)
            } else {
                None
            };
            if let Some(with) = with {
                loaded = Some((instruction.op0_register(), with));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_compilers_write_it() {
        // Code: mov %fs:0xfffffffffffffff8,%rdi
        let code = [0x64, 0x48, 0x8b, 0x3c, 0x25, 0xf8, 0xff, 0xff, 0xff];
        assert_eq!(g_place(&code, LinkAddr(0x1000)), Some(GPlace::Offset(-8)));
        // Code: mov 0x100(%rip),%rcx; mov %fs:(%rcx),%rdi
        let code = [0x48, 0x8b, 0x0d, 0, 1, 0, 0, 0x64, 0x48, 0x8b, 0x39];
        assert_eq!(g_place(&code, LinkAddr(0x1000)), Some(GPlace::InWord(LinkAddr(0x1107))));
        // Code: mov $-8,%rcx; mov %r14,%fs:(%rcx)
        let code = [0x48, 0xc7, 0xc1, 0xf8, 0xff, 0xff, 0xff, 0x64, 0x4c, 0x89, 0x31];
        assert_eq!(g_place(&code, LinkAddr(0x1000)), Some(GPlace::Offset(-8)));
        // Code: mov %fs:(%rdx),%rdi, where nothing loaded %rdx before
        let code = [0x48, 0x8b, 0x0d, 0, 1, 0, 0, 0x64, 0x48, 0x8b, 0x3a];
        assert_eq!(g_place(&code, LinkAddr(0x1000)), None);
        assert_eq!(g_place(&[0xff; 40], LinkAddr(0x1000)), None);
    }
}
