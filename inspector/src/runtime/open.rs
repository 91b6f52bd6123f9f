//! Opening the Go runtimes of a pinned process: usually one, plus one per library with its own runtime.

use std::fmt;
use std::sync::OnceLock;

use symbols::moduledata;

use super::attach::{AttachError, AttachNotes, AttachTarget, attach};
use super::load::{self, LoadedImages, MAX_TABLES, architecture};
use super::view::View;
use crate::memory::{Memory, ReadCost};
use crate::process::maps::Mapping;
use crate::process::{self, Pid, Process};
use crate::stop;

/// Maximum number of runtimes in a process. A bound for hostile processes.
const MAX_RUNTIMES: usize = 32;

/// Reason why no runtime of a process, or not the requested one, can be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The process cannot be inspected, or is not a Go process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The process has a runtime, but attaching to it failed.
    #[error("process {pid}: {error}")]
    Attach {
        /// Process id.
        pid: Pid,
        /// Reason of the failure.
        error: AttachError,
        /// Findings before the failure.
        notes: AttachNotes,
    },
    /// A limit was exceeded.
    #[error("process {pid}: {what}")]
    TooMuch {
        /// Process id.
        pid: Pid,
        /// Description of the exceeded limit.
        what: String,
    },
    /// The requested runtime is ambiguous or absent.
    #[error("{0}")]
    Unclear(String),
}

/// Name of a runtime within a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeName {
    /// Path of the module with the runtime, as seen by the process: its executable or a shared object.
    pub module: String,
    /// Go release that built the module, as far as known.
    pub release: String,
}

impl RuntimeName {
    fn of(images: &LoadedImages) -> Self {
        RuntimeName {
            module: images.main.name.clone(),
            release: images.main.known.program.release.to_string(),
        }
    }

    /// Returns true if `name` is the path of the module or its file name.
    pub fn is(&self, name: &str) -> bool {
        self.module == name || self.file() == name
    }

    /// Returns the file name without folders.
    pub fn file(&self) -> &str {
        self.module.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.module, self.release)
    }
}

/// Runtime after successful attaching.
#[derive(Debug)]
pub struct Opened {
    /// Name of the runtime.
    pub name: RuntimeName,
    /// View of the runtime.
    pub view: View,
    /// Cost of attaching: bytes read and system calls.
    pub cost: ReadCost,
}

/// Runtimes of a process.
#[derive(Debug)]
pub struct Runtimes {
    /// Opened runtimes; that of the executable comes first.
    pub opened: Vec<Opened>,
    /// Runtimes that could not be opened, with the reason.
    pub failed: Vec<(RuntimeName, OpenError)>,
}

impl Runtimes {
    /// Returns true if the process has several runtimes, so that an answer must name its runtime.
    pub fn are_several(&self) -> bool {
        self.opened.len() + self.failed.len() > 1
    }
}

/// Finds all Go runtimes of a process and attaches to each. Reads only.
///
/// # Errors
/// Returns the [`OpenError`] of the first runtime if no runtime can be opened.
pub fn open_all(process: &Process) -> Result<Runtimes, OpenError> {
    attach_to(process, FoundImages::look(process)?)
}

/// Opens one runtime, chosen by the path of its module or by its file name. Without a choice, opens the only
/// runtime.
///
/// # Errors
/// Returns [`OpenError::Unclear`] if the choice fits no runtime or several. Returns another [`OpenError`] if
/// the runtime cannot be opened.
pub fn open_chosen(process: &Process, chosen: Option<&str>) -> Result<Opened, OpenError> {
    let mut found = FoundImages::look(process)?;
    let matching = |images: &LoadedImages| chosen.is_none_or(|name| RuntimeName::of(images).is(name));
    let all: Vec<RuntimeName> = found.images.iter().map(RuntimeName::of).collect();
    found.images.retain(matching);
    if found.images.len() != 1 {
        let list: Vec<String> = all.iter().map(ToString::to_string).collect();
        let which = match chosen {
            None => "choose one with --runtime".to_owned(),
            Some(name) if found.images.is_empty() => format!("none of them is {name}"),
            Some(name) => format!("{name} is more than one of them: name the path"),
        };
        let pid = process.pid();
        let text = if let [only] = list.as_slice() {
            format!("the Go runtime of process {pid} is that of {only}: {which}")
        } else {
            format!("process {pid} has {} Go runtimes, {}: {which}", list.len(), list.join(", "))
        };
        return Err(OpenError::Unclear(text));
    }
    let mut opened = attach_to(process, found)?.opened;
    opened.pop().ok_or_else(|| process.not_go("no Go runtime was found in it").into())
}

