//! Search for variables of one program, with a cache. Found variables and decoded functions stay available
//! for later calls.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::agreement::{self, Agreement};
use super::solver::{self, Decoded, Program, Recipes};
use super::{FoundGlobal, Globals};
use crate::image::{Arch, Image};
use crate::layout;
use crate::pclntab::Pclntab;
use crate::toolchain::{self, Sheet};
use crate::version::GoVersion;

/// Cached search for variables of one program.
#[derive(Debug)]
pub struct Search {
    version: GoVersion,
    kept: Mutex<SearchCache>,
}

#[derive(Default)]
struct SearchCache {
    /// Result for each variable that was requested. `None` if it was not found.
    asked: BTreeMap<String, Option<FoundGlobal>>,
    /// Tables that can apply to the version, best first.
    tables: Option<Vec<Table>>,
    decoded: Decoded,
}

impl std::fmt::Debug for SearchCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchCache").field("asked", &self.asked).finish_non_exhaustive()
    }
}

struct Table {
    sheet: Sheet,
    recipes: Recipes<'static>,
    /// Agreement of the program with the table, once computed. `Some(None)` if there is no agreement.
    agreement: Option<Option<Agreement>>,
}

impl Table {
    fn agreement(&mut self, program: &mut Program<'_>) -> Option<Agreement> {
        let Table { recipes, agreement, .. } = self;
        *agreement.get_or_insert_with(|| agreement::of(program, recipes))
    }
}

impl Search {
    /// Creates a search in a program of this version.
    pub fn new(version: GoVersion) -> Self {
        Search { version, kept: Mutex::default() }
    }

    /// Go version of the program.
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// Finds variables like [`solve`](super::solve). All calls must be for the same program.
    pub fn find(&self, image: &Image, pclntab: &Pclntab, wanted: &[&str]) -> Globals {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<&str> = wanted.iter().copied().filter(|name| !kept.asked.contains_key(*name)).collect();
        if !new.is_empty() {
            let found = self.solve(&mut kept, image, pclntab, &new);
            kept.asked.extend(new.into_iter().map(|name| (name.to_owned(), found.get(name))));
        }
        let found = wanted.iter().filter_map(|name| Some(((*name).to_owned(), (*kept.asked.get(*name)?)?)));
        Globals { found: found.collect() }
    }

    fn solve(&self, kept: &mut SearchCache, image: &Image, pclntab: &Pclntab, wanted: &[&str]) -> Globals {
        let SearchCache { tables, decoded, .. } = kept;
        let mut globals = Globals::default();
        let mut program = Program { image, pclntab, decoded };
        for table in self.tables(image.arch(), tables) {
            let unknown: Vec<&str> = wanted.iter().copied().filter(|w| globals.get(w).is_none()).collect();
            if unknown.is_empty() {
                break;
            }
            let mut steady = match table.sheet.evidence {
                toolchain::Evidence::Exact => unknown.iter().copied().collect(),
                // Unknown experiments: no struct is certain to be unchanged, so votes must be unanimous.
                toolchain::Evidence::OtherExperiments { .. } => HashSet::new(),
                _ => layout::steady(&self.version, &unknown),
            };
            // Exception for equal code: a vendor's release, or one with experiments, then has the structs of
            // the table.
            if steady.len() < unknown.len() && table.agreement(&mut program).is_some_and(|a| a.is_proof()) {
                steady = unknown.iter().copied().collect();
            }
            let Table { sheet, recipes, .. } = table;
            globals.fill(solver::apply(&mut program, recipes, sheet.evidence, &unknown, &steady));
        }
        program.decoded.limit();
        globals
    }

    /// Compares the runtime of the program with the best table for its version. `None` if there is no table.
    pub fn agreement(&self, image: &Image, pclntab: &Pclntab) -> Option<Agreement> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let SearchCache { tables, decoded, .. } = &mut *kept;
        let mut program = Program { image, pclntab, decoded };
        let agreement = self.tables(image.arch(), tables).first_mut()?.agreement(&mut program);
        program.decoded.limit();
        agreement
    }

    fn tables<'k>(&self, arch: Arch, kept: &'k mut Option<Vec<Table>>) -> &'k mut [Table] {
        kept.get_or_insert_with(|| {
            let sheets = toolchain::files(arch, &self.version).into_iter();
            let table = |sheet| Table { recipes: solver::recipes(&sheet), sheet, agreement: None };
            sheets.map(table).collect()
        })
    }
}
