//! A Go runtime as it can be seen from outside: where its variables are, how its structs are laid out, and how
//! each of that is known.

use std::fmt;
use std::sync::Arc;

use symbols::addr::RuntimeAddr;
use symbols::globals::Agreement;
use symbols::layout::{self, Table};
use symbols::version::GoVersion;

use super::fields::{GFields, MFields};
use super::goroutine::{Goroutine, M};
use super::locate::Variables;
use super::modules::Modules;
use super::release::GoRelease;
use super::snapshot::glist::AllGs;
use super::source::SourceError;
use crate::arch::Machine;
use crate::memory::Memory;

/// How something was found out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// What it is about: `version`, `allgs`, `layout` …
    pub of: String,
    /// What was found.
    pub found: String,
    /// How, and how well it is confirmed.
    pub by: String,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.of, self.found, self.by)
    }
}

/// What the runtime's traceback settings are in the target (`runtime.debug`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TracebackSettings {
    /// Profiler labels are part of a goroutine's header (`tracebacklabels`, from Go 1.26).
    pub labels: bool,
}

/// See the module.
#[derive(Debug)]
pub struct View {
    /// Its Go code.
    pub modules: Modules,
    /// The rules of its machine.
    pub machine: &'static dyn Machine,
    /// Its Go version where that is known exactly.
    pub version: Option<GoVersion>,
    /// The release whose tables fit, with the program's experiments: its own, or one that it may be.
    pub fitting: GoVersion,
    /// The minor release whose text formats and layouts are used.
    pub release: GoRelease,
    /// Layouts and wait reasons.
    pub table: Arc<Table>,
    /// How well the layouts fit the release.
    pub layout: layout::Evidence,
    /// Where its variables are.
    pub variables: Arc<Variables>,
    /// How much of the runtime's code is that of the release, where the layouts are not beyond doubt by themselves.
    pub code: Option<Agreement>,
    /// Layout of a g.
    pub g: GFields,
    /// Layout of an m.
    pub m: MFields,
    /// The list of all gs.
    pub allgs: AllGs,
    /// The head of the list of all ms; without it running goroutines have no registers.
    pub allm: Option<RuntimeAddr>,
    /// `runtime.sigreturn__sigaction` or its predecessor: the way back from Go's signal handlers.
    pub sigreturn: Option<u64>,
    /// Executable mappings that are not Go's: C libraries, the vDSO.
    pub foreign_code: Vec<(u64, u64)>,
    /// The number by which the runtime knows wrapper functions (`abi.FuncIDWrapper`).
    pub wrapper_id: u8,
    /// The index of the wait reason of a goroutine that is a coroutine at rest.
    pub coroutine_reason: Option<u8>,
    /// Where the state of the finalizer goroutine is (`runtime.fingStatus`, `fingRunning` before Go 1.20).
    pub finalizer_state: Option<RuntimeAddr>,
    /// How the target wants tracebacks.
    pub traceback: TracebackSettings,
    /// The target's CLOCK_MONOTONIC minus ours, in nanoseconds (time namespaces).
    pub monotonic_offset: i64,
    /// How all this is known.
    pub evidence: Vec<Evidence>,
    /// What could not be found or confirmed, and what answers that costs.
    pub unknown: Vec<String>,
}

impl View {
    /// Reads the g at `addr`.
    pub fn read_g(&self, memory: &dyn Memory, addr: u64) -> Option<Goroutine> {
        if addr == 0 {
            return None;
        }
        let bytes = memory.bytes(RuntimeAddr(addr), self.g.size).ok()?;
        Some(Goroutine::parse(&self.g, addr, &bytes))
    }

    /// Reads the m at `addr`.
    pub fn read_m(&self, memory: &dyn Memory, addr: u64) -> Option<M> {
        let bytes = memory.bytes(RuntimeAddr(addr), self.m.size).ok()?;
        Some(M::parse(&self.m, addr, &bytes))
    }

    /// Whether structs other than those that were held against live memory can be believed: not where experiments of
    /// which nobody knows what they change may have changed them, unless the code that uses them is that of the release.
    ///
    /// # Errors
    /// [`SourceError::Layout`]'s brother for all of them: what is not known, and why.
    pub fn confirm_layouts(&self) -> Result<(), SourceError> {
        let layout::Evidence::OtherExperiments { used } = self.layout else { return Ok(()) };
        let code = self.code.unwrap_or_default();
        if code.is_proof() {
            return Ok(());
        }
        let experiments = self.version.as_ref().map(|v| v.experiments.join(",")).unwrap_or_default();
        Err(SourceError::Experiments { experiments, used, code })
    }

    /// All ms, newest first.
    pub fn read_ms(&self, memory: &dyn Memory) -> Vec<M> {
        let head = self.allm.and_then(|at| memory.word(at).ok()).unwrap_or(0);
        super::plausible::chain(memory, &self.m, head, super::plausible::MAX_THREADS)
    }

    /// Whether code at `addr` is not Go's.
    pub fn is_foreign_code(&self, addr: u64) -> bool {
        self.foreign_code.iter().any(|&(start, end)| start <= addr && addr < end)
    }

    /// Whether the goroutine is one of the runtime's own, which a traceback leaves out by default
    /// (`runtime.isSystemGoroutine`).
    pub fn is_system_goroutine(&self, g: &Goroutine, finalizer_runs_user_code: bool) -> bool {
        let Some(place) = self.modules.lookup(g.startpc) else { return false };
        match place.func.name() {
            b"runtime.main" | b"runtime.corostart" | b"runtime.handleAsyncEvent" => false,
            b"runtime.runfinq" | b"runtime.runFinalizers" => !finalizer_runs_user_code,
            b"runtime.runCleanups" if self.release.has_cleanup_goroutines() => !g.running_cleanups,
            name => name.starts_with(b"runtime."),
        }
    }

    /// Whether the finalizer goroutine is in user code right now (`fingRunningFinalizer`, bit 1 of `fingStatus`
    /// from Go 1.20; a bool before).
    pub fn finalizer_runs_user_code(&self, memory: &dyn Memory) -> bool {
        let Some(at) = self.finalizer_state else { return false };
        let mut word = [0u8; 4];
        if memory.read(at, &mut word).is_err() {
            return false;
        }
        if self.release.has_finalizer_flags() { u32::from_le_bytes(word) & 2 != 0 } else { word[0] != 0 }
    }
}
