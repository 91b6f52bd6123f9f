//! Samples by perf events, without BPF. The kernel follows frame pointers and copies the registers and the
//! top of the stack.

mod events;
mod records;

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

pub use events::{Error, Scope};

use self::events::{Events, Shape};
use self::records::{Record, Sample};
use super::source::{Counts, Event, GoTarget, MAX_STACK, RawSample, Source};
use crate::process::Pid;
use crate::{clock, stop};

/// Options of sampling by perf events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerfOptions {
    /// Samples per second and CPU.
    pub rate: u32,
    /// True to sample all processes, not only those that are added.
    pub whole_system: bool,
    /// True to include frames of the kernel, if permitted.
    pub kernel_frames: bool,
    /// True to follow processes that targets begin.
    pub follow: bool,
    /// Scope to attach to; `None` for the best that is permitted.
    pub scope: Option<Scope>,
}

/// Sampling perf events.
#[derive(Debug)]
pub struct Perf {
    options: PerfOptions,
    events: Events,
    targets: HashSet<Pid>,
    /// Threads that have events of their own; threads that these begin inherit the events.
    attached: HashSet<i32>,
    /// Thread of each event, by the number of the event.
    owners: HashMap<u64, i32>,
    /// Records that are not reported yet: an earlier record may still arrive.
    waiting: Vec<Record>,
    started: bool,
    counts: Counts,
}

/// Time after which the records of a moment are in the buffers of all CPUs, in nanoseconds.
const SETTLED_NS: u64 = 10_000_000;
/// Number of rounds that look for threads which began while the others were attached to.
const ROUNDS: usize = 4;
/// Maximum length of a chain of forks that is followed before the first fork is reported.
const MAX_FORKS: usize = 8;
/// Bytes of stack that are copied per second on each CPU.
const STACK_BUDGET: u32 = 2 << 20;

impl Perf {
    /// Opens the permitted events. Sampling starts at the first [`Source::poll`].
    ///
    /// # Errors
    /// Returns an error if the kernel lacks or denies the events.
    pub fn open(options: PerfOptions) -> Result<Self, Error> {
        let rate = options.rate.clamp(1, max_rate());
        let options = PerfOptions { rate, ..options };
        // At a high rate, less stack is copied for each sample: the frame of the call is enough for Go code.
        let stack = (STACK_BUDGET / rate).min(MAX_STACK) & !1023;
        let follow = options.follow || options.whole_system;
        let shape = Shape { rate, kernel_frames: options.kernel_frames, stack: stack.max(1024), follow };
        let cpus = || Events::of_cpus(shape);
        let events = match options.scope {
            Some(Scope::Cpus) => cpus(),
            None if options.whole_system => cpus(),
            Some(Scope::Threads) => Events::of_threads(shape),
            None => match cpus() {
                Err(Error::DeniedCpus { .. }) => Events::of_threads(shape),
                other => other,
            },
        }?;
        Ok(Perf {
            options,
            events,
            targets: HashSet::new(),
            attached: HashSet::new(),
            owners: HashMap::new(),
            waiting: Vec::new(),
            started: false,
            counts: Counts::default(),
        })
    }

    /// Rate in use: the kernel has a limit (`kernel.perf_event_max_sample_rate`).
    pub fn rate(&self) -> u32 {
        self.options.rate
    }

    /// Scope of the events.
    pub fn scope(&self) -> Scope {
        self.events.scope()
    }

    /// Adds a process to the sampled ones.
    ///
    /// # Errors
    /// Returns an error if the kernel denies the events.
    pub fn add_process(&mut self, pid: Pid) -> Result<(), Error> {
        if !self.targets.insert(pid) || self.events.scope() == Scope::Cpus {
            return Ok(());
        }
        let added = self.attach(pid);
        if added.is_err() {
            self.targets.remove(&pid);
        }
        added
    }

    fn attach(&mut self, pid: Pid) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let tids = stop::threads(pid.as_raw()).map_err(|_| Error::Exited(pid))?;
            let new: Vec<i32> = tids.into_iter().filter(|tid| !self.attached.contains(tid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for tid in new {
                let ids = match self.events.add_thread(pid, tid, self.started) {
                    Err(Error::Exited(_)) => continue,
                    other => other?,
                };
                self.attached.insert(tid);
                self.owners.extend(ids.into_iter().map(|id| (id, tid)));
            }
        }
        Ok(())
    }

    /// Returns true if a process is a target, or will be one by a record that is not reported yet.
    fn is_followed(&self, pid: u32) -> bool {
        let mut at = Some(pid);
        // Each step is another fork; only a few happen in one moment.
        for _ in 0..MAX_FORKS {
            let Some(pid) = at else { break };
            if self.options.whole_system || process(pid).is_some_and(|pid| self.targets.contains(&pid)) {
                return true;
            }
            at = self.waiting.iter().find_map(|record| match record {
                Record::Fork { pid: child, parent, .. } if *child == pid && child != parent => Some(*parent),
                _ => None,
            });
        }
        false
    }

