//! How much of a program's runtime is, instruction by instruction, that of a release that there is a table of. Offsets of
//! fields are part of instructions, so that where the code is the same, the structs that it uses are the same too,
//! whatever the program is called and with whatever experiments it was built.

use super::recipe::Set;
use super::solver::{Program, Recipes};

/// Fewer functions than this say nothing.
const ENOUGH: usize = 60;
/// In a program of the same compiler, release and options all functions are the same, but for a few in which a
/// build differs (its assembler's alignment, an inlining budget); a struct that has moved shows in many.
const PERCENT: usize = 95;

/// The functions of a runtime that recipes are about, held against those of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// Functions that the program has.
    pub present: usize,
    /// Of them, those whose code is exactly the release's.
    pub same: usize,
}

impl Agreement {
    /// Whether the runtime is the release's own beyond doubt, its structs included.
    pub fn is_proof(&self) -> bool {
        self.present >= ENOUGH && self.same.saturating_mul(100) >= self.present.saturating_mul(PERCENT)
    }
}

/// Holds the runtime of a program against a release: compiled as usual, or without optimisation, whichever is more alike.
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
