//! Verification of a runtime: its variables are known well enough to be written, with their addresses.
//!
//! Each variable must be consistent with others that are found independently. An inconsistent variable is not
//! written, however likely it is.

use std::time::{Duration, Instant};

use symbols::addr::RuntimeAddr;
use symbols::image::Image;
use symbols::layout::{self, Evidence};

use super::pacer::{self, Live, Trigger18};
use super::word::{Width, Word};
use super::{Turn, refused, stopped, unverified};
use crate::memory::{InStop, Memory};
use crate::process::Process;
use crate::runtime::calibrate::{has_debug_info, own_dwarf};
use crate::runtime::locate::Located;
use crate::runtime::open::{Opened, Runtimes, open_all, open_chosen};
use crate::runtime::view::View;
use crate::{Error, clock, standstill};

const WANTED: &[&str] = &[
    "runtime.gcController",
    "runtime.memstats",
    "runtime.work",
    "runtime.sched",
    "runtime.mheap_",
    "runtime.sweep",
    "runtime.scavenge",
    "runtime.gcphase",
    "runtime.gomaxprocs",
    "runtime.allp",
    "runtime.forcegcperiod",
    "runtime.panicking",
    "runtime.MemProfileRate",
    "runtime.blockprofilerate",
    "runtime.mutexprofilerate",
    "runtime.ticks",
];
/// Value of `runtime.forcegcperiod` in nanoseconds; no release changes it.
const FORCE_GC_PERIOD: u64 = 120_000_000_000;
/// Upper limit of GOMAXPROCS: more than any release can be set to.
const MAX_PROCS: u64 = 1 << 16;
/// `runtime.sweepDrainedMask`: all spans of the last cycle are swept.
pub(super) const SWEPT: u64 = 0x8000_0000;
/// Attempts to read consistent values: they change while they are read one after the other.
const ATTEMPTS: u32 = 20;
/// Functions that only programs built with these options have.
const INSTRUMENTED: [(&str, &str); 3] =
    [("runtime.racecall", "-race"), ("runtime.msancall", "-msan"), ("runtime.asancall", "-asan")];

/// Runtime whose variables may be written.
#[derive(Debug)]
pub struct VerifiedRuntime<'p> {
    /// Process of the runtime.
    pub process: &'p Process,
    /// View of the runtime.
    pub view: View,
    memory: Box<dyn Memory>,
    found: Located,
}

impl<'p> VerifiedRuntime<'p> {
    /// Opens the only runtime of a process and verifies it. Only reads.
    ///
    /// # Errors
    /// Returns the errors of [`VerifiedRuntime::verify_chosen`].
    pub fn verify(process: &'p Process) -> Result<Self, Error> {
        Self::verify_chosen(process, None)
    }

