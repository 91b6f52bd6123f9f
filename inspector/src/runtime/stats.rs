//! Numbers of goroutines, Ps and threads, read while the process runs.

use std::collections::BTreeMap;

use symbols::layout::Table;

use super::batch::{Batch, Ticket};
use super::code::AddressMap;
use super::goroutine::Goroutine;
use super::histogram::Histogram;
use super::locate::Located;
use super::memstats::phase_name;
use super::procs::Procs;
use super::snapshot::glist::GList;
use super::source::SourceError;
use super::view::View;
use crate::memory::Memory;

/// The four numbers of gops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// `runtime.NumGoroutine()`.
    pub goroutines: u64,
    /// The count of the profile `threadcreate`: threads that the runtime has created and not forgotten.
    pub threads: u64,
    /// GOMAXPROCS.
    pub gomaxprocs: u64,
    /// `runtime.NumCPU()`: CPUs that the process could use when it began.
    pub num_cpu: Option<u64>,
    /// Goroutines of the runtime itself, which the first number leaves out.
    pub system_goroutines: u64,
    /// Ps that have nothing to do.
    pub idle_procs: u64,
    /// All gs, with a goroutine or without.
    pub gs: u64,
    /// Of them, those that are kept for later.
    pub free_gs: u64,
    /// As many Ps as there are, or were before GOMAXPROCS was lowered.
    pub most_procs: u64,
}

/// What else can be counted. What a release does not have, or could not be found, is absent.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Goroutines of the program by status and wait reason, as numbered in the runtime. Not of one instant.
    pub states: BTreeMap<(u32, u8), u64>,
    /// `off`, `mark` or `mark termination`.
    pub phase: Option<&'static str>,
    /// Collections that began.
    pub cycles: Option<u64>,
    /// See there.
    pub histograms: Histograms,
}

/// Distributions that the runtime keeps since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Histograms {
    /// How long goroutines waited for a P when they could run (`/sched/latencies:seconds`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_latency: Option<Histogram>,
    /// How long the world stood still for the collector (`/gc/pauses:seconds`, from Go 1.22
    /// `/sched/pauses/total/gc:seconds`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_pause: Option<Histogram>,
    /// How long it took until it did (`/sched/pauses/stopping/gc:seconds`, from Go 1.22).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_stopping: Option<Histogram>,
    /// The same for other reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_pause: Option<Histogram>,
    /// Until it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_stopping: Option<Histogram>,
}

const WANTED: &[&str] = &[
    Procs::WANTED[0],
    Procs::WANTED[1],
    "runtime.sched",
    "runtime.ncpu",
    "runtime.numCPUStartup",
    "runtime.gcphase",
    "runtime.work",
    "runtime.memstats",
];

/// Larger than each struct that is read whole.
const MAX_SIZE: u64 = 1 << 20;

/// Where all of it is in a process.
#[derive(Debug)]
pub struct Counters<'v> {
    view: &'v View,
    found: Located,
    procs: Procs,
}

impl<'v> Counters<'v> {
    /// Finds the variables.
    ///
    /// # Errors
    /// What is missing.
    pub fn find(view: &'v View) -> Result<Self, SourceError> {
        view.confirm_layouts()?;
        let found = view.locate(WANTED);
        let procs = Procs::find(&found, &view.table)?;
        Ok(Counters { view, found, procs })
    }

    /// Reads gops' numbers.
    ///
    /// # Errors
    /// Where they cannot be read, or not be what they should.
    pub fn read(&self, memory: &dyn Memory) -> Result<Stats, SourceError> {
        let table = &self.view.table;
        // By the table of another minor release it is not found, as its fields may have moved.
        let Some(sched) = self.found.at("runtime.sched") else { return self.counted(memory) };
        let field = |name| table.field("runtime.sched", name);
        let free: Vec<_> = match (field("gFree.n"), field("gFree.stack.size"), field("gFree.noStack.size")) {
            (Some(n), ..) => vec![n],
            (None, Some(with), Some(without)) => vec![with, without],
            _ => return Err(SourceError::Layout("runtime.sched")),
        };
        let system = field("ngsys").ok_or(SourceError::Layout("runtime.sched"))?;
        let mut batch = Batch::default();
        let allglen = batch.add(self.view.allgs.len, 8);
        let free: Vec<Ticket> = free.into_iter().map(|field| batch.field(sched, field)).collect();
        let system = batch.field(sched, system);
        let cpus = ["runtime.numCPUStartup", "runtime.ncpu"].iter().find_map(|name| self.found.at(name));
        let cpus = cpus.map(|at| batch.add(at, 4));
        let pieces = batch.read(memory)?;
        let procs = self.procs.read(memory)?;
        let number = |ticket| pieces.number(ticket).unwrap_or(0);
        let free: u64 = free.into_iter().map(number).fold(0, u64::saturating_add);
        let kept = procs.iter().map(|p| p.free_gs).fold(free, u64::saturating_add);
        let (all, system) = (number(allglen), number(system));
        let threads = self.threads(memory)?;
        Ok(Stats {
            goroutines: all.saturating_sub(kept).saturating_sub(system).max(1),
            threads,
            gomaxprocs: procs.len() as u64,
            num_cpu: cpus.and_then(|t| pieces.number(t)).filter(|n| (1..=1 << 16).contains(n)),
            system_goroutines: system,
            idle_procs: procs.iter().filter(|p| p.is_idle()).count() as u64,
            gs: all,
            free_gs: kept,
            most_procs: self.procs.most(memory)?.max(procs.len() as u64),
        })
    }

