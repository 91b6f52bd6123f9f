//! `runtime.allp`: the Ps, each of which runs Go code on one thread.

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Table};

use super::batch::{Batch, Ticket, unsigned};
use super::locate::Located;
use super::source::SourceError;
use crate::memory::Memory;

/// More Ps than any machine has CPUs.
const MAX_PROCS: u64 = 4096;

/// `p.status` of a P that has nothing to do (`_Pidle`).
const IDLE: u64 = 0;
/// The last status that there is (`_Pdead`).
const LAST_STATUS: u64 = 4;

/// What a P says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct P {
    /// `p.status`: 0 idle, 1 running, 2 in a system call, 3 stopped by the collector, 4 unused.
    pub status: u64,
    /// Its cache of spans and stacks; 0 for one that has none.
    pub mcache: u64,
    /// Odd while it changes the counters of the heap.
    pub stats_seq: u64,
    /// Unused gs that it keeps.
    pub free_gs: u64,
}

impl P {
    /// Whether it has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.status == IDLE
    }
}

/// Where the Ps are, and what is where in one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Procs {
    allp: RuntimeAddr,
    gomaxprocs: RuntimeAddr,
    /// id, status, mcache, statsSeq, `gFree.n` (from Go 1.25 `gFree.size`).
    fields: [Field; 5],
}

impl Procs {
    /// The variables that are needed.
    pub(crate) const WANTED: [&str; 2] = ["runtime.allp", "runtime.gomaxprocs"];

    /// Takes them from what was found.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn find(found: &Located, table: &Table) -> Result<Self, SourceError> {
        let at = |name: &'static str| found.at(name).ok_or(SourceError::Missing(name));
        let field = |name| table.field("runtime.p", name);
        let fields = || {
            let free = field("gFree.n").or_else(|| field("gFree.size"))?;
            Some([field("id")?, field("status")?, field("mcache")?, field("statsSeq")?, free])
        };
        Ok(Procs {
            allp: at("runtime.allp")?,
            gomaxprocs: at("runtime.gomaxprocs")?,
            fields: fields().ok_or(SourceError::Layout("runtime.p"))?,
        })
    }

    /// How many Ps there have been at most: the list keeps its room when GOMAXPROCS is lowered.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn most(&self, memory: &dyn Memory) -> Result<u64, SourceError> {
        Ok(memory.word(self.allp.plus(16))?)
    }

    /// The Ps, each of which knows its own place in the list. There are as many as GOMAXPROCS says.
    ///
    /// # Errors
    /// Where they cannot be read, or are none.
    pub(crate) fn read(&self, memory: &dyn Memory) -> Result<Vec<P>, SourceError> {
        let mut batch = Batch::default();
        let slice = batch.add(self.allp, 16);
        let gomaxprocs = batch.add(self.gomaxprocs, 4);
        let pieces = batch.read(memory)?;
        let slice = pieces.get(slice).unwrap_or_default();
        let word = |at: usize| slice.get(at..at + 8).and_then(unsigned).unwrap_or(0);
        let (array, len) = (word(0), word(8));
        let gomaxprocs = pieces.number(gomaxprocs).unwrap_or(0);
        if !(1..=MAX_PROCS).contains(&len) || gomaxprocs != len {
            let what = format!("gomaxprocs is {gomaxprocs}, and there are {len} Ps");
            return Err(SourceError::Implausible(what));
        }
        let mut batch = Batch::default();
        let pointers = batch.add(RuntimeAddr(array), 8 * usize::try_from(len).unwrap_or_default());
        let pieces = batch.read(memory)?;
        let pointers = pieces.get(pointers).unwrap_or_default().chunks_exact(8).filter_map(unsigned);
        let mut batch = Batch::default();
        let tickets: Vec<[Ticket; 5]> =
            pointers.map(|p| self.fields.map(|field| batch.field(RuntimeAddr(p), field))).collect();
        let pieces = batch.read(memory)?;
        let one = |(index, tickets): (usize, &[Ticket; 5])| {
            let [id, status, mcache, stats_seq, free_gs] = tickets.map(|t| pieces.number(t));
            let status = status?;
            let fits = id? == index as u64 && status <= LAST_STATUS;
            fits.then_some(P { status, mcache: mcache?, stats_seq: stats_seq?, free_gs: free_gs? })
        };
        let procs: Option<Vec<P>> = tickets.iter().enumerate().map(one).collect();
        procs
            .filter(|procs| procs.len() as u64 == len)
            .ok_or_else(|| SourceError::implausible("one of its Ps is none"))
    }
}
