//! The table of wait reasons in the memory of a process.

use inspector::memory::RecordedMemory;
use inspector::runtime::wait_reasons;
use symbols::addr::RuntimeAddr;

use crate::input::Input;

const TABLE: u64 = 0x50_0000;
const TEXT: u64 = 0x60_0000;

/// The bytes are entries of the table (where a string is, how long) and then the text that they point into.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut table = Vec::new();
    for _ in 0..u16::from(input.u8()) * 2 {
        let (at, len) = match input.u8() {
            kind @ 0..=0xef => (TEXT + u64::from(kind) * 4, u64::from(input.u8())),
            _ => (input.u64(), input.u64()),
        };
        table.extend([at.to_le_bytes(), len.to_le_bytes()].concat());
    }
    let text = [b"GC assist marking", input.rest()].concat();
    let memory = RecordedMemory::default().with(TABLE, table).with(TEXT, text);
    for reason in wait_reasons::read(&memory, RuntimeAddr(TABLE)).unwrap_or_default() {
        assert!(reason.len() <= 128 && !reason.chars().any(char::is_control), "{reason:?}");
    }
}
