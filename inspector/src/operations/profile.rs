//! Profiles that the runtime keeps, or that can be made from its data.

use std::time::{Duration, SystemTime};

use super::error::{buckets_error, record_error};
use super::reading::Reading;
use super::runtimes::{self, Answers};
use super::{panicking, stack};
use crate::Error;
use crate::agent::Signal;
use crate::memory::Memory;
use crate::process::Process;
use crate::profile::{self, Profile, mappings, pprof};
use crate::report::sampling::Sampling as HowSampled;
use crate::report::stack::AnswerCost;
use crate::runtime::buckets::{Profilers, Sampling, Tables, TicksPerSecond};
use crate::runtime::open::{Opened, RuntimeName};
use crate::runtime::snapshot::{Pause, SnapshotOptions};
use crate::runtime::stack_counts::{goroutine_profile, thread_profile};

/// Profile that the runtime keeps, or that can be made from its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfileKind {
    /// Memory in use, by place of allocation.
    Heap,
    /// Allocations since the program began, by place of allocation.
    Allocs,
    /// Goroutines, by stack.
    Goroutine,
    /// Threads, by place of creation.
    ThreadCreate,
    /// Waits of goroutines, by place.
    Block,
    /// Holders of the locks that other goroutines waited for.
    Mutex,
}

impl ProfileKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProfileKind::Heap => "heap",
            ProfileKind::Allocs => "allocs",
            ProfileKind::Goroutine => "goroutine",
            ProfileKind::ThreadCreate => "threadcreate",
            ProfileKind::Block => "block",
            ProfileKind::Mutex => "mutex",
        }
    }

    /// Returns the request that makes an agent answer this profile. `None` if agents do not have the profile.
    pub(crate) fn signal(self) -> Option<Signal> {
        (self == ProfileKind::Heap).then_some(Signal::HeapProfile)
    }
}

/// Profile, with its cost and the facts that belong to it.
pub(crate) struct Taken {
    pub(crate) profile: Profile,
    /// Cost of the profile. `None` if an agent answered.
    pub(crate) cost: Option<AnswerCost>,
    /// Description of missing data. `None` if nothing is missing.
    pub(crate) missing: Option<String>,
    /// Notes that the user has to know.
    pub(crate) notes: Vec<String>,
    /// Rate by which times were converted. `None` if there were none to convert.
    pub(crate) ticks: Option<TicksPerSecond>,
    /// Method of sampling. `None` if the profile holds no CPU samples.
    pub(crate) sampling: Option<HowSampled>,
}

/// Reads a profile, or the difference of two readings `apart` from each other. `wait` waits for the time
/// between them.
///
/// # Errors
/// Returns an error if the data of the profile cannot be read.
pub(crate) fn reading(
    kind: ProfileKind,
    process: &Process,
    runtime: Option<&str>,
    apart: Option<Duration>,
    wait: impl FnOnce(Duration),
) -> Result<Taken, Error> {
    let first = runtimes::ask(process, runtime, |opened| read(kind, process, opened, None))?;
    let Some(apart) = apart else { return together(first) };
    wait(apart);
    let ticks = |name: &RuntimeName| first.iter().find(|(of, _)| *of == name)?.1.ticks;
    let look = |opened: Opened| {
        let ticks = ticks(&opened.name);
        read(kind, process, opened, ticks)
    };
    let second = runtimes::ask(process, runtime, look)?;
    difference(together(first)?, together(second)?)
}

/// Merges the profiles of several runtimes into one. A label of each sample names its runtime.
fn together(answers: Answers<Taken>) -> Result<Taken, Error> {
    let several = answers.are_several();
    let missing = answers.conclude().err().map(|error| error.to_string());
    let mut each = answers.into_each();
    if !several && let Some((_, only)) = each.pop() {
        return Ok(only);
    }
    let missing = missing.into_iter().chain(each.iter_mut().filter_map(|(_, taken)| taken.missing.take()));
    let missing: Vec<String> = missing.collect();
    let cost = each.iter().filter_map(|(_, taken)| taken.cost).reduce(AnswerCost::and);
    let (mut profiles, mut all_notes) = (Vec::new(), Vec::new());
    for (name, taken) in each {
        let Taken { mut profile, notes, .. } = taken;
        let of = |note: String| format!("{}: {note}", name.module);
        all_notes.extend(notes.into_iter().map(of));
        profile.comments = profile.comments.into_iter().map(of).collect();
        profile.add_label("runtime", &name.module);
        profiles.push(profile);
    }
    let merged = profile::merge(profiles).map_err(|e| Error::Failed(e.to_string()))?;
    let merged = merged.ok_or_else(|| Error::Failed("no Go runtime answered".to_owned()))?;
    Ok(Taken {
        profile: merged,
        cost,
        missing: (!missing.is_empty()).then(|| missing.join("; ")),
        notes: all_notes,
        ticks: None,
        sampling: None,
    })
}

pub(crate) fn difference(first: Taken, second: Taken) -> Result<Taken, Error> {
    let profile = profile::diff(&first.profile, &second.profile).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(Taken {
        profile,
        cost: second.cost.map(|second| first.cost.map_or(second, |first| first.and(second))),
        missing: first.missing.or(second.missing),
        notes: second.notes,
        ticks: second.ticks,
        sampling: None,
    })
}

