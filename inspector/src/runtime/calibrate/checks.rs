//! Holding layouts and globals against live memory before anything is read by them. A table of another patch
//! release can be wrong in a single field without any symptom but missing data.

use crate::memory::{Memory, Span};
use crate::runtime::fields::{GFields, MFields};
use crate::runtime::goroutine::{Goroutine, M};
use crate::runtime::modules::Modules;
use crate::runtime::plausible::{chain, plausible_g};
use crate::runtime::snapshot::glist::AllGs;

/// How many gs are looked at, spread over all.
const SAMPLE: usize = 256;
/// The target runs: some gs are caught in the middle of a change.
const GOOD_ENOUGH: f64 = 0.9;

/// What a check of gs found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GCheck {
    /// gs that hold a goroutine.
    pub looked_at: usize,
    /// Of them, those in which everything fits.
    pub good: usize,
    /// gs whose number another one has too.
    pub duplicates: usize,
}

impl GCheck {
    /// Whether the layout and the address of `allgs` can be believed.
    pub fn passes(&self) -> bool {
        self.looked_at > 0 && self.duplicates == 0 && self.good as f64 >= GOOD_ENOUGH * self.looked_at as f64
    }
}

/// Checks a sample of all gs against what must hold in each.
pub fn check_gs(memory: &dyn Memory, modules: &Modules, fields: &GFields, allgs: &AllGs) -> GCheck {
    let mut check = GCheck::default();
    let Ok(addrs) = allgs.read(memory, 0) else { return check };
    let step = addrs.len().div_ceil(SAMPLE).max(1);
    let spans: Vec<Span> = addrs.iter().step_by(step).map(|&addr| Span { addr, len: fields.size }).collect();
    let (mut bytes, mut failed) = (vec![0; spans.len() * fields.size], Vec::new());
    if memory.read_spans(&spans, &mut bytes, &mut failed).is_err() {
        return check;
    }
    let mut goids = Vec::new();
    for (i, (span, bytes)) in spans.iter().zip(bytes.chunks_exact(fields.size)).enumerate() {
        if failed.contains(&i) {
            check.looked_at += 1;
            continue;
        }
        let g = Goroutine::parse(fields, span.addr, bytes);
        if g.is_dead() {
            continue;
        }
        check.looked_at += 1;
        check.good += usize::from(plausible_g(&g, modules));
        goids.push(g.goid);
    }
    goids.sort_unstable();
    check.duplicates = goids.windows(2).filter(|pair| pair[0] == pair[1]).count();
    check
}

/// What a check of ms found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MCheck {
    /// Length of the chain.
    pub ms: usize,
    /// Threads of the process that an m of the chain has.
    pub threads_found: usize,
    /// ms whose thread the process does not have: the layout is wrong, or it has just ended.
    pub strangers: usize,
    /// ms whose scheduling goroutine does not point back.
    pub broken: usize,
}

/// Follows the ms from `head`, with the target's `tids` (as its own pid namespace numbers them).
pub fn check_ms(memory: &dyn Memory, fields: &MFields, g: &GFields, head: u64, tids: &[u64]) -> MCheck {
    // A hostile process could make each of many checks long.
    let ms = chain(memory, fields, head, 2 * tids.len() + 64);
    let with_thread = || ms.iter().filter(|m| m.procid != 0);
    MCheck {
        ms: ms.len(),
        threads_found: with_thread().filter(|m| tids.contains(&m.procid)).count(),
        strangers: with_thread().filter(|m| !tids.contains(&m.procid)).count(),
        broken: broken(memory, g, &ms),
    }
}

/// How many ms have a scheduling goroutine that does not point back.
fn broken(memory: &dyn Memory, g: &GFields, ms: &[M]) -> usize {
    let spans: Vec<Span> = ms.iter().map(|m| Span { addr: m.g0.wrapping_add(g.m as u64), len: 8 }).collect();
    let (mut words, mut failed) = (vec![0; 8 * spans.len()], Vec::new());
    if memory.read_spans(&spans, &mut words, &mut failed).is_err() {
        return ms.len();
    }
    for i in failed {
        // No m is there.
        if let Some(word) = words.get_mut(8 * i..8 * i + 8) {
            word.fill(0xff);
        }
    }
    ms.iter().zip(words.chunks_exact(8)).filter(|(m, word)| **word != m.addr.to_le_bytes()).count()
}

/// Finds `m.alllink` where the table's is wrong (Go 1.24 moved it between patch releases): the offset whose
/// chain covers the most threads.
pub fn find_alllink(
    memory: &dyn Memory,
    fields: &MFields,
    g: &GFields,
    head: u64,
    tids: &[u64],
) -> Option<(MFields, MCheck)> {
    let candidates = (0..fields.size.saturating_sub(8)).step_by(8);
    let checked = candidates.filter_map(|alllink| {
        let moved = MFields { alllink, ..fields.clone() };
        let check = check_ms(memory, &moved, g, head, tids);
        (check.broken == 0 && check.strangers <= 1 && check.threads_found > 1).then_some((moved, check))
    });
    checked.max_by_key(|(_, check)| check.threads_found)
}
