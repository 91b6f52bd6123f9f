//! Budget for the cost of reading DWARF.
//!
//! Parts of DWARF refer to each other. If a part is read once for each reference, the cost can grow with any
//! power of the file's size.

use std::cell::Cell;

use gimli::AttributeValue;

use super::Entry;

/// Remaining budget, in attributes and bytes of text.
#[derive(Debug)]
pub(super) struct Work {
    left: Cell<Option<usize>>,
}

impl Work {
    pub(super) fn new(limit: usize) -> Self {
        Work { left: Cell::new(Some(limit)) }
    }

    /// Subtracts the cost of what was read. `None` if the budget is used up.
    pub(super) fn spend(&self, amount: usize) -> Option<()> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(amount)));
        self.left.get().map(drop)
    }

    /// Subtracts the cost of an entry, like [`Work::spend`].
    pub(super) fn entry(&self, entry: &Entry<'_>) -> Option<()> {
        let cost = entry.attrs().iter().map(|a| match a.raw_value() {
            AttributeValue::String(text) => 1 + text.len(),
            AttributeValue::Block(bytes) => 1 + bytes.len(),
            AttributeValue::Exprloc(expression) => 1 + expression.0.len(),
            _ => 1,
        });
        self.spend(1 + cost.sum::<usize>())
    }

    /// Returns true if more was requested than the budget allowed.
    pub(super) fn is_used_up(&self) -> bool {
        self.left.get().is_none()
    }
}