/// Reads a profile from outside. `ticks` of a first profile converts the times of a second one alike.
fn read(
    kind: ProfileKind,
    process: &Process,
    opened: Opened,
    ticks: Option<TicksPerSecond>,
) -> Result<Taken, Error> {
    match kind {
        ProfileKind::Goroutine => goroutines(process, opened),
        ProfileKind::ThreadCreate => threads(process, &opened),
        ProfileKind::Heap | ProfileKind::Allocs | ProfileKind::Block | ProfileKind::Mutex => {
            table(kind, process, &opened, ticks)
        }
    }
}

fn goroutines(process: &Process, opened: Opened) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let time = SystemTime::now();
    let options = SnapshotOptions { pause: Pause::No, system: false, goid: None };
    let seen = stack::look(process, opened, &options)?;
    let memory = process.memory();
    let made = goroutine_profile(&seen.view, &memory, &seen.snapshot, mapped, time);
    let all = made.goroutines + made.unavailable;
    let missing = (made.unavailable > 0)
        .then(|| format!("the frames of {} of {all} goroutines could not be read", made.unavailable));
    let cost = seen.cost().and(AnswerCost::of_reading(memory.cost()));
    Ok(Taken {
        profile: made.profile,
        cost: Some(cost),
        missing,
        notes: notes_of(seen.panicking),
        ticks: None,
        sampling: None,
    })
}

fn threads(process: &Process, opened: &Opened) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let view = &opened.view;
    if view.allm.is_none() {
        let what = "its list of threads was not found".to_owned();
        return Err(Error::Uncalibrated { pid: process.pid(), what });
    }
    let memory = process.memory();
    let made = thread_profile(view, &memory, mapped).map_err(|e| record_error(process, e))?;
    let notes = notes_of(panicking::look(process, view));
    process.check()?;
    let cost = AnswerCost::of_reading(opened.cost).and(AnswerCost::of_reading(memory.cost()));
    let missing = made.doubt.map(|doubt| format!("the profile is doubtful: {}", doubt.why));
    Ok(Taken { profile: made.profile, cost: Some(cost), missing, notes, ticks: None, sampling: None })
}

/// Returns the notes about a panicking program.
fn notes_of(panicking: Option<bool>) -> Vec<String> {
    if panicking == Some(true) { vec![panicking::NOTE.to_owned()] } else { Vec::new() }
}

/// Returns the heap profile as an agent would answer it: of the chosen runtime, or of all.
pub(crate) fn heap(process: &Process, runtime: Option<&str>) -> Result<Vec<u8>, Error> {
    let answers = runtimes::ask(process, runtime, |opened| read(ProfileKind::Heap, process, opened, None))?;
    Ok(pprof::write(&together(answers)?.profile))
}

/// Reads a profile from a table of the runtime.
fn table(
    kind: ProfileKind,
    process: &Process,
    opened: &Opened,
    ticks: Option<TicksPerSecond>,
) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let view = &opened.view;
    let memory = process.memory();
    let tables = Tables::locate(view);
    let mut reading = Reading::take(kind, &tables, &memory).map_err(|e| buckets_error(process, e))?;
    let converted = reading.convert(ticks);
    let mut profile = reading.profile(kind, &tables, mapped);
    let profilers = Profilers::read(&tables, &memory);
    let mut notes = notes_of(panicking::look(process, view));
    process.check()?;
    if let Some((profiler, because)) = off(kind, &profilers) {
        // From Go 1.26, one allocation may be from before the runtime knew that nobody wants samples.
        let linked = profilers.memory != Sampling::NotLinked;
        let nothing = profile.samples.len() <= usize::from(!linked);
        if nothing {
            let hint = match kind {
                ProfileKind::Heap | ProfileKind::Allocs => Some(format!(
                    "`gops-probe heap {}` shows what holds memory now; --enable --duration 30s switches it on for \
                         a while",
                    process.pid()
                )),
                _ => Some("--enable --duration 30s switches it on for a while".to_owned()),
            };
            return Err(Error::ProfilerOff { pid: process.pid(), profiler, because, hint });
        }
        let note = format!("the {profiler} profiler is off now ({because}): these samples are from before");
        profile.comments.push(note.clone());
        notes.push(note);
    }
    let cost = AnswerCost::of_reading(opened.cost).and(AnswerCost::of_reading(memory.cost()));
    Ok(Taken { profile, cost: Some(cost), missing: None, notes, ticks: converted, sampling: None })
}

/// Returns the profiler of a profile and the reason why it is off. `None` if it is on, or if there is no
/// profiler.
fn off(kind: ProfileKind, profilers: &Profilers) -> Option<(&'static str, String)> {
    let (profiler, variable, sampling) = match kind {
        ProfileKind::Heap | ProfileKind::Allocs => ("memory", "MemProfileRate", profilers.memory),
        ProfileKind::Block => ("block", "the rate of runtime.SetBlockProfileRate", profilers.block),
        ProfileKind::Mutex => ("mutex", "the rate of runtime.SetMutexProfileFraction", profilers.mutex),
        ProfileKind::Goroutine | ProfileKind::ThreadCreate => return None,
    };
    let because = match sampling {
        Sampling::Off => format!("{variable} is 0"),
        Sampling::NotLinked => {
            "nothing in the program reads its profile, so the linker left it out".to_owned()
        }
        _ => return None,
    };
    Some((profiler, because))
}
