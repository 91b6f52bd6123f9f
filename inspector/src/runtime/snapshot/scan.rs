//! Looking at all gs while the target is stopped, by two readers where that pays.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::copier::Copier;
use super::glist::GList;
use crate::memory::{LiveMemory, MemoryError, ReadCost};
use crate::runtime::fields::GFields;
use crate::runtime::goroutine::Epoch;

/// Below this, waking the second reader takes longer than what it saves.
const WORTH_A_SECOND: usize = 3000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// gs that left their epoch.
    pub(super) changed: Vec<usize>,
    /// Pieces that were looked at.
    pub(super) pieces: Vec<usize>,
}

/// What the readers share: the gs as they were listed before the stop, and their epochs.
#[derive(Debug)]
struct Job {
    list: GList,
    pieces: Vec<Range<usize>>,
    epochs: Vec<Epoch>,
    fields: GFields,
    pid: i32,
    next: AtomicUsize,
}

impl Job {
    /// Takes piece after piece until there is none left, or no time.
    fn work(
        &self,
        memory: &LiveMemory,
        buffer: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<Scanned, MemoryError> {
        let mut scanned = Scanned::default();
        while Instant::now() <= deadline {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(index) else { break };
            self.list.read_piece(memory, piece.clone(), buffer, |g, _, bytes| {
                let same = self.epochs.get(g).zip(bytes).is_some_and(|(e, b)| e.holds(&self.fields, b));
                if !same {
                    scanned.changed.push(g);
                }
            })?;
            scanned.pieces.push(index);
        }
        Ok(scanned)
    }
}

/// The second reader: it sleeps until it is told a deadline, so that it takes no core from the target before.
#[derive(Debug)]
struct Second {
    start: Sender<Instant>,
    /// Its end is not waited for, for which there is no time in a stop.
    found: Receiver<Result<(Scanned, ReadCost), MemoryError>>,
}

/// A prepared look at all gs.
#[derive(Debug)]
pub(super) struct Scan {
    job: Arc<Job>,
    second: Option<Second>,
}

impl Scan {
    /// Prepares for the gs that `copier` knows, as it knows them.
    pub(super) fn prepare(copier: &Copier<'_>) -> Self {
        let job = Arc::new(Job {
            pieces: copier.list.pieces(),
            list: copier.list.clone(),
            epochs: copier.epochs.clone(),
            fields: copier.view.g.clone(),
            pid: copier.view.pid,
            next: AtomicUsize::new(0),
        });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let second = (copier.list.len() >= WORTH_A_SECOND && cores > 1).then(|| {
            let (start, told) = channel();
            let (ready, is_ready) = channel();
            let (tell, found) = channel();
            let job = Arc::clone(&job);
            std::thread::spawn(move || {
                let memory = LiveMemory::new(job.pid);
                // Touched now, so that no page of it has to be found in the stop.
                let mut buffer = vec![1; super::glist::PIECE];
                let _nobody_waits = ready.send(());
                if let Ok(deadline) = told.recv() {
                    let scanned = job.work(&memory, &mut buffer, deadline);
                    let _nobody_waits = tell.send(scanned.map(|s| (s, memory.cost())));
                }
            });
            // Its start must not compete with the target's threads for the cores on which they stop.
            let _died = is_ready.recv();
            Second { start, found }
        });
        Scan { job, second }
    }

    /// Begins to look at all gs, until `deadline` at the latest, by the second reader where there is one.
    pub(super) fn start(self, deadline: Instant) -> Scanning {
        let second = self.second.and_then(|Second { start, found }| {
            start.send(deadline).ok()?;
            Some(found)
        });
        Scanning { job: self.job, second, deadline }
    }
}

/// A look at all gs that has begun.
#[derive(Debug)]
pub(super) struct Scanning {
    job: Arc<Job>,
    second: Option<Receiver<Result<(Scanned, ReadCost), MemoryError>>>,
    deadline: Instant,
}

impl Scanning {
    /// Looks at what is left, and returns what was found.
    pub(super) fn finish(self, memory: &LiveMemory, buffer: &mut Vec<u8>) -> Result<Scanned, MemoryError> {
        let mut scanned = self.job.work(memory, buffer, self.deadline)?;
        // Where the other one died, its share counts as not looked at.
        if let Some(result) = self.second.and_then(|found| found.recv().ok()) {
            let (other, its_cost) = result?;
            scanned.changed.extend(other.changed);
            scanned.pieces.extend(other.pieces);
            memory.add_cost(its_cost);
        }
        Ok(scanned)
    }
}
