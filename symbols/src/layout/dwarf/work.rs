//! What reading DWARF costs, and how much of that is too much.
//!
//! Its parts refer to each other, so that reading a part once for each reference can cost any power of the file's size.

use std::cell::Cell;

use gimli::AttributeValue;

use super::Entry;

/// How much may still be read: attributes, and bytes of text.
#[derive(Debug)]
pub(super) struct Work {
    left: Cell<Option<usize>>,
}

impl Work {
    pub(super) fn new(limit: usize) -> Self {
        Work { left: Cell::new(Some(limit)) }
    }

    /// Takes off what was read. `None` once that was too much.
    pub(super) fn spend(&self, amount: usize) -> Option<()> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(amount)));
        self.left.get().map(drop)
    }

    /// As [`Work::spend`], for an entry.
    pub(super) fn entry(&self, entry: &Entry<'_>) -> Option<()> {
        let cost = entry.attrs().iter().map(|a| match a.raw_value() {
            AttributeValue::String(text) => 1 + text.len(),
            AttributeValue::Block(bytes) => 1 + bytes.len(),
            AttributeValue::Exprloc(expression) => 1 + expression.0.len(),
            _ => 1,
        });
        self.spend(1 + cost.sum::<usize>())
    }

    /// Whether more was wanted than there was.
    pub(super) fn is_used_up(&self) -> bool {
        self.left.get().is_none()
    }
}
