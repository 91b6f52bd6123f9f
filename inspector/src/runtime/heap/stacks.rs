//! The stacks of goroutines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::memory::Memory;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::snapshot::glist::GList;
use crate::runtime::source::SourceError;
use crate::runtime::view::View;

/// Where a goroutine was started: what it runs, and the code that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Creator {
    /// The entry of its function.
    pub startpc: u64,
    /// The pc of the `go` statement; 0 for the first goroutine and the runtime's own.
    pub gopc: u64,
}

/// A goroutine with a large stack.
#[derive(Debug, Clone, Copy)]
pub struct GoroutineStack {
    /// The goroutine.
    pub g: Goroutine,
    /// Bytes of its stack.
    pub bytes: u64,
    /// Of them, those that it uses now; `None` while it runs.
    pub used: Option<u64>,
}

/// How many goroutines share a place, and what their stacks take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Goroutines.
    pub goroutines: u64,
    /// Bytes of their stacks.
    pub bytes: u64,
}

/// All stacks, counted one after another while the process runs.
#[derive(Debug, Default)]
pub struct Stacks {
    /// Of goroutines.
    pub total: Sum,
    /// Of goroutines that ended, kept for new ones.
    pub ended: Sum,
    /// The largest, the largest first.
    pub largest: Vec<GoroutineStack>,
    /// By where the goroutines were started; the largest sums first.
    pub by_creator: Vec<(Creator, Sum)>,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.goroutines += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// More places than a program has `go` statements. A process that lies has no more of our memory for it.
const MAX_CREATORS: usize = 1 << 16;

impl Stacks {
    /// Looks at each goroutine, keeping the `top` largest.
    ///
    /// # Errors
    /// Where they cannot be listed.
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
            // Of equal stacks that of the older goroutine, which comes first.
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
