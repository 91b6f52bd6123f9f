//! Arguments of a function as a traceback prints them (`runtime.printArgs`, `cmd/compile` `emitArgInfo`).

use super::Func;
use super::function::{funcdata, pcdata};
use crate::addr::LinkAddr;
use crate::image::Image;

/// Maximum length of a description in bytes. The compiler emits at most 10 slots and 5 levels, which need
/// much less, brackets and commas included.
const MAX_BYTES: usize = 256;

/// Piece of a printed argument list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgToken {
    /// Word of the frame, printed in hexadecimal.
    Slot {
        /// Offset from the start of the arguments, in bytes.
        offset: u8,
        /// Size in bytes: 1, 2, 4 or 8.
        size: u8,
        /// True if the compiler guarantees that the value is valid. Otherwise `?` follows the value.
        live: bool,
    },
    /// Start of a composite: `{`.
    Open,
    /// End of a composite: `}`.
    Close,
    /// Mark for further arguments that are not printed: `...`.
    DotDotDot,
    /// Slot with an offset too large for the description: `_`.
    OffsetTooLarge,
}

/// Returns the argument list of `func` at `pc` (the address to look up). `None` if the compiler left no
/// description; a traceback then prints nothing between the brackets.
pub fn arg_tokens(image: &Image, func: Func<'_>, pc: LinkAddr) -> Option<Vec<ArgToken>> {
    let info = read_some(image, func.funcdata(funcdata::ARG_INFO)?);
    let live_info = func.funcdata(funcdata::ARG_LIVE_INFO).map(|a| read_some(image, a));
    let live_index = func.pcdata(pcdata::ARG_LIVE_INDEX, pc);
    let start_offset = live_info.as_ref().and_then(|l| l.first().copied());
    let is_live = |offset: u8, slot: u8| -> bool {
        let (Some(bytes), Some(start)) = (&live_info, start_offset) else { return true };
        // Default without an index: live, as in the runtime.
        let Some(index) = usize::try_from(live_index).ok().filter(|&i| i > 0) else { return true };
        if offset < start {
            return true;
        }
        bytes.get(index + usize::from(slot / 8)).is_none_or(|bits| bits >> (slot % 8) & 1 != 0)
    };
    let mut tokens = Vec::new();
    let mut slot = 0u8;
    let mut bytes = info.into_iter();
    while let Some(b) = bytes.next() {
        match b {
            0xff => break,
            0xfe => tokens.push(ArgToken::Open),
            0xfd => tokens.push(ArgToken::Close),
            0xfc => tokens.push(ArgToken::DotDotDot),
            0xfb => tokens.push(ArgToken::OffsetTooLarge),
            offset => {
                let Some(size) = bytes.next() else { break };
                tokens.push(ArgToken::Slot { offset, size: size.min(8), live: is_live(offset, slot) });
                if start_offset.is_some_and(|start| offset >= start) {
                    slot = slot.saturating_add(1);
                }
            }
        }
    }
    Some(tokens)
}

/// Reads a description up to [`MAX_BYTES`] or the end of its segment.
fn read_some(image: &Image, addr: LinkAddr) -> Vec<u8> {
    image.read_vec(addr, MAX_BYTES).unwrap_or_default()
}
