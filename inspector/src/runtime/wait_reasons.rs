//! Wait reasons of the target, from its own table (`runtime.waitReasonStrings`).

use symbols::addr::RuntimeAddr;

use crate::memory::Memory;

/// Maximum number of wait reasons: the number of values of a byte. `MAX_WAIT_REASON` is the maximum length
/// of one in bytes.
const MAX_WAIT_REASONS: u64 = 256;
const MAX_WAIT_REASON: u64 = 128;

/// Reads an array of strings up to the first implausible one. Returns `None` if its start differs from that
/// of the wait reasons.
pub fn read(memory: &dyn Memory, at: RuntimeAddr) -> Option<Vec<String>> {
    let mut reasons = Vec::new();
    for i in 0..MAX_WAIT_REASONS {
        let entry = at.plus(16 * i);
        let (Ok(data), Ok(len)) = (memory.word(entry), memory.word(entry.plus(8))) else { break };
        if len > MAX_WAIT_REASON || (len == 0 && i > 0) {
            break;
        }
        let Ok(bytes) = memory.bytes(RuntimeAddr(data), usize::try_from(len).ok()?) else { break };
        match String::from_utf8(bytes) {
            Ok(text) if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => reasons.push(text),
            _ => break,
        }
    }
    let begins = reasons.first().is_some_and(String::is_empty)
        && reasons.get(1).is_some_and(|r| r == "GC assist marking");
    begins.then_some(reasons)
}
