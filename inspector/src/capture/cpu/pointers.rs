//! Code of which nothing but its place is known: its stack is followed by frame pointers only.

use super::join::{Foreign, Named, Unwound};
use super::source::Registers;

/// Executable mappings, as ranges of addresses.
#[derive(Debug, Clone, Default)]
pub struct PointersOnly(Vec<(u64, u64)>);

impl PointersOnly {
    /// Code in these ranges: first address, and one past the last.
    pub fn new(ranges: Vec<(u64, u64)>) -> Self {
        PointersOnly(ranges)
    }
}

impl Foreign for PointersOnly {
    fn unwind(&mut self, start: Registers, _: &[u8], _: &mut dyn FnMut(u64) -> bool) -> Unwound {
        Unwound { pcs: vec![start.ip], ..Unwound::default() }
    }

    fn is_code(&mut self, pc: u64) -> bool {
        self.0.iter().any(|&(start, end)| start <= pc && pc < end)
    }

    fn names(&mut self, _: u64) -> Vec<Named> {
        Vec::new()
    }
}
