//! Agreement of a program's runtime code with a release that has a table, compared by instructions. Offsets
//! of fields are part of instructions. If the code is the same, its structs are the same too, whatever the
//! version text and the experiments of the program.

use super::recipe::Set;
use super::solver::{Program, Recipes};

/// Minimum number of functions for a proof.
const ENOUGH: usize = 60;
/// Minimum percentage of equal functions for a proof. In programs of the same compiler, release and options,
/// almost all functions are equal. A few differ between builds, by the assembler's alignment or an inlining
/// budget. A moved struct changes many functions.
const PERCENT: usize = 95;

/// Comparison of a program's runtime functions with a release. Only functions of recipes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// Number of compared functions that the program has.
    pub present: usize,
    /// Number of functions in `present` whose code equals the code of the release.
    pub same: usize,
}

impl Agreement {
    /// Returns true if the runtime is certainly the release's own, with the same structs.
    pub fn is_proof(&self) -> bool {
        self.present >= ENOUGH && self.same.saturating_mul(100) >= self.present.saturating_mul(PERCENT)
    }
}

/// Compares the runtime of a program with a release. The release's code is known with and without
/// optimisation; the more similar one counts.
pub(super) fn of(program: &mut Program<'_>, recipes: &Recipes<'_>) -> Option<Agreement> {
    let counted = [&recipes.optimised, &recipes.unoptimised].map(|set| of_set(program, set));
    counted.into_iter().max_by_key(|agreement| agreement.same)
}

fn of_set(program: &mut Program<'_>, set: &Set<'_>) -> Agreement {
    let mut agreement = Agreement::default();
    for (name, _) in set.functions.iter() {
        let Some(shape) = set.shape(name) else { continue };
        if !program.has(name) {
            continue;
        }
        agreement.present += 1;
        let mut decoded = program.decoded(name).iter();
        agreement.same += usize::from(decoded.any(|code| code.fingerprint == shape.fingerprint));
    }
    agreement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_functions_prove_nothing() {
        assert!(!Agreement { present: 0, same: 0 }.is_proof());
        assert!(!Agreement { present: ENOUGH - 1, same: ENOUGH - 1 }.is_proof());
        assert!(Agreement { present: 200, same: 190 }.is_proof());
        assert!(!Agreement { present: 200, same: 189 }.is_proof());
    }
}
