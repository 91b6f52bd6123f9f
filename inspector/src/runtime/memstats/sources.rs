//! Sources of the statistics in a process: finds them and reads all of them in as few calls as possible.

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Table};

use super::flush::{CacheFields, Caches};
use crate::arch::Machine;
use crate::memory::Memory;
use crate::runtime::batch::{Batch, Pieces, Ticket};
use crate::runtime::locate::Located;
use crate::runtime::procs::{P, Procs};
use crate::runtime::source::SourceError;
use crate::runtime::spans::SpanFields;
use crate::runtime::view::View;

const WANTED: &[&str] = &[
    "runtime.memstats",
    "runtime.gcController",
    "runtime.mheap_",
    Procs::WANTED[0],
    Procs::WANTED[1],
    "runtime.gcphase",
    "runtime.work",
    "runtime.sweep",
];

/// Fields of `runtime.mheap_`, each read separately because the whole struct is large.
#[derive(Debug, Clone, Copy)]
struct HeapFields {
    lock: Field,
    sweepgen: Field,
    spans: Field,
    spans_len: Field,
    arenas: Field,
    span_size: Field,
    span_in_use: Field,
    cache_size: Field,
    cache_in_use: Field,
}

/// Addresses and layouts of a process, known before its statistics are read.
#[derive(Debug)]
pub struct Sources {
    pub(super) machine: &'static dyn Machine,
    pub(crate) found: Located,
    pub(crate) memstats: RuntimeAddr,
    controller: RuntimeAddr,
    heap: RuntimeAddr,
    procs: Procs,
    memstats_size: usize,
    controller_size: usize,
    gen_field: Field,
    heap_fields: HeapFields,
    pub(super) spans: SpanFields,
    pub(super) caches: CacheFields,
    work_size: Option<usize>,
    sweep_state: Option<Field>,
    cache_size: u64,
}

fn size_of(table: &Table, name: &'static str, most: u64) -> Result<usize, SourceError> {
    let size = table.size(name).filter(|size| (1..=most).contains(size));
    size.and_then(|size| usize::try_from(size).ok()).ok_or(SourceError::Layout(name))
}

/// Maximum size in bytes of a struct that is read whole.
const MAX_SIZE: u64 = 1 << 20;

impl Sources {
    /// Finds the variables and fields that make up the statistics.
    ///
    /// # Errors
    /// Returns a [`SourceError`] that names the missing variable or layout.
    pub fn find(view: &View) -> Result<Self, SourceError> {
        view.confirm_layouts()?;
        let found = view.locate(WANTED);
        let at = |name: &'static str| found.at(name).ok_or(SourceError::Missing(name));
        let table = &view.table;
        let field = |of: &'static str, name: &str| table.field(of, name).ok_or(SourceError::Layout(of));
        let heap = |name| field("runtime.mheap", name);
        let sources = Sources {
            machine: view.machine,
            memstats: at("runtime.memstats")?,
            controller: at("runtime.gcController")?,
            heap: at("runtime.mheap_")?,
            procs: Procs::find(&found, table)?,
            memstats_size: size_of(table, "runtime.mstats", MAX_SIZE)?,
            controller_size: size_of(table, "runtime.gcControllerState", MAX_SIZE)?,
            gen_field: field("runtime.mstats", "heapStats.gen")?,
            heap_fields: HeapFields {
                lock: heap("lock.key")?,
                sweepgen: heap("sweepgen")?,
                spans: heap("allspans.array")?,
                spans_len: heap("allspans.len")?,
                arenas: heap("arenas")?,
                span_size: heap("spanalloc.size")?,
                span_in_use: heap("spanalloc.inuse")?,
                cache_size: heap("cachealloc.size")?,
                cache_in_use: heap("cachealloc.inuse")?,
            },
            spans: SpanFields::from_table(table).ok_or(SourceError::Layout("runtime.mspan"))?,
            caches: CacheFields::from_table(table).ok_or(SourceError::Layout("runtime.mcache"))?,
            work_size: size_of(table, "runtime.work", MAX_SIZE).ok(),
            sweep_state: table.field("runtime.sweep", "active.state"),
            cache_size: table.size("runtime.mcache").unwrap_or(0),
            found,
        };
        Ok(sources)
    }
}

/// All bytes that make up the statistics, read at one time.
#[derive(Debug)]
pub struct Raw {
    pub(crate) memstats: Vec<u8>,
    pub(crate) controller: Vec<u8>,
    pub(crate) work: Option<Vec<u8>>,
    pub(crate) gcphase: Option<u64>,
    pub(crate) sweep_state: Option<u64>,
    pub(crate) procs: Vec<P>,
    pub(crate) heap: Heap,
    pub(super) caches: Caches,
    /// Values of `heapStats.gen` before and after everything else was read.
    pub(super) generations: (u64, u64),
}

