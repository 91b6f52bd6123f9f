//! Comparison of the variables that recipes find with a program's symbol table.

use std::collections::BTreeSet;

use super::{Globals, VARIABLES};

/// Comparison of two ways to find the [`VARIABLES`] of one program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of variables found at the address of the symbol table.
    pub right: usize,
    /// Variables found at another address, or absent from the symbol table.
    pub wrong: BTreeSet<&'static str>,
    /// Variables of the symbol table that were not found.
    pub none: BTreeSet<&'static str>,
}

impl Verdict {
    /// Compares `found` with `truth`. With the table of a `neighbour`, found variables that `truth` does not
    /// contain are ignored.
    #[must_use]
    pub fn new(truth: &Globals, found: &Globals, neighbour: bool) -> Self {
        let mut verdict = Self::default();
        for name in VARIABLES.iter().copied() {
            match (truth.address(name), found.address(name)) {
                (Some(a), Some(b)) if a == b => verdict.right += 1,
                (None, Some(_)) if neighbour => {}
                (_, Some(_)) => {
                    verdict.wrong.insert(name);
                }
                (Some(_), None) => {
                    verdict.none.insert(name);
                }
                (None, None) => {}
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::LinkAddr;
    use crate::globals::{Evidence, FoundGlobal};

    fn globals(addresses: &[(&str, u64)]) -> Globals {
        let found = |&(name, address): &(&str, u64)| {
            (name.to_owned(), FoundGlobal { address: LinkAddr(address), evidence: Evidence::SymbolTable })
        };
        Globals { found: addresses.iter().map(found).collect() }
    }

    #[test]
    fn addresses_are_compared() {
        let truth = globals(&[("runtime.allgs", 1), ("runtime.allm", 2), ("runtime.allp", 3)]);
        let found = globals(&[("runtime.allgs", 1), ("runtime.allm", 9), ("runtime.sched", 4)]);
        let verdict = Verdict::new(&truth, &found, false);
        assert_eq!(verdict.right, 1);
        assert_eq!(verdict.wrong, BTreeSet::from(["runtime.allm", "runtime.sched"]));
        assert_eq!(verdict.none, BTreeSet::from(["runtime.allp"]));
        assert_eq!(Verdict::new(&truth, &found, true).wrong, BTreeSet::from(["runtime.allm"]));
    }
}
