//! Scan of all gs while the target is stopped, by two readers if worthwhile. Stacks of changed goroutines
//! are copied in the stop and unwound after it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::WORTH_A_SECOND;
use super::copier::Copier;
use super::glist::GList;
use crate::memory::{InStop, Memory, MemoryError, ReadCost, Span};
use crate::runtime::fields::GFields;
use crate::runtime::goroutine::{Epoch, Goroutine, status};
use crate::runtime::running::saved_start;
use crate::runtime::unwind::Start;
use crate::threads;

/// Maximum size in bytes of a copied stack. A larger one is unwound in the stop, which reads only the needed
/// words.
const MAX_COPIED: u64 = 8 << 10;
/// Number of stacks copied between two checks of the clock.
const BATCH: usize = 128;
/// Size in bytes of the buffer that is allocated before the stop.
const ROOM: usize = 512 << 10;
/// Maximum number of bytes copied by a reader. Remaining goroutines are read as time permits.
const MAX_ROOM: usize = 32 << 20;

/// Changed g: it left its epoch.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    /// Index in `allgs`.
    pub(super) index: usize,
    /// Contents in the stop; `None` if unreadable.
    pub(super) g: Option<Goroutine>,
    /// Start point of the unwinding, and the range of [`Scanned::stacks`] with the stack from there to its
    /// upper end.
    pub(super) stack: Option<(Start, Range<usize>)>,
}

/// Results of one reader.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) changed: Vec<Changed>,
    /// Pieces that were read.
    pub(super) pieces: Vec<usize>,
    /// Copied stacks.
    pub(super) stacks: Vec<u8>,
}

/// Buffers that were touched before the stop, so that the stop causes no page faults.
#[derive(Debug)]
struct Buffers {
    piece: Vec<u8>,
    stacks: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        let mut stacks = vec![1; ROOM];
        stacks.clear();
        Buffers { piece: vec![1; super::glist::PIECE], stacks }
    }
}

/// Shared input of the readers: the gs listed before the stop, and their epochs.
#[derive(Debug)]
struct Job {
    list: GList,
    pieces: Vec<Range<usize>>,
    epochs: Vec<Epoch>,
    fields: GFields,
    next: AtomicUsize,
}

impl Job {
    /// Processes piece after piece until none is left or time runs out. Then copies the stacks of changed
    /// goroutines.
    fn work(&self, memory: &dyn Memory, buffers: Buffers, deadline: Instant) -> Result<Scanned, MemoryError> {
        let Buffers { mut piece, stacks } = buffers;
        let mut scanned = Scanned { stacks, ..Scanned::default() };
        while Instant::now() <= deadline {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(runs) = self.pieces.get(index) else { break };
            self.list.read_piece(memory, runs.clone(), &mut piece, |index, addr, bytes| {
                let same = self.epochs.get(index).zip(bytes).is_some_and(|(e, b)| e.holds(&self.fields, b));
                if !same {
                    let g = bytes.map(|bytes| Goroutine::parse(&self.fields, addr, bytes));
                    scanned.changed.push(Changed { index, g, stack: None });
                }
            })?;
            scanned.pieces.push(index);
        }
        copy_stacks(memory, &mut scanned, deadline)?;
        Ok(scanned)
    }
}

fn copy_stacks(memory: &dyn Memory, scanned: &mut Scanned, deadline: Instant) -> Result<(), MemoryError> {
    let (mut spans, mut failed) = (Vec::with_capacity(BATCH), Vec::new());
    for batch in scanned.changed.chunks_mut(BATCH) {
        if Instant::now() > deadline || scanned.stacks.len() > MAX_ROOM {
            break;
        }
        spans.clear();
        failed.clear();
        let mut end = scanned.stacks.len();
        for changed in batch.iter_mut() {
            let g = changed.g.filter(|g| !g.is_dead() && g.status() != status::RUNNING);
            let start = g.and_then(|g| saved_start(&g).ok());
            if let Some(start) = start.filter(|s| s.hi.saturating_sub(s.sp) <= MAX_COPIED) {
                let len = (start.hi - start.sp) as usize;
                spans.push(Span { addr: start.sp, len });
                changed.stack = Some((start, end..end + len));
                end += len;
            }
        }
        let begin = scanned.stacks.len();
        scanned.stacks.resize(end, 0);
        let Some(room) = scanned.stacks.get_mut(begin..) else { break };
        memory.read_spans(&spans, room, &mut failed)?;
        let with_stack = batch.iter_mut().filter(|c| c.stack.is_some());
        for (i, changed) in with_stack.enumerate() {
            if failed.contains(&i) {
                changed.stack = None;
            }
        }
    }
    Ok(())
}

