//! Checks of layouts and globals against live memory, before anything is read with them. A table of another
//! patch release can be wrong in a single field, with missing data as the only symptom.

use crate::memory::{Memory, Span};
use crate::runtime::fields::{GFields, MFields};
use crate::runtime::goroutine::{Goroutine, M};
use crate::runtime::modules::Modules;
use crate::runtime::plausible::{chain, plausible_g};
use crate::runtime::snapshot::glist::AllGs;

/// Maximum number of gs checked, spread over all gs.
const SAMPLE: usize = 256;
/// Fraction of plausible gs that suffices. The target runs, so some gs are caught in the middle of a change.
const GOOD_ENOUGH: f64 = 0.9;

/// Result of a check of gs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GCheck {
    /// Number of checked gs that hold a goroutine.
    pub looked_at: usize,
    /// Number of checked gs with plausible values in all fields.
    pub good: usize,
    /// Number of gs with the goroutine id of another g.
    pub duplicates: usize,
}

impl GCheck {
    /// Returns true if the layout and the address of `allgs` are credible.
    pub fn passes(&self) -> bool {
        self.looked_at > 0 && self.duplicates == 0 && self.good as f64 >= GOOD_ENOUGH * self.looked_at as f64
    }
}

/// Checks a sample of all gs against conditions that hold in each g.
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

/// Result of a check of ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MCheck {
    /// Length of the chain of ms.
    pub ms: usize,
    /// Number of ms in the chain with a thread of the process.
    pub threads_found: usize,
    /// Number of ms with a thread that the process does not have. Either the layout is wrong, or the thread
    /// has just ended.
    pub strangers: usize,
    /// Number of ms with a scheduling goroutine (g0) that does not point back to the m.
    pub broken: usize,
}

/// Follows the chain of ms from `head` and compares it with the thread ids `tids`. The ids are those of the
/// target's own pid namespace.
pub fn check_ms(memory: &dyn Memory, fields: &MFields, g: &GFields, head: u64, tids: &[u64]) -> MCheck {
    // A hostile process could make each of many checks long, so the chain is limited.
    let ms = chain(memory, fields, head, 2 * tids.len() + 64);
    let with_thread = || ms.iter().filter(|m| m.procid != 0);
    MCheck {
        ms: ms.len(),
        threads_found: with_thread().filter(|m| tids.contains(&m.procid)).count(),
        strangers: with_thread().filter(|m| !tids.contains(&m.procid)).count(),
        broken: broken(memory, g, &ms),
    }
}

/// Counts the ms with a scheduling goroutine (g0) that does not point back to the m.
fn broken(memory: &dyn Memory, g: &GFields, ms: &[M]) -> usize {
    let spans: Vec<Span> = ms.iter().map(|m| Span { addr: m.g0.wrapping_add(g.m as u64), len: 8 }).collect();
    let (mut words, mut failed) = (vec![0; 8 * spans.len()], Vec::new());
    if memory.read_spans(&spans, &mut words, &mut failed).is_err() {
        return ms.len();
    }
    for i in failed {
        // An unreadable word counts as broken: no m has this address.
        if let Some(word) = words.get_mut(8 * i..8 * i + 8) {
            word.fill(0xff);
        }
    }
    ms.iter().zip(words.chunks_exact(8)).filter(|(m, word)| **word != m.addr.to_le_bytes()).count()
}

/// Finds the offset of `m.alllink` if the table's offset is wrong (Go 1.24 moved the field between patch
/// releases). Selects the offset with the chain that covers the most threads.
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
