//! Facts about each sampled process: its Go runtimes, if any, and its other code.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use symbols::addr::RuntimeAddr;
use symbols::tls::{self, GPlace};

use super::source::{GoOffsets, GoTarget, OnGoroutine};
use crate::ErrorKind;
use crate::memory::{Memory, ReadCost};
use crate::native::frame::Foreign;
use crate::native::{Files, Native};
use crate::process::executable::FileId;
use crate::process::{self, Pid, Process};
use crate::profile::Mapping;
use crate::runtime::code::KnownCode;
use crate::runtime::open::{RuntimeName, open_all};
use crate::runtime::snapshot::details::{self, Labels};
use crate::runtime::view::View;

/// Maximum size of the remembered labels of each process, in bytes.
const MAX_LABELS: usize = 256 << 10;
/// Maximum total size of the function tables of the Go programs of a capture, in bytes: twice the maximum of
/// one program.
const MAX_TABLES: usize = 1 << 30;

/// Program of a sampled process.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub struct SampledProgram {
    /// Pid of the process.
    pub pid: Pid,
    /// Name of the process.
    pub name: String,
    /// Code that was mapped when the process was examined.
    pub mappings: Vec<Mapping>,
    /// Go runtimes of the process.
    pub runtimes: Vec<KnownRuntime>,
    /// Other code of the process.
    pub foreign: Box<dyn Foreign>,
    executable: Option<FileId>,
    /// Cost of finding the runtime.
    attached: ReadCost,
    memory: Box<dyn Memory>,
    labels: HashMap<OnGoroutine, Rc<Labels>>,
    labels_size: usize,
    /// True if the Go code is left out because its function tables would take too much memory.
    left_out: bool,
    young: Option<Young>,
    denied: Option<crate::Error>,
}

/// Go runtime of a sampled process.
#[derive(Debug)]
pub struct KnownRuntime {
    /// Name of the runtime.
    pub name: Rc<RuntimeName>,
    /// View of the runtime, shared by processes that execute the same program at the same addresses.
    pub view: Rc<View>,
    /// Code of the runtime, as far as it was looked up.
    pub code: KnownCode,
}

/// Process without a Go runtime so far: a process that has just begun has not set its runtime up.
struct Young {
    process: Process,
    tries: u32,
    next: Instant,
}

/// Maximum number of searches for a runtime; the wait doubles each time.
const MAX_TRIES: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(2);

impl SampledProgram {
    /// Examines a process. A process without Go is not an error. `files` are shared by all examined
    /// processes. A process of `others` that executes the same program at the same addresses has the same
    /// runtimes.
    ///
    /// # Errors
    /// Returns an error if the process is gone, or may not be examined.
    pub fn open(process: &Process, files: &Files, others: &[SampledProgram]) -> Result<Self, crate::Error> {
        let native = Native::open(process, files)?;
        let mapped = native.mappings(process);
        let executable = process.executable().ok().map(|executable| executable.id());
        let same = others.iter().find(|other| {
            other.executable.is_some()
                && other.executable == executable
                && code(&other.mappings).eq(code(&mapped))
        });
        let mut known = SampledProgram {
            pid: process.pid(),
            name: process.name().to_owned(),
            foreign: Box::new(native),
            mappings: mapped,
            runtimes: same.map(SampledProgram::shared_runtimes).unwrap_or_default(),
            executable,
            attached: ReadCost::default(),
            memory: Box::new(process.memory()),
            labels: HashMap::new(),
            labels_size: 0,
            left_out: false,
            young: None,
            denied: None,
        };
        if known.runtimes.is_empty()
            && let Err(error) = known.attach(process, tables(others))
        {
            tracing::info!("process {}: {error}", process.pid());
            match error.kind() {
                ErrorKind::NotGo => {}
                // gccgo programs count as native code in samples.
                ErrorKind::Unsupported
                    if matches!(error, crate::Error::Process(process::Error::GccGo { .. })) => {}
                ErrorKind::Permission => known.denied = Some(error),
                // Samples of a foreign architecture would be of other code than the process seems to execute,
                // or of code that cannot be walked.
                ErrorKind::Unsupported
                    if matches!(error, crate::Error::Process(process::Error::Architecture { .. })) =>
                {
                    known.denied = Some(error);
                }
                _ => {
                    let again = Process::pin(process.pid()).ok();
                    let young = |process| Young { process, tries: 0, next: Instant::now() + FIRST_WAIT };
                    known.young = again.map(young);
                }
            }
        }
        Ok(known)
    }

