//! Calibration: finds the release, layouts and variables that together fit the memory of a process.

mod checks;
mod layouts;
mod threads;

use std::sync::Arc;

use symbols::globals::Agreement;
use symbols::layout::{self, Table};
use symbols::program::GoProgram;

pub use checks::{GCheck, MCheck, check_gs, check_ms, find_alllink};
use layouts::layout_for;
pub(crate) use layouts::{has_debug_info, own_dwarf};
pub(super) use threads::find_ms;

use super::attach_error::AttachError;
use super::discover;
use super::fields::GFields;
use super::locate::{Located, Symbols, Variables};
use super::modules::{Module, Modules};
use super::release::{self, Candidate, Source};
use super::snapshot::glist::AllGs;
use super::wait_reasons;
use crate::memory::Memory;

/// Release, layouts and variables that fit a process.
pub(super) struct Calibrated {
    pub(super) fit: Arc<Fit>,
    /// Layout table, with the wait reasons of the process.
    pub(super) table: Arc<Table>,
    pub(super) allgs: AllGs,
    pub(super) globals: Located,
}

/// Layouts and variables of a program under one candidate release, from the file alone. They fit a process
/// if its memory agrees.
#[derive(Debug)]
pub(super) struct Fit {
    pub(super) release: Candidate,
    pub(super) table: Arc<Table>,
    pub(super) layout: layout::Evidence,
    pub(super) g: GFields,
    pub(super) variables: Arc<Variables>,
}

impl Fit {
    /// Builds the fit for a release, or returns `None` if no table exists for the release.
    fn new(main: &Module, release: Candidate, symbols: &Arc<Symbols>) -> Option<Self> {
        let layout::FoundLayout { table, evidence } = layout_for(&main.image, &release.version)?;
        let g = GFields::from_table(&table).ok()?;
        let variables = Arc::new(Variables::new(Arc::clone(symbols), release.version.clone()));
        Some(Fit { release, table: Arc::new(table), layout: evidence, g, variables })
    }

    /// Returns true if the file alone determined the release. Such a fit is tried first for each process of
    /// the program.
    pub(super) fn is_of_file(&self) -> bool {
        self.release.source == Source::BuildInfo
    }

    /// Compares the code of the runtime with that of the release. Returns `None` if the layout is certain
    /// without this check.
    pub(super) fn code(&self, main: &Module) -> Option<Agreement> {
        let certain = match self.layout {
            layout::Evidence::Exact => self.release.source == Source::BuildInfo,
            layout::Evidence::Dwarf => true,
            layout::Evidence::SameMinor { .. } => layout::is_bracketed(&self.release.version),
            _ => false,
        };
        if certain { None } else { self.variables.agreement(main) }
    }
}

const WANTED: &[&str] = &[
    "runtime.allgs",
    "runtime.allglen",
    "runtime.allgptr",
    "runtime.allm",
    "runtime.debug",
    "runtime.fingStatus",
    "runtime.fingRunning",
    "runtime.firstmoduledata",
    "runtime.waitReasonStrings",
];

/// Finds the layout of g and the address of allgs that together fit live memory. The fit of an earlier
/// process of the same program is tried first and checked like any other.
pub(super) fn calibrate(
    memory: &dyn Memory,
    modules: &Modules,
    program: &GoProgram,
    known: Option<Arc<Fit>>,
    note: &mut impl FnMut(&str, String, String),
    unknown: &mut Vec<String>,
) -> Result<Calibrated, AttachError> {
    let main = modules.main();
    let mut tried = Vec::new();
    let symbols = Arc::default();
    let mut failure = String::from("there is no table for it");
    let others = || release::candidates(program, modules, memory);
    let others = std::iter::once_with(others).flatten();
    let others = others.filter_map(|release| Fit::new(main, release, &symbols).map(Arc::new));
    for fit in known.into_iter().chain(others) {
        let globals = fit.variables.locate(main, WANTED);
        let at = |name: &str| globals.at(name);
        let by_name = match (at("runtime.allglen"), at("runtime.allgptr")) {
            (Some(len), Some(ptr)) => Some(AllGs { len, ptr }),
            _ => at("runtime.allgs").map(|slice| AllGs { len: slice.plus(8), ptr: slice }),
        };
        let by_looks = || {
            let found = discover::find_allgs(memory, modules, &fit.g)?;
            Some((found, String::from("found by its contents")))
        };
        let by_name = by_name.map(|allgs| (allgs, globals.how("runtime.allgptr")));
        // The search in memory is slower than a recipe, so it runs only after the recipe failed.
        for (allgs, how) in by_name.into_iter().chain(std::iter::once_with(by_looks).flatten()) {
            let check = check_gs(memory, modules, &fit.g, &allgs);
            if check.passes() {
                note(
                    "layout",
                    format!("{}", fit.release.version),
                    format!("{}; {} of {} sampled goroutines fit", fit.layout, check.good, check.looked_at),
                );
                note("allgs", allgs.ptr.to_string(), how);
                if let Some(Agreement { present, same }) = fit.code(main) {
                    let how = format!(
                        "{same} of {present} functions of the runtime are the same, instruction by instruction"
                    );
                    note("code", fit.release.version.to_string(), how);
                }
                let table = with_live_wait_reasons(memory, &globals, &fit, note);
                return Ok(Calibrated { fit, table, allgs, globals });
            }
            failure = format!("{} of {} sampled goroutines fit", check.good, check.looked_at);
            tried.push(format!(
                "the layout of {} ({}), with allgs at {} ({how}): {failure}",
                fit.release.version, fit.layout, allgs.ptr
            ));
        }
    }
    tried.dedup();
    unknown.append(&mut tried);
    Err(AttachError::NothingCalibrates { version: program.release.to_string(), why: failure })
}

/// Takes the wait reasons from the target unless the table is of exactly its release. The order of wait
/// reasons changes between releases (`runtime.waitReasonStrings`).
fn with_live_wait_reasons(
    memory: &dyn Memory,
    globals: &Located,
    fit: &Fit,
    note: &mut impl FnMut(&str, String, String),
) -> Arc<Table> {
    if fit.layout == layout::Evidence::Exact {
        return Arc::clone(&fit.table);
    }
    let live = globals.at("runtime.waitReasonStrings");
    match live.and_then(|at| wait_reasons::read(memory, at)) {
        Some(reasons) => {
            note("wait reasons", format!("{} of them", reasons.len()), "read from the process".to_owned());
            Arc::new(Table::clone(&fit.table).with_wait_reasons(reasons))
        }
        None => Arc::clone(&fit.table),
    }
}