    fn tell(&mut self, record: Record, each: &mut dyn FnMut(Event<'_>)) {
        let whole = self.options.whole_system;
        match record {
            Record::Sample(sample) => {
                let Some(pid) = process(sample.pid) else { return };
                let own = whole || self.targets.contains(&pid);
                if own && self.is_first(&sample) {
                    self.counts.taken += 1;
                    each(Event::Sample(self.raw(pid, &sample)));
                }
            }
            Record::Fork { pid, parent, .. } => {
                let (Some(pid), Some(parent)) = (process(pid), process(parent)) else { return };
                let follows = whole || (self.options.follow && self.targets.contains(&parent));
                if pid != parent && follows {
                    self.targets.insert(pid);
                    each(Event::Fork { pid, parent });
                }
            }
            Record::Exec { pid, .. } => {
                if let Some(pid) = process(pid).filter(|pid| whole || self.targets.contains(pid)) {
                    each(Event::Exec(pid));
                }
            }
            Record::Exit { pid, tid, .. } => {
                let Ok(tid) = i32::try_from(tid) else { return };
                // The kernel may reuse the thread id.
                self.attached.remove(&tid);
                // The pid of an ended process may belong to another process later.
                if process(pid).is_some_and(|pid| pid.as_raw() == tid)
                    && let Some(pid) = process(pid)
                    && stop::threads(tid).is_err()
                {
                    self.targets.remove(&pid);
                }
            }
            Record::Lost { lost, .. } => self.counts.lost += lost,
        }
    }

    /// Returns true if the sample is not a duplicate. A thread that began while its process was attached to
    /// may have its own events besides inherited ones.
    fn is_first(&self, sample: &Sample) -> bool {
        let Ok(tid) = i32::try_from(sample.tid) else { return false };
        !self.attached.contains(&tid) || self.owners.get(&sample.id) == Some(&tid)
    }

    fn raw<'s>(&self, pid: Pid, sample: &'s Sample) -> RawSample<'s> {
        RawSample {
            pid,
            tid: i32::try_from(sample.tid).unwrap_or_default(),
            time: sample.time,
            in_kernel: sample.in_kernel,
            user: sample.user,
            frames: sample.frames.clone(),
            resumed_after_cgo: false,
            crossed: None,
            cut: sample.kernel.len() + sample.frames.len() + 1 >= self.events.max_frames(),
            goroutine: None,
            kernel: sample.kernel.clone(),
            stack: &sample.stack,
        }
    }
}

impl Source for Perf {
    fn add(&mut self, pid: Pid, _: &[GoTarget]) -> io::Result<()> {
        self.add_process(pid).map_err(io::Error::other)
    }

    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        if !self.started {
            self.events.start()?;
            self.started = true;
        }
        self.events.wait(timeout)?;
        let settled = clock::monotonic().cast_unsigned().saturating_sub(SETTLED_NS);
        // A poll without timeout is the last one: no record comes after it.
        let until = if timeout.is_zero() { u64::MAX } else { settled };
        let waiting = &mut self.waiting;
        let before = waiting.len();
        self.events.read(&mut |record| waiting.push(record));
        for record in self.waiting.get(before..).unwrap_or_default() {
            if let Record::Exec { pid, .. } = record
                && let Some(process) = process(*pid).filter(|_| self.is_followed(*pid))
            {
                each(Event::Executing(process));
            }
        }
        let waiting = &mut self.waiting;
        waiting.sort_by_key(Record::time);
        let ready = waiting.partition_point(|record| record.time() < until);
        let rest = waiting.split_off(ready);
        for record in std::mem::replace(waiting, rest) {
            self.tell(record, each);
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec!["which goroutine ran, and its labels, are not known without BPF".to_owned()];
        if self.events.scope() == Scope::Threads {
            notes.push(format!(
                "events are attached to threads: of each thread the first {} of CPU time are not seen",
                humantime::format_duration(Duration::from_micros(1_000_000 / u64::from(self.options.rate)))
            ));
        }
        if self.events.only_user() {
            notes.push("time in the kernel is not counted: that needs CAP_PERFMON, or kernel.perf_event_paranoid of 1 or less".to_owned());
        }
        notes
    }
}

fn process(number: u32) -> Option<Pid> {
    number.try_into().ok()
}

/// Returns the highest rate that the kernel accepts.
fn max_rate() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").ok();
    limit.and_then(|text| text.trim().parse().ok()).filter(|&rate| rate > 0).unwrap_or(u32::MAX)
}