/// Start order for the second reader. The reader sleeps until then, so that it takes no core from the
/// target.
type Order = (Arc<Job>, Instant);
/// Results of the second reader. A stop leaves no time to wait for the end of its thread.
type ScanResult = Result<(Scanned, ReadCost), MemoryError>;

/// Preparation of a scan, done before the stop.
#[derive(Debug)]
pub(super) struct Scan {
    epochs: Vec<Epoch>,
    buffers: Buffers,
    second: Option<(Sender<Order>, Receiver<ScanResult>)>,
}

impl Scan {
    /// Prepares a scan for about as many gs as `copier` knows.
    pub(super) fn prepare(copier: &Copier<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let second = (copier.list.len() >= WORTH_A_SECOND && cores > 1)
            .then(|| Scan::second(copier.memory.another()))
            .flatten();
        Scan { epochs: copier.epochs.clone(), buffers: Buffers::new(), second }
    }

    /// Starts a second reader and waits until it is ready. Returns `None` if no thread can be started.
    fn second(memory: Box<dyn Memory>) -> Option<(Sender<Order>, Receiver<ScanResult>)> {
        let (order, ordered) = channel::<Order>();
        let (ready, is_ready) = channel();
        let (tell, found) = channel();
        let started = threads::start("scan", move || {
            memory.prepare_stop();
            let buffers = Buffers::new();
            let _nobody_waits = ready.send(());
            if let Ok((job, deadline)) = ordered.recv() {
                // The waiting thread fetches absent pages for both readers.
                let in_stop = InStop::begin(&*memory);
                let scanned = job.work(&*memory, buffers, deadline);
                drop(in_stop);
                let _nobody_waits = tell.send(scanned.map(|s| (s, memory.cost())));
            }
        });
        // The start of the thread must not compete with the target's threads for cores while they stop.
        started.ok()?;
        let _died = is_ready.recv();
        Some((order, found))
    }

    /// Binds the scan to the gs that `copier` now knows, with their present epochs.
    pub(super) fn arm(self, copier: &Copier<'_>) -> ArmedScan {
        let mut epochs = self.epochs;
        epochs.clone_from(&copier.epochs);
        let job = Job {
            pieces: copier.list.pieces(),
            list: copier.list.clone(),
            epochs,
            fields: copier.view.g.clone(),
            next: AtomicUsize::new(0),
        };
        ArmedScan { job: Arc::new(job), buffers: self.buffers, second: self.second }
    }
}

/// Scan that can start at once.
#[derive(Debug)]
pub(super) struct ArmedScan {
    job: Arc<Job>,
    buffers: Buffers,
    second: Option<(Sender<Order>, Receiver<ScanResult>)>,
}

impl ArmedScan {
    /// Starts the scan by the second reader, if there is one. The scan ends at `deadline` at the latest.
    pub(super) fn start(self, deadline: Instant) -> Scanning {
        let second = self.second.and_then(|(order, found)| {
            order.send((Arc::clone(&self.job), deadline)).ok()?;
            Some(found)
        });
        Scanning { job: self.job, buffers: self.buffers, second, deadline }
    }
}

/// Scan in progress.
#[derive(Debug)]
pub(super) struct Scanning {
    job: Arc<Job>,
    buffers: Buffers,
    second: Option<Receiver<ScanResult>>,
    deadline: Instant,
}

impl Scanning {
    /// Scans the remaining pieces, and returns the results of all readers.
    pub(super) fn finish(self, memory: &dyn Memory) -> Result<Vec<Scanned>, MemoryError> {
        let mut found = vec![self.job.work(memory, self.buffers, self.deadline)?];
        // If the second reader died, its share counts as not scanned.
        if let Some(result) = self.second.and_then(|found| found.recv().ok()) {
            let (other, its_cost) = result?;
            memory.add_cost(its_cost);
            found.push(other);
        }
        Ok(found)
    }
}
