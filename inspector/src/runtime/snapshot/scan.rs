//! Looking at all gs while the target is stopped, by two readers where that pays. Of those that changed, the stacks are
//! copied in the stop, and walked when it is over.

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

/// A larger stack is left to be walked in the stop, which reads only the words that it needs.
const MAX_COPIED: u64 = 8 << 10;
/// Stacks copied between two looks at the clock.
const BATCH: usize = 128;
/// Room for copies that is made before the stop.
const ROOM: usize = 512 << 10;
/// No more is copied by a reader: what remains is read as there is time.
const MAX_ROOM: usize = 32 << 20;

/// A g that left its epoch.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    /// Its index in `allgs`.
    pub(super) index: usize,
    /// As it is in the stop; `None` where it could not be read.
    pub(super) g: Option<Goroutine>,
    /// Where its walk begins, and which of [`Scanned::stacks`] are its stack from there to its upper end.
    pub(super) stack: Option<(Start, Range<usize>)>,
}

/// What one reader found.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) changed: Vec<Changed>,
    /// Pieces that were looked at.
    pub(super) pieces: Vec<usize>,
    /// Copied stacks.
    pub(super) stacks: Vec<u8>,
}

/// Memory to work with that was touched before the stop, so that no page of it has to be found in it.
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

/// What the readers share: the gs as they were listed before the stop, and their epochs.
#[derive(Debug)]
struct Job {
    list: GList,
    pieces: Vec<Range<usize>>,
    epochs: Vec<Epoch>,
    fields: GFields,
    next: AtomicUsize,
}

impl Job {
    /// Takes piece after piece until there is none left, or no time; then copies the stacks of what had changed.
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

/// What the second reader is told: it sleeps until then, so that it takes no core from the target before.
type Order = (Arc<Job>, Instant);
/// What it found. Its end is not waited for, for which there is no time in a stop.
type ScanResult = Result<(Scanned, ReadCost), MemoryError>;

/// What takes time to prepare for a look at all gs.
#[derive(Debug)]
pub(super) struct Scan {
    epochs: Vec<Epoch>,
    buffers: Buffers,
    second: Option<(Sender<Order>, Receiver<ScanResult>)>,
}

impl Scan {
    /// Prepares for about as many gs as `copier` knows.
    pub(super) fn prepare(copier: &Copier<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let second = (copier.list.len() >= WORTH_A_SECOND && cores > 1)
            .then(|| Scan::second(copier.memory.another()))
            .flatten();
        Scan { epochs: copier.epochs.clone(), buffers: Buffers::new(), second }
    }

    /// A second reader that is ready, where there is a thread for it.
    fn second(memory: Box<dyn Memory>) -> Option<(Sender<Order>, Receiver<ScanResult>)> {
        let (order, ordered) = channel::<Order>();
        let (ready, is_ready) = channel();
        let (tell, found) = channel();
        let started = threads::start("scan", move || {
            memory.prepare_stop();
            let buffers = Buffers::new();
            let _nobody_waits = ready.send(());
            if let Ok((job, deadline)) = ordered.recv() {
                // What it misses is looked for by who waits for it.
                let in_stop = InStop::begin(&*memory);
                let scanned = job.work(&*memory, buffers, deadline);
                drop(in_stop);
                let _nobody_waits = tell.send(scanned.map(|s| (s, memory.cost())));
            }
        });
        // Its start must not compete with the target's threads for the cores on which they stop.
        started.ok()?;
        let _died = is_ready.recv();
        Some((order, found))
    }

    /// Is for the gs that `copier` knows now, as it knows them now.
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

/// A look at all gs that can begin at once.
#[derive(Debug)]
pub(super) struct ArmedScan {
    job: Arc<Job>,
    buffers: Buffers,
    second: Option<(Sender<Order>, Receiver<ScanResult>)>,
}

impl ArmedScan {
    /// Begins, until `deadline` at the latest, by the second reader where there is one.
    pub(super) fn start(self, deadline: Instant) -> Scanning {
        let second = self.second.and_then(|(order, found)| {
            order.send((Arc::clone(&self.job), deadline)).ok()?;
            Some(found)
        });
        Scanning { job: self.job, buffers: self.buffers, second, deadline }
    }
}

/// A look at all gs that has begun.
#[derive(Debug)]
pub(super) struct Scanning {
    job: Arc<Job>,
    buffers: Buffers,
    second: Option<Receiver<ScanResult>>,
    deadline: Instant,
}

impl Scanning {
    /// Looks at what is left, and returns what each reader found.
    pub(super) fn finish(self, memory: &dyn Memory) -> Result<Vec<Scanned>, MemoryError> {
        let mut found = vec![self.job.work(memory, self.buffers, self.deadline)?];
        // Where the other one died, its share counts as not looked at.
        if let Some(result) = self.second.and_then(|found| found.recv().ok()) {
            let (other, its_cost) = result?;
            memory.add_cost(its_cost);
            found.push(other);
        }
        Ok(found)
    }
}