/// Opens the only runtime of a process, as [`open_chosen`] without a choice.
///
/// # Errors
/// Returns the same errors as [`open_chosen`].
pub fn open(process: &Process) -> Result<(View, ReadCost), OpenError> {
    open_chosen(process, None).map(|opened| (opened.view, opened.cost))
}

/// Images of a process.
struct FoundImages {
    mappings: Vec<Mapping>,
    images: Vec<LoadedImages>,
    /// Cost of finding the images.
    cost: ReadCost,
}

impl FoundImages {
    fn look(process: &Process) -> Result<Self, OpenError> {
        let mappings = process.mappings()?;
        let memory = process.memory();
        let images = load::find(process, &mappings, &memory)?;
        Ok(FoundImages { mappings, images, cost: memory.cost() })
    }
}

fn attach_to(process: &Process, found: FoundImages) -> Result<Runtimes, OpenError> {
    let tids = || threads(process.pid().as_raw());
    let target =
        AttachTarget { mappings: &found.mappings, tids: &tids, monotonic_offset: monotonic_offset(process) };
    let mut runtimes = Runtimes { opened: Vec::new(), failed: Vec::new() };
    let mut before = found.cost;
    let mut room = MAX_TABLES;
    for (number, images) in found.images.into_iter().enumerate() {
        let name = RuntimeName::of(&images);
        if number >= MAX_RUNTIMES {
            let what = format!("more than {MAX_RUNTIMES} Go runtimes are in it");
            runtimes.failed.push((name, OpenError::TooMuch { pid: process.pid(), what }));
            break;
        }
        let memory = process.memory();
        memory.add_cost(std::mem::take(&mut before));
        match attach(&target, images, &memory) {
            Ok(mut view) => {
                let size = view.modules.iter().map(|module| module.pclntab.size()).sum();
                let Some(left) = room.checked_sub(size) else {
                    let what = "the function tables of all its Go runtimes are too large".to_owned();
                    runtimes.failed.push((name, OpenError::TooMuch { pid: process.pid(), what }));
                    continue;
                };
                room = left;
                note_unknown_module(&memory, &mut view);
                runtimes.opened.push(Opened { name, view, cost: memory.cost() });
            }
            Err((error, notes)) => {
                // An ended process explains everything that was missing.
                process.check()?;
                runtimes.failed.push((name, explain(process, error, notes)));
            }
        }
    }
    process.check()?;
    if runtimes.opened.is_empty() && !runtimes.failed.is_empty() {
        return Err(runtimes.failed.swap_remove(0).1);
    }
    Ok(runtimes)
}

/// Adds a note if the last module links to a module without a known file.
fn note_unknown_module(memory: &dyn Memory, view: &mut View) {
    let Some(next_offset) = moduledata::next_offset(view.release.minor()) else { return };
    let Some(last) = view.modules.iter().last() else { return };
    let at = last.bias.runtime(last.data.addr).plus(next_offset as u64);
    if let Some(next) = memory.word(at).ok().filter(|&next| next != 0) {
        view.unknown.push(format!("the Go module at {next:#x}: its frames have no names"));
    }
}

/// Returns the thread ids of a process, as numbered in its own pid namespace.
fn threads(pid: i32) -> Vec<u64> {
    match stop::namespaced_threads(pid) {
        Some(map) => map.into_keys().collect(),
        None => {
            stop::threads(pid).unwrap_or_default().iter().filter_map(|&t| u64::try_from(t).ok()).collect()
        }
    }
}

/// Returns the target's CLOCK_MONOTONIC minus that of this process, in nanoseconds (time namespaces).
fn monotonic_offset(process: &Process) -> i64 {
    let offset = |text: &[u8]| -> Option<i64> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.lines().find_map(|l| l.strip_prefix("monotonic"))?.split_ascii_whitespace();
        let (seconds, nanoseconds): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    };
    let theirs = process.read("timens_offsets", "read the time namespace").ok().and_then(|t| offset(&t));
    // This process never changes its time namespace.
    static OURS: OnceLock<i64> = OnceLock::new();
    let ours = || std::fs::read("/proc/self/timens_offsets").ok().and_then(|t| offset(&t)).unwrap_or(0);
    theirs.unwrap_or(0).saturating_sub(*OURS.get_or_init(ours))
}

fn explain(process: &Process, error: AttachError, notes: AttachNotes) -> OpenError {
    let pid = process.pid();
    match error {
        AttachError::NotGo => process.not_go("no Go runtime was found in it").into(),
        AttachError::TooOld(version) => process::Error::TooOld { pid, version }.into(),
        AttachError::Architecture => architecture(process, AttachError::Architecture.to_string()).into(),
        AttachError::Memory(error) => process.explain_memory(error).into(),
        error => OpenError::Attach { pid, error, notes },
    }
}
