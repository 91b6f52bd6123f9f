//! Discovery of runtime globals by their contents in memory. It is an independent check of recipes, and the
//! only way for programs of a release without recipe.

use symbols::addr::RuntimeAddr;

use super::fields::{GFields, MFields};
use super::goroutine::Goroutine;
use super::modules::Modules;
use super::plausible::{chain, is_heap_pointer, is_m, plausible_g};
use super::snapshot::glist::AllGs;
use crate::memory::Memory;

/// Maximum size of static data searched, in bytes. Data beyond are tables of constants, not runtime
/// variables.
const MAX_DATA: u64 = 64 << 20;
const MAX_GOROUTINES: u64 = 1 << 24;
/// Number of leading gs that are checked in a candidate.
const LOOK_AT: usize = 8;

/// Finds the slice `runtime.allgs` in the data of the main module. Its elements point to gs; one of the
/// first is the main goroutine, id 1.
pub fn find_allgs(memory: &dyn Memory, modules: &Modules, fields: &GFields) -> Option<AllGs> {
    let found = static_words(memory, modules, |at, words| {
        let &[ptr, len, cap, ..] = words else { return None };
        let slice = (1..=MAX_GOROUTINES).contains(&len) && len <= cap && cap <= 2 * MAX_GOROUTINES;
        if !slice || !is_heap_pointer(ptr) {
            return None;
        }
        let first = memory.bytes(RuntimeAddr(ptr), 8 * LOOK_AT.min(len as usize)).ok()?;
        let mut goids = Vec::new();
        for chunk in first.chunks_exact(8) {
            let addr = u64::from_le_bytes(chunk.try_into().ok()?);
            if !is_heap_pointer(addr) {
                return None;
            }
            let bytes = memory.bytes(RuntimeAddr(addr), fields.size).ok()?;
            let g = Goroutine::parse(fields, addr, &bytes);
            if !g.is_dead() && !plausible_g(&g, modules) {
                return None;
            }
            goids.push(g.goid);
        }
        let unique =
            goids.iter().all(|id| *id == 0 || goids.iter().filter(|other| *other == id).count() == 1);
        (goids.contains(&1) && unique).then_some(at)
    })?;
    // Without the variables `allglen` and `allgptr`, the words of the slice itself are used.
    Some(AllGs { len: RuntimeAddr(found + 8), ptr: RuntimeAddr(found) })
}

/// Maximum number of candidates: static variables that point to an m. A real program has a handful.
const MAX_CANDIDATES: usize = 256;
/// Maximum number of ms followed in the chain of each candidate.
const MAX_CHAIN: usize = 1024;

/// Finds `runtime.allm` in the data of the main module. It points to the newest m; the chain from there has
/// one m per thread.
pub fn find_allm(
    memory: &dyn Memory,
    modules: &Modules,
    fields: &MFields,
    g: &GFields,
) -> Option<RuntimeAddr> {
    let mut best: Option<(usize, u64)> = None;
    let mut candidates = 0;
    static_words(memory, modules, |at, words| -> Option<()> {
        let &[addr, ..] = words else { return None };
        if is_heap_pointer(addr) && candidates < MAX_CANDIDATES && is_m(memory, fields, g, addr) {
            candidates += 1;
            let length = chain(memory, fields, addr, MAX_CHAIN).len();
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, at));
            }
        }
        None
    });
    best.map(|(_, at)| RuntimeAddr(at))
}

/// Calls `look` for each word of the main module's static data, with its address and the word with its
/// successors (three in all). Stops when `look` returns a value.
fn static_words<T>(
    memory: &dyn Memory,
    modules: &Modules,
    mut look: impl FnMut(u64, &[u64]) -> Option<T>,
) -> Option<T> {
    let main = modules.main();
    for range in main.data.data {
        let start = main.bias.runtime(range.start);
        let size = range.end.since(range.start).unwrap_or(0).min(MAX_DATA);
        let Ok(bytes) = memory.bytes(start, usize::try_from(size).unwrap_or(0)) else { continue };
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
        for i in 0..words.len() {
            let behind = words.get(i..words.len().min(i + 3)).unwrap_or_default();
            if let Some(found) = look(start.0 + 8 * i as u64, behind) {
                return Some(found);
            }
        }
    }
    None
}
