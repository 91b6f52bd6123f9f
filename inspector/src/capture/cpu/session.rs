//! A capture from its beginning to its end: who takes the samples, of which processes, and for how long.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

pub use probe_ebpf::cpu::Loader;

use super::bpf::Bpf;
use super::collect::Collected;
use super::known::{self, Known};
use super::perf::{self, Perf};
use super::privileges;
use super::ptrace::{self, Ptrace};
use super::source::{Counts, Event, MAX_STACK, RawSample, Source};
use crate::Error;
use crate::native::Files;
use crate::process::{self, Pid, Process, find};

/// How samples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// BPF programs on perf events.
    Bpf,
    /// Perf events without BPF.
    Perf,
    /// Threads are stopped one at a time.
    Ptrace,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Bpf => "bpf",
            Mode::Perf => "perf",
            Mode::Ptrace => "ptrace",
        })
    }
}

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Samples of each CPU in a second.
    pub rate: u32,
    /// For how long.
    pub duration: Duration,
    /// All processes of the machine.
    pub whole_system: bool,
    /// Processes that the targets begin, too.
    pub children: bool,
    /// Tell threads apart.
    pub by_thread: bool,
    /// Frames of the kernel too, where that is permitted.
    pub kernel_frames: bool,
    /// How; `None` for the best that is possible.
    pub mode: Option<Mode>,
    /// Who loads BPF programs.
    pub loader: Loader,
}

impl Options {
    /// 99 samples of each CPU in a second, for so long, as an agent takes them, with frames of the kernel; in the best way that is
    /// possible.
    pub fn lasting(duration: Duration) -> Self {
        Options {
            rate: 99,
            duration,
            whole_system: false,
            children: false,
            by_thread: false,
            kernel_frames: true,
            mode: None,
            loader: Loader::default(),
        }
    }
}

/// What was captured.
#[allow(missing_debug_implementations, reason = "some of what is known has none")]
pub struct Captured {
    /// The programs that were seen, as the samples name them.
    pub known: Vec<Known>,
    /// The files of their other code.
    pub files: Files,
    /// The samples.
    pub collected: Collected,
    /// What the source counted.
    pub counts: Counts,
    /// How it was done.
    pub mode: Mode,
    /// Why not in a better way.
    pub because: Vec<String>,
    /// What it cannot tell, in sentences.
    pub notes: Vec<String>,
    /// Samples of each CPU in a second: what was asked for, or what could be had of that.
    pub rate: u32,
    /// When it began.
    pub begun: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// It ended before its time.
    pub early: Option<&'static str>,
}

/// How long to wait for samples until the clock and the target are looked at.
const TICK: Duration = Duration::from_millis(100);
/// More programs than are looked at in one capture.
const MAX_KNOWN: usize = 4096;
/// How soon one that has just begun is looked at again.
const YOUNG: Duration = Duration::from_millis(2);
/// What a source says beforehand and does not say within this time, it will not say.
const LOST: Duration = Duration::from_secs(1);

/// Captures samples of `processes`; `watch` is asked several times a second whether to go on.
///
/// # Errors
/// Where no sample can be taken in any way that is allowed.
pub fn capture(
    processes: &[Process],
    options: &Options,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Captured, Error> {
    let mut capture = Capture::begin(processes, options)?;
    let mut early = None;
    while let Some(left) =
        options.duration.checked_sub(capture.start.elapsed()).filter(|left| !left.is_zero())
    {
        if watch().is_break() {
            early = Some("it was interrupted");
            break;
        }
        early = capture.ended();
        if early.is_some() {
            break;
        }
        capture.poll(left.min(TICK))?;
    }
    capture.end(early)
}

/// A capture that goes on until it is ended.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub struct Capture<'o> {
    processes: &'o [Process],
    session: Session<'o>,
    chosen: Chosen,
    collected: Collected,
    begun: SystemTime,
    start: Instant,
}