    /// Opens the Go runtimes. `others` is the size of the function tables of other programs, in bytes.
    fn attach(&mut self, process: &Process, others: usize) -> Result<(), crate::Error> {
        let runtimes = open_all(process)?;
        for (name, error) in &runtimes.failed {
            tracing::warn!("process {}: the Go runtime of {name}: {error}", process.pid());
        }
        let views = runtimes.opened.iter().map(|opened| &opened.view);
        let size: usize =
            views.flat_map(|view| view.modules.iter()).map(|module| module.pclntab.size()).sum();
        self.left_out = others.saturating_add(size) > MAX_TABLES;
        for opened in runtimes.opened {
            self.attached.bytes += opened.cost.bytes;
            self.attached.calls += opened.cost.calls;
            let (name, view) = (Rc::new(opened.name), Rc::new(opened.view));
            self.runtimes.push(KnownRuntime { name, view, code: KnownCode::default() });
        }
        if self.left_out {
            self.runtimes.clear();
        }
        Ok(())
    }

    /// Returns true if the Go code is left out to save memory.
    pub fn is_left_out(&self) -> bool {
        self.left_out
    }

    fn shared_runtimes(&self) -> Vec<KnownRuntime> {
        let share = |runtime: &KnownRuntime| KnownRuntime {
            name: Rc::clone(&runtime.name),
            view: Rc::clone(&runtime.view),
            code: KnownCode::default(),
        };
        self.runtimes.iter().map(share).collect()
    }

    /// Examines a process that the user named, as [`SampledProgram::open`] does. An error is returned if its
    /// memory may not be read, because then its stacks are only addresses. Newer kernels show the rest of the
    /// process to a user who may sample it.
    ///
    /// # Errors
    /// Returns an error if the process is gone, or may not be examined.
    pub fn open_wanted(
        process: &Process,
        files: &Files,
        others: &[SampledProgram],
    ) -> Result<Self, crate::Error> {
        let mut known = Self::open(process, files, others)?;
        known.denied.take().map_or(Ok(known), Err)
    }

    /// Searches again for a Go runtime, if there was none yet and it is time. Returns true if there is one
    /// now.
    pub fn try_again(&mut self, others: usize) -> bool {
        let Some(mut young) = self.young.take_if(|young| young.next <= Instant::now()) else { return false };
        match self.attach(&young.process, others) {
            Ok(()) => !self.runtimes.is_empty(),
            Err(error) => {
                tracing::debug!("process {}: {error}", self.pid);
                young.tries += 1;
                young.next = Instant::now() + FIRST_WAIT * (1 << young.tries);
                self.young = Some(young).filter(|young| young.tries < MAX_TRIES);
                false
            }
        }
    }

    /// Returns true if it is time to search for a Go runtime again.
    pub fn is_due(&self) -> bool {
        self.young.as_ref().is_some_and(|young| young.next <= Instant::now())
    }

    /// Returns true if a Go runtime may still appear.
    pub fn is_young(&self) -> bool {
        self.young.is_some()
    }

    /// Cost of reading the memory of the process so far.
    pub fn cost(&self) -> ReadCost {
        let read = self.memory.cost();
        ReadCost { bytes: self.attached.bytes + read.bytes, calls: self.attached.calls + read.calls }
    }

