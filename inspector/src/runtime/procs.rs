//! Ps of the runtime (`runtime.allp`). Each P runs Go code on one thread.

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Table};

use super::batch::{Batch, Ticket, unsigned};
use super::locate::Located;
use super::source::SourceError;
use crate::memory::Memory;

/// Maximum number of Ps, more than any machine has CPUs.
const MAX_PROCS: u64 = 4096;

/// Value of `p.status` for an idle P (`_Pidle`).
const IDLE: u64 = 0;
/// Largest value of `p.status` (`_Pdead`).
const LAST_STATUS: u64 = 4;

/// State of a P.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct P {
    /// Value of `p.status`: 0 idle, 1 running, 2 in a system call, 3 stopped by the collector, 4 unused.
    pub status: u64,
    /// Address of the P's cache of spans and stacks; 0 if it has none.
    pub mcache: u64,
    /// Sequence number of the heap counters, odd during a change by this P.
    pub stats_seq: u64,
    /// Number of unused gs cached by the P.
    pub free_gs: u64,
}

impl P {
    /// Returns true if the P is idle.
    pub fn is_idle(&self) -> bool {
        self.status == IDLE
    }
}

/// Addresses of the Ps, and field offsets in a P.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Procs {
    allp: RuntimeAddr,
    gomaxprocs: RuntimeAddr,
    /// Fields: id, status, mcache, statsSeq, `gFree.n` (from Go 1.25 `gFree.size`).
    fields: [Field; 5],
}

impl Procs {
    /// Variables that must be located.
    pub(crate) const WANTED: [&str; 2] = ["runtime.allp", "runtime.gomaxprocs"];

    /// Selects the variables and fields from `found` and `table`.
    ///
    /// # Errors
    /// Returns a [`SourceError`] that names the missing variable or layout.
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

    /// Returns the maximum number of Ps so far. The list keeps its capacity when GOMAXPROCS is lowered.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the number cannot be read.
    pub(crate) fn most(&self, memory: &dyn Memory) -> Result<u64, SourceError> {
        Ok(memory.word(self.allp.plus(16))?)
    }

    /// Reads the Ps, as many as GOMAXPROCS. Each P stores its own index in the list, which is verified.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the Ps cannot be read or are implausible.
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
