//! View of a Go runtime from outside: addresses of variables, layouts of structs, and the evidence for each.

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

/// Evidence for one finding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// Subject of the finding: `version`, `allgs`, `layout` …
    pub of: String,
    /// Value found.
    pub found: String,
    /// Method, and degree of confirmation.
    pub by: String,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.of, self.found, self.by)
    }
}

/// Traceback settings of the target (`runtime.debug`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TracebackSettings {
    /// True if the header of a goroutine contains profiler labels (`tracebacklabels`, from Go 1.26).
    pub labels: bool,
}

/// View of a Go runtime from outside.
#[derive(Debug)]
pub struct View {
    /// Go modules of the runtime.
    pub modules: Modules,
    /// Rules of the machine.
    pub machine: &'static dyn Machine,
    /// Go version, if known exactly.
    pub version: Option<GoVersion>,
    /// Release with fitting tables, with the program's experiments: the program's own release, or a
    /// candidate for it.
    pub fitting: GoVersion,
    /// Minor release of the text formats and layouts in use.
    pub release: GoRelease,
    /// Layouts and wait reasons.
    pub table: Arc<Table>,
    /// Evidence that the layouts fit the release.
    pub layout: layout::Evidence,
    /// Finder of the runtime's variables.
    pub variables: Arc<Variables>,
    /// Agreement of the runtime's code with that of the release. Present if the layouts are not certain by
    /// themselves.
    pub code: Option<Agreement>,
    /// Layout of a g.
    pub g: GFields,
    /// Layout of an m.
    pub m: MFields,
    /// Address of the list of all gs.
    pub allgs: AllGs,
    /// Address of the head of the list of all ms. Without it, running goroutines have no registers.
    pub allm: Option<RuntimeAddr>,
    /// Address of `runtime.sigreturn__sigaction` or its predecessor: the return address of Go's signal
    /// handlers.
    pub sigreturn: Option<u64>,
    /// Executable mappings without Go code: C libraries, the vDSO.
    pub foreign_code: Vec<(u64, u64)>,
    /// Function id of wrappers (`abi.FuncIDWrapper`).
    pub wrapper_id: u8,
    /// Index of the wait reason of a coroutine at rest.
    pub coroutine_reason: Option<u8>,
    /// Address of the state of the finalizer goroutine (`runtime.fingStatus`, `fingRunning` before Go 1.20).
    pub finalizer_state: Option<RuntimeAddr>,
    /// Traceback settings of the target.
    pub traceback: TracebackSettings,
    /// CLOCK_MONOTONIC of the target minus CLOCK_MONOTONIC of this process, in nanoseconds (time
    /// namespaces).
    pub monotonic_offset: i64,
    /// Evidence for all findings.
    pub evidence: Vec<Evidence>,
    /// Items that could not be found or confirmed, and the effect on answers.
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

    /// Confirms the layouts of structs that were not verified against live memory. Experiments of unknown
    /// effect may have changed them, unless the code that uses them equals that of the release.
    ///
    /// # Errors
    /// Returns [`SourceError::Experiments`] if the layouts are not certain.
    pub fn confirm_layouts(&self) -> Result<(), SourceError> {
        let layout::Evidence::OtherExperiments { used } = self.layout else { return Ok(()) };
        let code = self.code.unwrap_or_default();
        if code.is_proof() {
            return Ok(());
        }
        let experiments = self.version.as_ref().map(|v| v.experiments.join(",")).unwrap_or_default();
        Err(SourceError::Experiments { experiments, used, code })
    }

    /// Reads all ms, newest first.
    pub fn read_ms(&self, memory: &dyn Memory) -> Vec<M> {
        let head = self.allm.and_then(|at| memory.word(at).ok()).unwrap_or(0);
        super::plausible::chain(memory, &self.m, head, super::plausible::MAX_THREADS)
    }

    /// Returns true if the code at `addr` is not Go code.
    pub fn is_foreign_code(&self, addr: u64) -> bool {
        self.foreign_code.iter().any(|&(start, end)| start <= addr && addr < end)
    }

    /// Returns true if the goroutine is a system goroutine, which a traceback omits by default
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

    /// Returns true if the finalizer goroutine is in user code right now (`fingRunningFinalizer`, bit 1 of
    /// `fingStatus` from Go 1.20; a bool before).
    pub fn finalizer_runs_user_code(&self, memory: &dyn Memory) -> bool {
        let Some(at) = self.finalizer_state else { return false };
        let mut word = [0u8; 4];
        if memory.read(at, &mut word).is_err() {
            return false;
        }
        if self.release.has_finalizer_flags() { u32::from_le_bytes(word) & 2 != 0 } else { word[0] != 0 }
    }
}