    /// Returns the facts that a source needs to find goroutines, by runtime; ends at the first runtime
    /// without them.
    pub fn go_targets(&self) -> Vec<GoTarget> {
        // Indexes are those of the runtimes: runtimes behind an unknown one are left out too.
        self.runtimes.iter().map_while(|runtime| self.go_target(&runtime.view)).collect()
    }

    fn go_target(&self, view: &View) -> Option<GoTarget> {
        let main = view.modules.main();
        let at = |link| main.bias.runtime(link).0;
        let g = |field| offset(view, "runtime.g", field);
        // If the function is not found, the range is empty: no return address is in it.
        let function = |name| {
            main.pclntab.find(name).map_or((0, 0), |function| (at(function.entry()), at(function.end())))
        };
        let tls_g = match tls::g_place(&main.image, &main.pclntab)? {
            GPlace::Offset(offset) => offset,
            GPlace::InWord(word) => self.memory.word(RuntimeAddr(at(word))).ok()?.cast_signed(),
        };
        Some(GoTarget {
            text: view
                .modules
                .iter()
                .map(|m| (m.bias.runtime(m.data.text.start).0, m.bias.runtime(m.data.text.end).0))
                .collect(),
            morestack: function("runtime.morestack"),
            systemstack: function("runtime.systemstack"),
            tls_g,
            g: GoOffsets {
                m: g("m")?,
                goid: g("goid")?,
                labels: g("labels")?,
                sched_pc: g("sched.pc")?,
                sched_sp: g("sched.sp")?,
                sched_bp: g("sched.bp")?,
            },
            m_curg: offset(view, "runtime.m", "curg")?,
        })
    }

    /// Returns the labels of a goroutine. The labels do not change while the goroutine has them, but their
    /// memory may be reused, also by the same goroutine. Remembered labels are used only if nothing can be
    /// read any more.
    pub fn labels(&mut self, of: OnGoroutine) -> Rc<Labels> {
        let Some(view) = self.runtimes.get(of.runtime).map(|r| &r.view).filter(|_| of.labels != 0) else {
            return Rc::default();
        };
        let memory = &*self.memory;
        // Labels are read each time: the memory may hold other labels now.
        match details::labels(view, memory, of.labels) {
            Some(labels) => {
                let size = labels.iter().map(|(key, value)| key.len() + value.len() + 48).sum::<usize>() + 96;
                if self.labels_size + size > MAX_LABELS {
                    self.labels.clear();
                    self.labels_size = 0;
                }
                let labels = Rc::new(labels);
                if size <= MAX_LABELS && self.labels.insert(of, Rc::clone(&labels)).is_none() {
                    self.labels_size += size;
                }
                labels
            }
            // The process may have ended meanwhile.
            None => self.labels.get(&of).map(Rc::clone).unwrap_or_default(),
        }
    }
}

/// Returns the total size of the function tables of programs, each counted once.
pub(super) fn tables(of: &[SampledProgram]) -> usize {
    let views: Vec<&Rc<View>> =
        of.iter().flat_map(|known| &known.runtimes).map(|runtime| &runtime.view).collect();
    let is_first =
        |(index, view): &(usize, &&Rc<View>)| !views.iter().take(*index).any(|other| Rc::ptr_eq(other, view));
    let first = views.iter().enumerate().filter(is_first);
    first.flat_map(|(_, view)| view.modules.iter()).map(|module| module.pclntab.size()).sum()
}

/// Returns the properties of mappings that decide which code is at which address.
fn code(mappings: &[Mapping]) -> impl Iterator<Item = (u64, u64, u64, &str, &str)> {
    let files = mappings.iter().filter(|m| !m.file.starts_with('['));
    files.map(|m| (m.start, m.end, m.offset, m.file.as_str(), m.build_id.as_str()))
}

fn offset(view: &View, of: &str, field: &str) -> Option<u32> {
    u32::try_from(view.table.field(of, field)?.offset).ok()
}
