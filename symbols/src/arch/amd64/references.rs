//! References to static data in amd64 code: operands relative to the instruction pointer.

use iced_x86::{Decoder, DecoderOptions, Instruction};

use crate::addr::LinkAddr;
use crate::globals::code::{Code, Fingerprint, Operation, Reference};

/// Byte that Go's linker writes between functions.
const PADDING: u8 = 0xcc;

/// Decodes a function. Decoding ends at the first bytes that are no instruction, because the code after them
/// is unknown.
pub(super) fn decode(entry: LinkAddr, bytes: &[u8]) -> Code {
    let used = bytes.iter().rposition(|b| *b != PADDING).map_or(0, |last| last + 1);
    let bytes = bytes.get(..used).unwrap_or_default();
    let inside = entry.0..entry.0.saturating_add(used as u64);
    let mut decoder = Decoder::with_ip(64, bytes, entry.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut references = Vec::new();
    let mut fingerprint = Fingerprint::default();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            break;
        }
        let mut encoded = [0u8; 16];
        let Some(source) = bytes.get(start..decoder.position()) else { break };
        let Some(encoded) = encoded.get_mut(..source.len()) else { break };
        encoded.copy_from_slice(source);
        let offsets = decoder.get_constant_offsets(&instruction);
        if instruction.is_ip_rel_memory_operand() {
            references.push(Reference {
                target: LinkAddr(instruction.ip_rel_memory_address()),
                operation: Operation(instruction.mnemonic()),
            });
            blank(encoded, offsets.displacement_offset(), offsets.displacement_size());
        }
        if is_near_branch(&instruction) && !inside.contains(&instruction.near_branch_target()) {
            blank(encoded, offsets.immediate_offset(), offsets.immediate_size());
        }
        fingerprint.add(encoded);
    }
    Code { references, fingerprint }
}

fn is_near_branch(instruction: &Instruction) -> bool {
    use iced_x86::OpKind::{NearBranch16, NearBranch32, NearBranch64};
    instruction.op_count() > 0 && matches!(instruction.op0_kind(), NearBranch16 | NearBranch32 | NearBranch64)
}

fn blank(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(part) = at.checked_add(len).and_then(|end| bytes.get_mut(at..end)) {
        part.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code `mov rax,[rip+0x10]; call far outside; lea rcx,[rip-7]; ret`, then padding.
    const CODE: &[u8] = &[
        0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0xe8, 0, 0x10, 0, 0, 0x48, 0x8d, 0x0d, 0xf9, 0xff, 0xff, 0xff, 0xc3,
        0xcc, 0xcc,
    ];

    #[test]
    fn operands_in_order() {
        let code = decode(LinkAddr(0x1000), CODE);
        let found: Vec<_> = code.references.iter().map(|r| (r.target.0, r.operation.to_string())).collect();
        assert_eq!(found, [(0x1017, "Mov".to_owned()), (0x100c, "Lea".to_owned())]);
    }

    #[test]
    fn the_fingerprint_ignores_where_things_are_linked() {
        let mut moved = CODE.to_vec();
        moved[3] = 0x77;
        moved[9] = 0x33;
        moved.push(PADDING);
        let (here, there) = (decode(LinkAddr(0x1000), CODE), decode(LinkAddr(0x9000), &moved));
        assert_eq!(here.fingerprint, there.fingerprint);
        moved[1] = 0x89;
        assert_ne!(here.fingerprint, decode(LinkAddr(0x9000), &moved).fingerprint);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes(entry: u64, bytes: Vec<u8>) {
            let code = decode(LinkAddr(entry), &bytes);
            proptest::prop_assert!(code.references.len() <= bytes.len());
        }
    }
}