impl<'o> Capture<'o> {
    /// Begins to take samples of `processes`.
    ///
    /// # Errors
    /// Where no sample can be taken in any way that is allowed.
    pub fn begin(processes: &'o [Process], options: &'o Options) -> Result<Self, Error> {
        let mut session = Session {
            options,
            files: Files::default(),
            known: Vec::new(),
            now: HashMap::new(),
            parents: HashMap::new(),
            ahead: HashMap::new(),
        };
        for process in processes {
            let known = Known::open_wanted(process, &session.files, &session.known)?;
            session.add(process.pid(), known);
        }
        let mut chosen = session.source()?;
        if options.children {
            session.add_descendants(processes, &mut *chosen.source)?;
        }
        let (begun, start) = (SystemTime::now(), Instant::now());
        Ok(Capture { processes, session, chosen, collected: Collected::default(), begun, start })
    }

    /// Collects what there is, after up to `timeout`.
    ///
    /// # Errors
    /// Where it cannot go on.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), Error> {
        self.session.poll(&mut *self.chosen.source, timeout, &mut self.collected)
    }

    /// Why no more samples will come, if that is so: children of the targets may still run.
    pub fn ended(&self) -> Option<&'static str> {
        let all = !self.processes.is_empty() && !self.session.options.children;
        (all && self.processes.iter().all(has_ended)).then_some(match self.processes {
            [_] => "the process ended",
            _ => "the processes ended",
        })
    }

    /// What was collected since it was last asked for, and the programs that the samples name.
    pub fn take(&mut self) -> (Collected, &mut [Known]) {
        (std::mem::take(&mut self.collected), &mut self.session.known)
    }

    /// How samples are taken.
    pub fn mode(&self) -> Mode {
        self.chosen.mode
    }

    /// Why not in a better way.
    pub fn because(&self) -> &[String] {
        &self.chosen.because
    }

    /// Samples of each CPU in a second: what was asked for, or what could be had of that.
    pub fn rate(&self) -> u32 {
        self.chosen.rate
    }

    /// What is left out, in sentences.
    pub fn notes(&self) -> Vec<String> {
        left_out(&self.session.known, &self.session.files)
    }

    /// What the source counted so far.
    pub fn counts(&self) -> Counts {
        self.chosen.source.counts()
    }

    /// Ends it, before its time where there is a reason.
    ///
    /// # Errors
    /// Where the last samples cannot be had.
    pub fn end(mut self, early: Option<&'static str>) -> Result<Captured, Error> {
        let took = self.start.elapsed();
        self.poll(Duration::ZERO)?;
        let Capture { session, chosen, collected, begun, .. } = self;
        let Chosen { source, mode, rate, because } = chosen;
        let (counts, mut notes) = (source.counts(), source.notes());
        let wanted = session.options.rate;
        if rate != wanted {
            notes.push(format!("{rate} samples per second instead of {wanted}: {mode} cannot take more"));
        }
        let Session { known, files, .. } = session;
        notes.extend(collected.notes());
        Ok(Captured { known, files, collected, counts, mode, because, notes, rate, begun, took, early })
    }
}

impl Captured {
    /// What is left out, in sentences. Of that, names are left out when a profile is made.
    pub fn left_out(&self) -> Vec<String> {
        left_out(&self.known, &self.files)
    }
}

fn left_out(known: &[Known], files: &Files) -> Vec<String> {
    let mut notes = files.notes();
    let programs = known.iter().filter(|known| known.is_left_out()).count();
    if programs > 0 {
        notes.push(format!(
            "{programs} Go programs are left out, as the function tables of all would take too much memory"
        ));
    }
    notes
}

/// A process that executes another program is still there.
fn has_ended(process: &Process) -> bool {
    matches!(process.check(), Err(process::Error::Exited(_) | process::Error::NoSuchProcess(_)))
}

/// Why somebody cannot take the samples.
type Why = Box<dyn std::error::Error>;

fn why_no_bpf(error: probe_ebpf::Error) -> Why {
    if error.is_denied() { format!("{error}: {}", privileges::for_bpf()).into() } else { error.into() }
}

