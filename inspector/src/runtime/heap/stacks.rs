//! Stacks of goroutines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::memory::Memory;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::snapshot::glist::GList;
use crate::runtime::source::SourceError;
use crate::runtime::view::View;

/// Origin of a goroutine: its function, and the code that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Creator {
    /// Entry address of the goroutine's function.
    pub startpc: u64,
    /// Program counter of the `go` statement; 0 for the first goroutine and the runtime's own.
    pub gopc: u64,
}

/// Goroutine with a large stack.
#[derive(Debug, Clone, Copy)]
pub struct GoroutineStack {
    /// Goroutine that owns the stack.
    pub g: Goroutine,
    /// Size of the stack in bytes.
    pub bytes: u64,
    /// Bytes of the stack now in use; `None` while the goroutine runs.
    pub used: Option<u64>,
}

/// Number of goroutines of one place, and the total size of their stacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of goroutines.
    pub goroutines: u64,
    /// Total size of their stacks in bytes.
    pub bytes: u64,
}

/// All stacks, counted one after another while the process runs.
#[derive(Debug, Default)]
pub struct Stacks {
    /// Stacks of live goroutines.
    pub total: Sum,
    /// Stacks of ended goroutines, kept for new ones.
    pub ended: Sum,
    /// Largest stacks, in descending order.
    pub largest: Vec<GoroutineStack>,
    /// Sums by origin of the goroutines, largest first.
    pub by_creator: Vec<(Creator, Sum)>,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.goroutines += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Maximum number of origins; no program has as many `go` statements. Limits the memory that a hostile
/// process can make this reader use.
const MAX_CREATORS: usize = 1 << 16;

impl Stacks {
    /// Reads each goroutine and keeps the `top` largest stacks.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the goroutines cannot be listed.
    pub fn read(view: &View, memory: &dyn Memory, top: usize) -> Result<Self, SourceError> {
        let failed = |error| SourceError::implausible(format!("its goroutines cannot be listed: {error}"));
        let list = GList::new(view.allgs.read(memory, 0).map_err(failed)?, view.g.size);
        let mut stacks = Stacks::default();
        let mut sums: BTreeMap<Creator, Sum> = BTreeMap::new();
        let mut largest: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut kept: BTreeMap<u64, Goroutine> = BTreeMap::new();
        list.read_all(memory, &mut Vec::new(), |_, addr, bytes| {
            let Some(g) = bytes.map(|bytes| Goroutine::parse(&view.g, addr, bytes)) else { return };
            if !g.has_plausible_stack() {
                return;
            }
            let bytes = g.stack_hi - g.stack_lo;
            if g.is_dead() {
                stacks.ended.add(bytes);
                return;
            }
            stacks.total.add(bytes);
            let creator = Creator { startpc: g.startpc, gopc: g.gopc };
            if sums.len() < MAX_CREATORS || sums.contains_key(&creator) {
                sums.entry(creator).or_default().add(bytes);
            }
            if top == 0 {
                return;
            }
            // Of equal stacks, the one of the older goroutine comes first.
            largest.push(Reverse((bytes, u64::MAX - g.goid)));
            kept.insert(u64::MAX - g.goid, g);
            if largest.len() > top
                && let Some(Reverse((_, id))) = largest.pop()
            {
                kept.remove(&id);
            }
        })?;
        let sorted = largest.into_sorted_vec();
        stacks.largest = sorted
            .into_iter()
            .filter_map(|Reverse((bytes, id))| {
                let g = *kept.get(&id)?;
                let used = g.stack_contains(g.sched_sp).then(|| g.stack_hi - g.sched_sp);
                Some(GoroutineStack { g, bytes, used: used.filter(|_| g.m == 0) })
            })
            .collect();
        stacks.by_creator = sums.into_iter().collect();
        stacks.by_creator.sort_by_key(|&(creator, sum)| (Reverse(sum.bytes), creator));
        stacks.by_creator.truncate(top);
        Ok(stacks)
    }
}
