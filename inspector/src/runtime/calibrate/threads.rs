//! List of ms, verified against the threads of the process.

use symbols::addr::RuntimeAddr;

use super::checks::{MCheck, check_ms, find_alllink};
use crate::memory::Memory;
use crate::runtime::discover;
use crate::runtime::fields::{GFields, MFields};
use crate::runtime::locate::Located;
use crate::runtime::modules::Modules;

/// Maximum number of comparisons between the list of ms and the list of threads.
const CHECKS: u32 = 4;

/// Finds the list of ms, and corrects `m.alllink` if the table is wrong.
pub(crate) fn find_ms(
    memory: &dyn Memory,
    modules: &Modules,
    m: &mut MFields,
    g: &GFields,
    globals: &Located,
    threads: &dyn Fn() -> Vec<u64>,
    note: &mut impl FnMut(&str, String, String),
) -> Option<RuntimeAddr> {
    let by_name = globals.at("runtime.allm").map(|at| (at, globals.how("runtime.allm")));
    let table_m = m.clone();
    let by_looks =
        || Some((discover::find_allm(memory, modules, &table_m, g)?, String::from("found by its contents")));
    for (at, how) in by_name.into_iter().chain(std::iter::once_with(by_looks).flatten()) {
        // A thread created by C has an m only while it runs Go code.
        let covers = |check: &MCheck| check.broken == 0 && check.strangers <= 1 + check.ms / 8;
        // Threads start and end between the two lists. Programs that have just started create many at a
        // time.
        let Some((head, tids, mut check)) = (0..CHECKS).find_map(|i| {
            let head = memory.word(at).ok()?;
            let tids = threads();
            let check = check_ms(memory, m, g, head, &tids);
            (covers(&check) || i + 1 == CHECKS).then_some((head, tids, check))
        }) else {
            continue;
        };
        if (!covers(&check) || (check.threads_found < 2 && tids.len() > 2))
            && let Some((moved, better)) = find_alllink(memory, m, g, head, &tids)
        {
            note(
                "m.alllink",
                moved.alllink.to_string(),
                "calibrated: the table's offset does not lead to the threads".to_owned(),
            );
            *m = moved;
            check = better;
        }
        if check.threads_found > 0 && covers(&check) {
            note(
                "allm",
                at.to_string(),
                format!("{how}; its {} ms have {} of {} threads", check.ms, check.threads_found, tids.len()),
            );
            return Some(at);
        }
    }
    None
}