    /// Opens one runtime of a process and verifies it. `chosen` is the path of its module or the name of that
    /// file; without it, the process must have only one runtime. Only reads.
    ///
    /// # Errors
    /// Returns [`Error::Usage`] if the choice is ambiguous, [`Error::Uncalibrated`] if the runtime is not
    /// known well enough, and [`Error::Refused`] if the state of the process allows no write.
    pub fn verify_chosen(process: &'p Process, chosen: Option<&str>) -> Result<Self, Error> {
        let Opened { view, .. } = open_chosen(process, chosen)?;
        let subject = VerifiedRuntime::of(process, view)?;
        check_state(process)?;
        let mut objection = Ok(());
        for _ in 0..ATTEMPTS {
            objection = subject.check();
            match objection {
                Ok(()) => break,
                // The state of the program does not pass in a moment.
                Err(Error::Refused { .. }) => break,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        objection.map(|()| subject)
    }

    /// Opens the runtimes of a process to restore words of an earlier run, which has verified the runtime.
    /// The address of each variable is known; the present state of the process is no reason to leave a word
    /// changed.
    ///
    /// # Errors
    /// Returns [`Error::Uncalibrated`] if no runtime is known well enough.
    pub(super) fn known(process: &'p Process) -> Result<Vec<Self>, Error> {
        let Runtimes { opened, .. } = open_all(process)?;
        let mut subjects = Vec::new();
        let mut failed = None;
        for opened in opened {
            match VerifiedRuntime::of(process, opened.view) {
                Ok(subject) => subjects.push(subject),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if subjects.is_empty() => Err(error),
            _ => Ok(subjects),
        }
    }

    fn of(process: &'p Process, view: View) -> Result<Self, Error> {
        check_build(process, &view)?;
        let found = view.locate(WANTED);
        let memory = Box::new(process.memory());
        Ok(VerifiedRuntime { process, view, memory, found })
    }

    /// Marks that we have stopped the process: see [`InStop`].
    pub fn in_stop(&self) -> InStop<'_> {
        InStop::begin(&*self.memory)
    }

    /// Returns the address and width of a variable, or of a field of one.
    ///
    /// # Errors
    /// Returns [`Error::Uncalibrated`] if the address is unknown.
    pub fn place(&self, variable: &str, field: &str) -> Result<(RuntimeAddr, Width), Error> {
        let missing = || unverified(self.process, format!("the place of {variable} {field} is not known"));
        let at = self.found.at(variable).ok_or_else(missing)?;
        let (offset, size) = if field.is_empty() {
            (0, self.view.table.size(variable).ok_or_else(missing)?)
        } else {
            let place = self.view.table.field(variable, field).ok_or_else(missing)?;
            (place.offset, place.size)
        };
        Ok((at.plus(offset), Width::of(size).ok_or_else(missing)?))
    }

    /// Returns true if this release has the field.
    pub fn has(&self, variable: &str, field: &str) -> bool {
        self.place(variable, field).is_ok()
    }

    /// Reads a variable, or a field of one.
    ///
    /// # Errors
    /// Returns an error if the address is unknown, or if the value cannot be read.
    pub fn read(&self, variable: &str, field: &str) -> Result<u64, Error> {
        let (at, width) = self.place(variable, field)?;
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..width.bytes()).unwrap_or_default();
        self.memory.read(at, part).map_err(|e| self.process.explain_memory(e))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Creates a word to write, which must hold `before`.
    ///
    /// # Errors
    /// Returns an error if the address is unknown.
    pub fn word(&self, variable: &str, field: &str, before: u64, after: u64) -> Result<Word, Error> {
        let (at, width) = self.place(variable, field)?;
        let short = variable.strip_prefix("runtime.").unwrap_or(variable);
        let name = if field.is_empty() { short.to_owned() } else { format!("{short}.{field}") };
        Ok(Word { name, at, width, before: width.cut(before), after: width.cut(after) })
    }

    /// Reads GOGC; -1 is off.
    ///
    /// # Errors
    /// Returns an error if the value cannot be read.
    pub fn gc_percent(&self) -> Result<i32, Error> {
        let word = self.read("runtime.gcController", "gcPercent")?;
        Ok(u32::try_from(word).unwrap_or_default().cast_signed())
    }

    /// Reads the terms of the heap goal.
    ///
    /// # Errors
    /// Returns an error if a term cannot be read.
    pub fn live(&self) -> Result<Live, Error> {
        let field = |name| self.read("runtime.gcController", name);
        let stacks = field(self.view.release.stack_scan_field())?;
        Ok(Live { marked: field("heapMarked")?, stacks, globals: field("globalsScan")? })
    }

    /// Reads the terms of the pacer of Go 1.18.
    ///
    /// # Errors
    /// Returns an error if a term cannot be read.
    pub fn trigger18(&self) -> Result<Trigger18, Error> {
        let field = |name| self.read("runtime.gcController", name);
        Ok(Trigger18 {
            live: self.live()?,
            heap_scan: field("lastHeapScan")?,
            cons_mark: f64::from_bits(field("consMark")?),
        })
    }

    /// Returns the reason why the pacer may not be written at this moment. The reason cannot change while all
    /// threads are stopped.
    ///
    /// # Errors
    /// Returns an error if a value cannot be read.
    pub fn pacer_is_busy(&self) -> Result<Option<&'static str>, Error> {
        Ok(if self.read("runtime.mheap_", "lock.key")? != 0 {
            Some("a thread holds the heap's lock")
        } else if self.read("runtime.gcphase", "")? != 0 {
            Some("a collection is running")
        } else if self.read("runtime.sweep", "active.state")? != SWEPT {
            Some("the last collection is still being swept")
        } else {
            None
        })
    }

    /// Checks that the variables of the runtime are consistent at this moment. The variables of a running
    /// program may be inconsistent for a moment.
    ///
    /// # Errors
    /// Returns the errors of [`VerifiedRuntime::verify`].
    pub fn check(&self) -> Result<(), Error> {
        let process = self.process;
        let doubt = |what: String| Err(unverified(process, format!("{what}; nothing is written")));
        let controller = |name| self.read("runtime.gcController", name);
        if self.read("runtime.panicking", "")? != 0 {
            return Err(refused(process, "it is panicking; nothing is written into a program that ends"));
        }
        let period = self.read("runtime.forcegcperiod", "")?;
        if period != FORCE_GC_PERIOD {
            return doubt(format!("what should be forcegcperiod holds {period}"));
        }
        let procs = self.read("runtime.gomaxprocs", "")?;
        let ps = self.read("runtime.allp", "len")?;
        if procs != ps || !(1..=MAX_PROCS).contains(&procs) {
            return doubt(format!("GOMAXPROCS would be {procs}, with {ps} ps"));
        }
        let phase = self.read("runtime.gcphase", "")?;
        if phase > 2 {
            return doubt(format!("the phase of the collector would be {phase}"));
        }
        // Counters of cycles in four different variables.
        let (started, ended) =
            (self.read("runtime.work", "cycles")?, self.read("runtime.memstats", "numgc")?);
        let swept = self.read("runtime.mheap_", "sweepgen")?;
        let running = difference(started, ended);
        if running > 1 || swept % 2 != 0 || difference(swept / 2, ended & (u64::from(u32::MAX) >> 1)) > 1 {
            return doubt(format!(
                "{started} collections would have begun, {ended} ended, sweep number {swept}"
            ));
        }
        if self.read("runtime.memstats", "enablegc")? != 1 {
            return Err(refused(process, "its main function has not begun, and collections are not enabled"));
        }
        self.check_last_gc(ended)?;
        let sweepers = self.read("runtime.sweep", "active.state")? & !SWEPT;
        if sweepers > MAX_PROCS {
            return doubt(format!("{sweepers} goroutines would be sweeping"));
        }
        let sched = |name| self.read("runtime.sched", name);
        let (wait, note, idle) = (sched("sysmonwait")?, sched("sysmonnote.key")?, sched("npidle")?);
        if wait > 1 || note > 1 || idle > procs || sched("gcwaiting")? > 1 || sched("mnext")? == 0 {
            return doubt(format!(
                "the scheduler would have {idle} of {procs} ps idle, sysmon {wait} {note}"
            ));
        }
        let (percent, least) = (self.gc_percent()?, controller("heapMinimum")?);
        if percent < -1 || least != pacer::heap_minimum(percent) {
            return doubt(format!("GOGC would be {percent}, with a least heap of {least}"));
        }
        let (live, marked) = (controller("heapLive")?, controller("heapMarked")?);
        if live.max(marked) > self.view.machine.max_addr() {
            return doubt(format!("the heap would have {live} bytes, {marked} of them marked"));
        }
        if self.view.release.has_memory_limit() {
            let (goal, limit) = (controller("gcPercentHeapGoal")?, controller("memoryLimit")?);
            if goal < least || i64::try_from(limit).is_err() {
                return doubt(format!("the heap's goal would be {goal}, the memory limit {limit}"));
            }
        }
        Ok(())
    }

    /// Checks the time of the last collection against its wall time, the ends of pauses and the present time.
    fn check_last_gc(&self, ended: u64) -> Result<(), Error> {
        const RING: u64 = 256;
        let doubt = |what: &str| Err(unverified(self.process, format!("{what}; nothing is written")));
        let stats = |name| self.read("runtime.memstats", name);
        let (unix, last) = (stats("last_gc_unix")?, stats("last_gc_nanotime")?.cast_signed());
        let ring =
            self.found.at("runtime.memstats").zip(self.view.table.field("runtime.memstats", "pause_end"));
        let Some((at, ring)) = ring.filter(|(_, field)| field.size == RING * 8) else {
            return doubt("the ends of pauses are not known");
        };
        let newest = at.plus(ring.offset + ended.wrapping_add(RING - 1) % RING * 8);
        let end = self.memory.word(newest).map_err(|e| self.process.explain_memory(e))?;
        if end != unix {
            return doubt("the time of the last collection is not that of the last pause");
        }
        // An earlier request of ours that had no effect has left a time long ago.
        let now = clock::monotonic().saturating_add(self.view.monotonic_offset);
        let fits = if ended == 0 { last <= 0 } else { last != 0 && last <= now.saturating_add(SECOND) };
        if fits { Ok(()) } else { doubt("the time of the last collection is in the future") }
    }
}

const SECOND: i64 = 1_000_000_000;

/// Difference of two 32-bit counters, modulo 2^32.
fn difference(ahead: u64, behind: u64) -> u64 {
    ahead.wrapping_sub(behind) & u64::from(u32::MAX)
}

/// Maximum time to wait for other processes that each stop this one for a moment.
const TURN: Duration = Duration::from_secs(10);

/// Refuses a process that does not run: a request to its runtime would have no effect.
fn check_state(process: &Process) -> Result<(), Error> {
    let refuse =
        |what: String, hint: String| Err(Error::Refused { pid: process.pid(), what, hint: Some(hint) });
    let mut stat = process.stat()?;
    if stat.is_held() || stat.is_stopped() {
        // A debugger, a signal, or another gops-probe holds the process, the last one for a moment.
        Turn { deadline: Instant::now() + TURN, interrupted: &|| false }.wait(process)?;
        stat = process.stat()?;
    }
    if stat.is_stopped() {
        return Err(stopped(process, "it is stopped by a signal: what is asked of it could not happen"));
    }
    if let Some(frozen) = standstill::frozen(process) {
        return refuse(
            format!("its cgroup {} is frozen: what is asked of it could not happen", frozen.folder()),
            frozen.hint(),
        );
    }
    Ok(())
}

/// Explains why the layouts of a program are not its own. Debug information may be absent, or of its C code
/// alone.
fn own_layouts(image: &Image) -> &'static str {
    if !has_debug_info(image) {
        "its own layouts are stripped"
    } else if own_dwarf(image).is_none() {
        "its own layouts are stripped: its debug information has none of Go's runtime"
    } else {
        "its layouts are not taken from its own debug information"
    }
}

