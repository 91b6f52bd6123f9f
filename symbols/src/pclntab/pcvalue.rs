//! Pc-value tables (`runtime.pcvalue`): runs of code with the same value.

use crate::addr::LinkAddr;

/// Run of instructions with one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Value of the run, up to `end`.
    pub value: i32,
    /// Link address after the last instruction of the run.
    pub end: LinkAddr,
}

/// Decodes the table at the start of `bytes`, for a function that starts at `entry`.
///
/// The iterator ends at the table's end mark, at the end of `bytes`, or at malformed numbers.
pub fn runs(bytes: &[u8], entry: LinkAddr, min_lc: u8) -> Runs<'_> {
    Runs { bytes, value: -1, pc: entry, min_lc, first: true }
}

/// Decodes a table like [`runs`], from `bytes` that continue after the run `last`.
pub(super) fn resumed(bytes: &[u8], last: Run, min_lc: u8) -> Runs<'_> {
    Runs { bytes, value: last.value, pc: last.end, min_lc, first: false }
}

/// Iterator over the runs of a table. See [`runs`].
#[derive(Debug, Clone)]
pub struct Runs<'t> {
    bytes: &'t [u8],
    value: i32,
    pc: LinkAddr,
    min_lc: u8,
    first: bool,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let delta = self.uvarint()?;
        if delta == 0 && !self.first {
            return None;
        }
        self.first = false;
        let delta = if delta & 1 != 0 { !(delta >> 1) } else { delta >> 1 };
        self.value = self.value.wrapping_add(delta.cast_signed());
        let pc_delta = u64::from(self.uvarint()?) * u64::from(self.min_lc);
        self.pc = self.pc.plus(pc_delta);
        Some(Run { value: self.value, end: self.pc })
    }
}

impl Runs<'_> {
    /// Number of bytes that are not read yet.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn uvarint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let (&b, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u32::from(b & 0x7f).checked_shl(shift).unwrap_or(0);
            if b & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Returns the value of a table at `pc`.
pub fn value_at(bytes: &[u8], entry: LinkAddr, pc: LinkAddr, min_lc: u8) -> Option<i32> {
    runs(bytes, entry, min_lc).find(|run| pc < run.end).map(|run| run.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_below_their_end() {
        // Table: -1 + 1 = 0 for 4 bytes, +24 for 16, -24 for 1, end.
        let table = [2, 4, 48, 16, 47, 1, 0];
        let entry = LinkAddr(0x1000);
        let at = |pc| value_at(&table, entry, LinkAddr(pc), 1);
        assert_eq!([at(0x1000), at(0x1003), at(0x1004), at(0x1013)], [Some(0), Some(0), Some(24), Some(24)]);
        assert_eq!([at(0x1014), at(0x1015)], [Some(0), None]);
    }

    #[test]
    fn a_first_delta_of_zero_is_a_value() {
        assert_eq!(value_at(&[0, 8, 0], LinkAddr(0), LinkAddr(7), 1), Some(-1));
    }

    #[test]
    fn truncated_and_overlong_numbers_end_the_table() {
        assert_eq!(value_at(&[2], LinkAddr(0), LinkAddr(0), 1), None);
        assert_eq!(value_at(&[0xff; 40], LinkAddr(0), LinkAddr(0), 1), None);
    }
}
