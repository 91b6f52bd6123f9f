//! Counts of goroutines, Ps and threads, read while the process runs.

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

/// Numbers that gops reports, and related counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Number of goroutines (`runtime.NumGoroutine()`).
    pub goroutines: u64,
    /// Count of the profile `threadcreate`: threads created by the runtime and not released.
    pub threads: u64,
    /// Value of GOMAXPROCS.
    pub gomaxprocs: u64,
    /// Number of CPUs usable by the process at its start (`runtime.NumCPU()`).
    pub num_cpu: Option<u64>,
    /// Number of system goroutines, which `goroutines` excludes.
    pub system_goroutines: u64,
    /// Number of idle Ps.
    pub idle_procs: u64,
    /// Number of all gs, with a goroutine or without.
    pub gs: u64,
    /// Number of gs kept for later use.
    pub free_gs: u64,
    /// Maximum number of Ps so far; larger than GOMAXPROCS after it was lowered.
    pub most_procs: u64,
}

/// Further counts. Counts that a release lacks, or that were not found, are absent.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Number of the program's goroutines by status and wait reason, as numbered in the runtime. Not of one
    /// instant.
    pub states: BTreeMap<(u32, u8), u64>,
    /// Phase of the collector: `off`, `mark` or `mark termination`.
    pub phase: Option<&'static str>,
    /// Number of collections begun.
    pub cycles: Option<u64>,
    /// Distributions of durations.
    pub histograms: Histograms,
}

/// Distributions that the runtime keeps since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Histograms {
    /// Time that runnable goroutines waited for a P (`/sched/latencies:seconds`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_latency: Option<Histogram>,
    /// Duration of stop-the-world pauses of the collector (`/gc/pauses:seconds`, from Go 1.22
    /// `/sched/pauses/total/gc:seconds`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_pause: Option<Histogram>,
    /// Time to stop the world for the collector (`/sched/pauses/stopping/gc:seconds`, from Go 1.22).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc_stopping: Option<Histogram>,
    /// Duration of stop-the-world pauses for other reasons (from Go 1.22).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_pause: Option<Histogram>,
    /// Time to stop the world for other reasons (from Go 1.22).
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

/// Maximum size in bytes of a struct that is read whole.
const MAX_SIZE: u64 = 1 << 20;

/// Sources of the counts in a process.
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
    /// Returns a [`SourceError`] that names the missing variable or layout.
    pub fn find(view: &'v View) -> Result<Self, SourceError> {
        view.confirm_layouts()?;
        let found = view.locate(WANTED);
        let procs = Procs::find(&found, &view.table)?;
        Ok(Counters { view, found, procs })
    }

    /// Reads the numbers that gops reports.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the numbers cannot be read or are implausible.
    pub fn read(&self, memory: &dyn Memory) -> Result<Stats, SourceError> {
        let table = &self.view.table;
        // With the table of another minor release `runtime.sched` is not located, because its fields may
        // have moved.
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

    /// Reads the same numbers without the scheduler's counts, by looking at each goroutine.
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
        // New goroutines may start meanwhile.
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

    /// Reads the further counts by looking at every goroutine.
    ///
    /// # Errors
    /// Returns a [`SourceError`] if the memory of the target cannot be read.
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

    /// Calls `look` for every live goroutine, with true if it is a system goroutine.
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

/// Time at which a goroutine counts as a system goroutine. Goroutines that run finalizers and cleanups
/// belong to the program while they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// At its creation, as `sched.ngsys` counts.
    Created,
}

impl Histograms {
    /// Takes the distributions from the bytes of `runtime.sched` and `runtime.memstats`.
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