/// Refuses a program whose runtime may differ from the one that the layouts and rules are for.
fn check_build(process: &Process, view: &View) -> Result<(), Error> {
    let doubt = |what: String| Err(unverified(process, format!("{what}; nothing is written into it")));
    if view.modules.iter().count() != 1 {
        return doubt(
            "it has loaded plugins, whose copies of the runtime cannot be told apart safely".to_owned(),
        );
    }
    let own = view.layout == Evidence::Dwarf;
    let Some(version) = view.version.as_ref() else {
        return doubt(format!("its exact Go release is not known, only that it is like {}", view.release));
    };
    let main = view.modules.main();
    let layouts = || own_layouts(&main.image);
    if version.devel && !own {
        return doubt(format!("{version} is no release, and {}", layouts()));
    }
    if let Evidence::Candidate { .. } = view.layout {
        return doubt(format!("the layouts of {version} are not known, only the {}", view.layout));
    }
    let option = INSTRUMENTED.iter().find(|(function, _)| main.pclntab.find(function).is_some());
    if let Some((_, option)) = option.filter(|_| !own) {
        return doubt(format!("it is built with {option}, and {}", layouts()));
    }
    let proven = view.code.is_some_and(|code| code.is_proof());
    match view.layout {
        Evidence::Exact | Evidence::Dwarf => Ok(()),
        Evidence::SameMinor { .. } if proven || layout::is_bracketed(version) => Ok(()),
        Evidence::SameMinor { used } => {
            doubt(format!("the layouts of {version} are not known, only those of {used}"))
        }
        Evidence::NeighbourMinor { used } => {
            doubt(format!("the layouts of {version} are not known, only those of {used}"))
        }
        // Layouts of other experiments are checked against the code that uses them.
        Evidence::OtherExperiments { .. } => match view.confirm_layouts() {
            Ok(()) => Ok(()),
            Err(error) => doubt(error.to_string()),
        },
        other => doubt(format!("it is not known how well its layouts fit: {other}")),
    }
}