/// Who takes the samples.
struct Chosen {
    source: Box<dyn Source>,
    mode: Mode,
    rate: u32,
    /// Why not somebody better.
    because: Vec<String>,
}

struct Session<'o> {
    options: &'o Options,
    /// What processes have mapped.
    files: Files,
    known: Vec<Known>,
    /// What each process executes now; `None` where it could not be looked at.
    now: HashMap<Pid, Option<usize>>,
    /// Of processes that began meanwhile.
    parents: HashMap<Pid, Pid>,
    /// What is known of those that execute another program, from before [`Event::Exec`] says so; in the order of their programs.
    ahead: HashMap<Pid, VecDeque<Ahead>>,
}

/// A program that a process has just begun to execute.
struct Ahead {
    since: Instant,
    /// What is known of it, if it could be looked at already.
    known: Option<Known>,
}

impl Session<'_> {
    fn add(&mut self, pid: Pid, known: Known) -> usize {
        self.known.push(known);
        self.now.insert(pid, Some(self.known.len() - 1));
        self.known.len() - 1
    }

    /// Adds the processes that the targets have begun before.
    fn add_descendants(&mut self, of: &[Process], source: &mut dyn Source) -> Result<(), Error> {
        for pid in find::descendants(of)? {
            if self.now.contains_key(&pid) {
                continue;
            }
            if let Some(known) = self.look(pid).and_then(|index| self.known.get(index))
                && let Err(error) = source.add(pid, &known.go_targets())
            {
                tracing::info!("process {pid}: {error}");
            }
        }
        Ok(())
    }

    /// The best source that works, and what kept us from better ones.
    fn source(&self) -> Result<Chosen, Error> {
        let mut because = Vec::new();
        for mode in [Mode::Bpf, Mode::Perf, Mode::Ptrace] {
            if self.options.mode.is_some_and(|wanted| wanted != mode) {
                continue;
            }
            let tried = match mode {
                Mode::Bpf => self.bpf(),
                Mode::Perf => self.perf(),
                Mode::Ptrace => self.ptrace(),
            };
            match tried {
                Ok((source, rate)) => return Ok(Chosen { source, mode, rate, because }),
                Err(why) => because.push(format!("{mode}: {why}")),
            }
        }
        Err(Error::Failed(format!("no samples can be taken: {}", because.join("; "))))
    }

    fn bpf(&self) -> Result<(Box<dyn Source>, u32), Why> {
        let loaded = Bpf::load(probe_ebpf::cpu::Options {
            rate: self.options.rate,
            whole_system: self.options.whole_system,
            kernel_frames: self.options.kernel_frames,
            stack: MAX_STACK,
            follow: self.options.children,
            loader: self.options.loader,
        });
        let mut source = loaded.map_err(why_no_bpf)?;
        self.add_all(&mut source)?;
        source.start().map_err(why_no_bpf)?;
        Ok((Box::new(source), self.options.rate))
    }

    fn perf(&self) -> Result<(Box<dyn Source>, u32), Why> {
        let mut source = Perf::open(perf::Options {
            rate: self.options.rate,
            whole_system: self.options.whole_system,
            kernel_frames: self.options.kernel_frames,
            follow: self.options.children,
            scope: None,
        })?;
        self.add_all(&mut source)?;
        let rate = source.rate();
        Ok((Box::new(source), rate))
    }

    fn ptrace(&self) -> Result<(Box<dyn Source>, u32), Why> {
        if self.options.whole_system {
            return Err("it needs processes to stop: name some".into());
        }
        let options = ptrace::Options { rate: self.options.rate, follow: self.options.children };
        let mut source = Ptrace::new(options);
        self.add_all(&mut source)?;
        let rate = source.rate();
        Ok((Box::new(source), rate))
    }

    fn add_all(&self, source: &mut dyn Source) -> Result<(), Why> {
        for known in &self.known {
            source.add(known.pid, &known.go_targets())?;
        }
        Ok(())
    }

    fn poll(
        &mut self,
        source: &mut dyn Source,
        timeout: Duration,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        // What was found out about new processes is for the source, which is busy until it has told all.
        let mut found = HashSet::new();
        let by_thread = self.options.by_thread;
        let timeout = if self.look_ahead() { timeout.min(YOUNG) } else { timeout };
        let polled = source.poll(timeout, &mut |event| match event {
            Event::Sample(sample) => {
                if let Some(index) = self.known_of(&sample, &mut found) {
                    let known = self.known.get_mut(index).map(|known| (index, known));
                    collected.add(&sample, known, by_thread);
                } else {
                    collected.add(&sample, None, by_thread);
                }
            }
            Event::Fork { pid, parent } => {
                self.parents.insert(pid, parent);
                self.now.remove(&pid);
            }
            Event::Executing(pid) => {
                let ahead = Ahead { since: Instant::now(), known: self.open(pid) };
                self.ahead.entry(pid).or_default().push_back(ahead);
            }
            Event::Exec(pid) => {
                self.parents.remove(&pid);
                self.now.remove(&pid);
                let ahead = self.ahead.get_mut(&pid).and_then(VecDeque::pop_front);
                self.ahead.retain(|_, left| !left.is_empty());
                if let Some(index) = match ahead.and_then(|ahead| ahead.known) {
                    Some(known) => Some(self.add(pid, known)),
                    None => self.look(pid),
                } {
                    found.insert(index);
                }
            }
        });
        polled.map_err(|e| Error::Failed(format!("taking samples: {e}")))?;
        for known in found.into_iter().filter_map(|index| self.known.get(index)) {
            // It may have ended again.
            if let Err(error) = source.add(known.pid, &known.go_targets()) {
                tracing::info!("process {}: {error}", known.pid);
            }
        }
        Ok(())
    }

    /// What is known of the process of a sample; it is looked at where it is a new one.
    fn known_of(&mut self, sample: &RawSample<'_>, found: &mut HashSet<usize>) -> Option<usize> {
        if let Some(&known) = self.now.get(&sample.pid) {
            if let Some(index) = known
                && self.known.get(index).is_some_and(Known::is_due)
                && let others = known::tables(&self.known)
                && self.known.get_mut(index).is_some_and(|known| known.try_again(others))
            {
                found.insert(index);
            }
            return known;
        }
        if let Some(index) = self.look(sample.pid) {
            found.insert(index);
            return Some(index);
        }
        // It has ended. If it executed nothing else, its code was that of its parent.
        let parent = self.parents.get(&sample.pid).and_then(|parent| self.now.get(parent).copied().flatten());
        self.now.insert(sample.pid, parent);
        parent
    }

    fn look(&mut self, pid: Pid) -> Option<usize> {
        self.open(pid).map(|known| self.add(pid, known))
    }

    /// Looks again at what has just begun: the kernel was not done with it, or Go was not, and it may not be there any more
    /// when the first sample of it is told. Says whether there is more to come.
    fn look_ahead(&mut self) -> bool {
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut more = false;
        let others = if ahead.is_empty() { 0 } else { known::tables(&self.known) };
        for (&pid, programs) in &mut ahead {
            // What should have been told long ago was lost.
            programs.retain(|ahead| ahead.since.elapsed() < LOST);
            // Of the ones before the last there is nothing left to see.
            let Some(Ahead { known, .. }) = programs.back_mut() else { continue };
            match known {
                Some(known) => _ = known.try_again(others),
                None => *known = self.open(pid),
            }
            more |= known.as_ref().is_none_or(Known::is_young);
        }
        self.ahead = ahead;
        more
    }

    fn open(&self, pid: Pid) -> Option<Known> {
        if self.known.len() + self.ahead.len() >= MAX_KNOWN {
            return None;
        }
        let open = |process| Known::open(&process, &self.files, &self.known);
        let known = Process::pin(pid).map_err(Error::from).and_then(open);
        known.inspect_err(|error| tracing::debug!("process {pid}: {error}")).ok()
    }
}