    fn threads(&self, memory: &dyn Memory) -> Result<u64, SourceError> {
        self.view.allm.ok_or(SourceError::Missing("runtime.allm"))?;
        Ok(self.view.read_ms(memory).len() as u64)
    }

    /// The same numbers without what the scheduler counts: each goroutine is looked at.
    fn counted(&self, memory: &dyn Memory) -> Result<Stats, SourceError> {
        let procs = self.procs.read(memory)?;
        let (mut goroutines, mut system_goroutines) = (0u64, 0u64);
        self.each_goroutine(memory, When::Created, |_, system| {
            *(if system { &mut system_goroutines } else { &mut goroutines }) += 1;
        })?;
        let mut batch = Batch::default();
        let cpus = ["runtime.numCPUStartup", "runtime.ncpu"].iter().find_map(|name| self.found.at(name));
        let cpus = cpus.map(|at| batch.add(at, 4));
        let allglen = batch.add(self.view.allgs.len, 8);
        let pieces = batch.read(memory)?;
        let living = goroutines.saturating_add(system_goroutines);
        // Goroutines come meanwhile.
        let gs = pieces.number(allglen).unwrap_or(0).max(living);
        Ok(Stats {
            goroutines: goroutines.max(1),
            threads: self.threads(memory)?,
            gomaxprocs: procs.len() as u64,
            num_cpu: cpus.and_then(|t| pieces.number(t)).filter(|n| (1..=1 << 16).contains(n)),
            system_goroutines,
            idle_procs: procs.iter().filter(|p| p.is_idle()).count() as u64,
            gs,
            free_gs: gs - living,
            most_procs: self.procs.most(memory)?.max(procs.len() as u64),
        })
    }

    /// Reads the rest: looks at every goroutine.
    ///
    /// # Errors
    /// Where nothing can be read any more.
    pub fn more(&self, memory: &dyn Memory) -> Result<More, SourceError> {
        let table = &self.view.table;
        let mut batch = Batch::default();
        let mut whole = |name: &str| {
            let size = table.size(name).filter(|size| (1..=MAX_SIZE).contains(size))?;
            Some(batch.add(self.found.at(name)?, usize::try_from(size).ok()?))
        };
        let (sched, memstats) = (whole("runtime.sched"), whole("runtime.memstats"));
        let phase = self.found.at("runtime.gcphase").map(|at| batch.add(at, 4));
        let cycles = self.found.at("runtime.work").zip(table.field("runtime.work", "cycles"));
        let cycles = cycles.map(|(at, field)| batch.field(at, field));
        let pieces = batch.read(memory)?;
        let bytes = |ticket: Option<Ticket>| ticket.and_then(|t| pieces.get(t)).unwrap_or_default();
        let number = |ticket: Option<Ticket>| ticket.and_then(|t| pieces.number(t));
        Ok(More {
            states: self.states(memory)?,
            phase: number(phase).filter(|&phase| phase <= 2).map(phase_name),
            cycles: number(cycles),
            histograms: Histograms::read(table, bytes(sched), bytes(memstats)),
        })
    }

    fn states(&self, memory: &dyn Memory) -> Result<BTreeMap<(u32, u8), u64>, SourceError> {
        let mut states = BTreeMap::new();
        self.each_goroutine(memory, When::Now, |g, system| {
            if !system {
                *states.entry((g.status(), g.wait_reason)).or_default() += 1;
            }
        })?;
        Ok(states)
    }

    /// Looks at every goroutine that lives, and says whether it is one of the runtime's own.
    fn each_goroutine(
        &self,
        memory: &dyn Memory,
        when: When,
        mut look: impl FnMut(&Goroutine, bool),
    ) -> Result<(), SourceError> {
        let view = self.view;
        let implausible =
            |error| SourceError::implausible(format!("its goroutines cannot be listed: {error}"));
        let list = GList::new(view.allgs.read(memory, 0).map_err(implausible)?, view.g.size);
        let finalizer_runs = when == When::Now && view.finalizer_runs_user_code(memory);
        let mut known: AddressMap<bool> = AddressMap::default();
        list.read_all(memory, &mut Vec::new(), |_, addr, bytes| {
            let Some(mut g) = bytes.map(|bytes| Goroutine::parse(&view.g, addr, bytes)) else { return };
            if g.is_dead() {
                return;
            }
            g.running_cleanups &= when == When::Now;
            let system = if g.running_cleanups {
                view.is_system_goroutine(&g, finalizer_runs)
            } else {
                *known.entry(g.startpc).or_insert_with(|| view.is_system_goroutine(&g, finalizer_runs))
            };
            look(&g, system);
        })?;
        Ok(())
    }
}

/// When a goroutine has to be the runtime's own. Those that run finalizers and cleanups are the program's while they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// As `sched.ngsys` counts.
    Created,
}

impl Histograms {
    /// Takes them from the bytes of `runtime.sched` and `runtime.memstats`.
    pub fn read(table: &Table, sched: &[u8], memstats: &[u8]) -> Self {
        let in_sched = |name| Histogram::read(table, "runtime.sched", name, sched);
        Histograms {
            scheduling_latency: in_sched("timeToRun"),
            gc_pause: in_sched("stwTotalTimeGC")
                .or_else(|| Histogram::read(table, "runtime.memstats", "gcPauseDist", memstats)),
            gc_stopping: in_sched("stwStoppingTimeGC"),
            other_pause: in_sched("stwTotalTimeOther"),
            other_stopping: in_sched("stwStoppingTimeOther"),
        }
    }
}