/// Words of `runtime.mheap_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Heap {
    /// Lock word. Not 0: a thread was changing the heap.
    pub(crate) lock: u64,
    pub(crate) sweepgen: u32,
    pub(crate) arenas: u64,
    pub(crate) span_in_use: u64,
    pub(crate) cache_in_use: u64,
}

struct HeapTickets {
    fields: [Ticket; 7],
}

impl HeapTickets {
    fn add(batch: &mut Batch, at: RuntimeAddr, f: &HeapFields) -> Self {
        // `arenas` is an array of one pointer on this machine.
        let arenas = Field { size: 8, ..f.arenas };
        let all = [f.lock, f.sweepgen, arenas, f.span_size, f.span_in_use, f.cache_size, f.cache_in_use];
        HeapTickets { fields: all.map(|field| batch.field(at, field)) }
    }

    fn read(&self, pieces: &Pieces, sources: &Sources) -> Result<Heap, SourceError> {
        let unreadable = || SourceError::implausible("the heap's head cannot be read");
        let mut numbers = [0; 7];
        for (number, &ticket) in numbers.iter_mut().zip(&self.fields) {
            *number = pieces.number(ticket).ok_or_else(unreadable)?;
        }
        let [lock, sweepgen, arenas, span_size, span_in_use, cache_size, cache_in_use] = numbers;
        // The allocators of spans and caches store the sizes of both structs.
        if span_size != sources.spans.size as u64 || cache_size != sources.cache_size {
            return Err(SourceError::Implausible(format!(
                "its heap has spans of {span_size} and caches of {cache_size} bytes, where {} and {} are known",
                sources.spans.size, sources.cache_size,
            )));
        }
        let sweepgen = u32::try_from(sweepgen).unwrap_or(0);
        Ok(Heap { lock, sweepgen, arenas, span_in_use, cache_in_use })
    }
}

impl Sources {
    /// Field offsets of a span.
    pub(crate) fn span_fields(&self) -> &SpanFields {
        &self.spans
    }

    /// Reads the address of the array of all spans, and its length.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the array's head cannot be read.
    pub(crate) fn all_spans(&self, memory: &dyn Memory) -> Result<(u64, u64), SourceError> {
        let mut batch = Batch::default();
        let array = batch.field(self.heap, self.heap_fields.spans);
        let len = batch.field(self.heap, self.heap_fields.spans_len);
        let pieces = batch.read(memory)?;
        let unreadable = || SourceError::implausible("the list of its spans cannot be read");
        pieces.number(array).zip(pieces.number(len)).ok_or_else(unreadable)
    }

    /// Reads everything. The rest of the computation does not need the process, which may run on.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if memory cannot be read or holds implausible values.
    pub fn read(&self, memory: &dyn Memory) -> Result<Raw, SourceError> {
        let mut batch = Batch::default();
        let generation = batch.field(self.memstats, self.gen_field);
        let memstats = batch.add(self.memstats, self.memstats_size);
        let controller = batch.add(self.controller, self.controller_size);
        let heap = HeapTickets::add(&mut batch, self.heap, &self.heap_fields);
        let optional = |batch: &mut Batch, name: &str, len| self.found.at(name).map(|at| batch.add(at, len));
        let gcphase = optional(&mut batch, "runtime.gcphase", 4);
        let work = self.work_size.and_then(|len| optional(&mut batch, "runtime.work", len));
        let sweep = self.sweep_state.zip(self.found.at("runtime.sweep"));
        let sweep = sweep.map(|(field, at)| batch.field(at, field));
        let pieces = batch.read(memory)?;
        let unreadable = |what: &str| SourceError::implausible(format!("{what} cannot be read"));
        let procs = self.procs.read(memory)?;
        let heap = heap.read(&pieces, self)?;
        let number = |ticket: Option<Ticket>| ticket.and_then(|t| pieces.number(t));
        let bytes = |ticket: Option<Ticket>| ticket.and_then(|t| pieces.get(t)).map(<[u8]>::to_vec);
        let caches: Vec<u64> = procs.iter().map(|p| p.mcache).filter(|&cache| cache != 0).collect();
        let caches = Caches::read(memory, self, &heap, &caches)?;
        let mut after = Batch::default();
        let last = after.field(self.memstats, self.gen_field);
        let after = after.read(memory)?;
        Ok(Raw {
            generations: (pieces.number(generation).unwrap_or(0), after.number(last).unwrap_or(0)),
            memstats: bytes(Some(memstats)).ok_or_else(|| unreadable("memstats"))?,
            controller: bytes(Some(controller)).ok_or_else(|| unreadable("gcController"))?,
            work: bytes(work),
            gcphase: number(gcphase).filter(|&phase| phase <= 2),
            sweep_state: number(sweep),
            procs,
            heap,
            caches,
        })
    }
}
