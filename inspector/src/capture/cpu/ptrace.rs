//! Samples by looking at threads from time to time, and stopping a running thread for a moment.
//!
//! Each look takes a sample of each thread that is on a CPU. The kernel does not distinguish these from
//! threads that wait for a CPU, which are often at a few places: where they yielded, or woke others. So each
//! thread that runs or waits is stopped. If it had waited for its CPU since before the look
//! (`/proc/PID/task/TID/schedstat`), it was not on a CPU, and the sample is dropped. Any other sample counts
//! for the part of its time that the thread really used: see [`account`]. The looks come at irregular times,
//! and less often if stops take longer than their share of the time.

mod account;
mod target;
mod walk;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use self::target::{Running, SampledProcess, Times};
use self::walk::Walked;
use super::source::{Counts, Event, GoTarget, Pauses, RawSample, Source};
use crate::clock;
use crate::memory::InStop;
use crate::native::frame::SampleRegisters;
use crate::process::Pid;
use crate::process::facts::Status;
use crate::stop::{self, PendingStop, Raised, StopError, StopOutcome, Stopped};

/// Options of sampling by stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtraceOptions {
    /// Samples per second of each running thread, at most [`MAX_RATE`].
    pub rate: u32,
    /// True to follow processes that targets begin.
    pub follow: bool,
}

/// Maximum rate, in samples per second.
pub const MAX_RATE: u32 = 100;
/// Time after which a thread that has not stopped is left alone: it waits long for a core.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);
/// Interval at which late threads are checked for their stop.
const LATE_EVERY: Duration = Duration::from_millis(1);
/// Divisor of the time that stops may take: one part in this many.
const PAUSED_PART: u32 = 100;
/// Tolerance of waiting times: the kernel counts gops-probe as running a little before its code runs.
const LATE: Duration = Duration::from_micros(20);
/// Estimate of the duration of a stop, until one is measured.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// Divisor of our own time that looking may take: one part in this many.
const LOOKING_PART: u32 = 5;
/// Interval at which new processes and other programs are looked for.
const FAMILY_EVERY: Duration = Duration::from_millis(100);
/// Maximum number of periods that one sample counts for.
const MAX_WEIGHT: u64 = 1 << 10;

/// Source of samples by stops.
#[derive(Debug)]
pub struct Ptrace {
    options: PtraceOptions,
    period: Duration,
    targets: HashMap<Pid, SampledProcess>,
    last_look: Option<Instant>,
    next_look: Instant,
    next_family: Instant,
    random: u64,
    started: Option<Instant>,
    pauses: Pauses,
    counts: Counts,
    /// Number of times that a thread did not stop in time.
    missed: u64,
    /// Threads that have not stopped in time, until they do.
    late: Vec<PendingStop>,
    /// CPU time of threads that ended before it was sampled.
    unseen: Duration,
    /// Raised priority of this thread: while it holds others, it should not wait for a core.
    priority: Option<Raised>,
}

impl Ptrace {
    /// Creates the source; no thread is looked at before the first [`Source::poll`].
    pub fn new(options: PtraceOptions) -> Self {
        let rate = options.rate.clamp(1, MAX_RATE);
        let now = Instant::now();
        Ptrace {
            options: PtraceOptions { rate, ..options },
            period: Duration::from_secs(1) / rate,
            targets: HashMap::new(),
            last_look: None,
            next_look: now,
            next_family: now,
            random: clock::monotonic().cast_unsigned() | 1,
            started: None,
            pauses: Pauses::default(),
            counts: Counts::default(),
            missed: 0,
            late: Vec::new(),
            unseen: Duration::ZERO,
            priority: None,
        }
    }

    /// Rate in use.
    pub fn rate(&self) -> u32 {
        self.options.rate
    }

    /// Looks at all threads once, `after` the last look, and takes samples of those that run.
    fn look(&mut self, at: Instant, after: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let mut running = Vec::new();
        let mut gone = Vec::new();
        for (&pid, target) in &mut self.targets {
            match target.look(pid, &mut running) {
                Ok(unseen) => self.unseen += unseen,
                Err(_) => gone.push(pid),
            }
        }
        for target in gone.iter().filter_map(|pid| self.targets.remove(pid)) {
            self.unseen += target.unseen();
        }
        running.retain(|thread| self.late.iter().all(|late| late.pid() != thread.pid.as_raw()));
        // If not all threads may be stopped, a random choice stands for the others.
        let all = u32::try_from(running.len()).unwrap_or(u32::MAX);
        let chosen = all.min(self.stops_left());
        for n in 0..chosen {
            let (next, rest) = (n as usize, u64::from(all - n));
            let other = next + usize::try_from(self.random() % rest).unwrap_or_default();
            running.swap(next, other);
            if let Some(&thread) = running.get(next) {
                self.sample(thread, at, after * all / chosen, each)?;
            }
            // Other threads may lack a core too, and meanwhile the late thread may stop.
            if !self.late.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Sleeps, and lets late threads go when they stop.
    fn rest(&mut self, until: Instant) {
        loop {
            self.late.retain_mut(|late| !late.is_over());
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(if self.late.is_empty() { left } else { left.min(LATE_EVERY) });
        }
    }

    /// Number of stops, as long as those before, that the limit of stop time still allows.
    fn stops_left(&self) -> u32 {
        let Some(started) = self.started else { return 0 };
        let left = (started.elapsed() / PAUSED_PART).saturating_sub(self.pauses.total);
        let stops = left.as_nanos() / self.mean_pause().as_nanos().max(1);
        u32::try_from(stops).unwrap_or(u32::MAX)
    }

    fn mean_pause(&self) -> Duration {
        match u32::try_from(self.pauses.number) {
            Ok(0) => FIRST_PAUSE,
            number => self.pauses.total / number.unwrap_or(u32::MAX),
        }
    }

    /// CPU time of threads that no look found running.
    fn all_unseen(&self) -> Duration {
        self.unseen + self.targets.values().map(SampledProcess::unseen).sum::<Duration>()
    }

    fn random(&mut self) -> u64 {
        // Xorshift is random enough here.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Takes a sample that stands for some time of a thread, if the thread was on a CPU at the time of the
    /// look.
    fn sample(
        &mut self,
        thread: Running,
        look: Instant,
        stands_for: Duration,
        each: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        let Some(target) = self.targets.get_mut(&thread.pid) else { return Ok(()) };
        let stopped = match Stopped::one_in_passing(thread.pid.as_raw(), thread.tid, STOP_TIMEOUT) {
            Ok(StopOutcome::Stopped(stopped)) => stopped,
            Ok(StopOutcome::Pending(late)) => {
                self.missed += 1;
                self.late.push(late);
                return Ok(());
            }
            Err(StopError::Exited) => return Ok(()),
            // Another tracer holds the thread.
            Err(StopError::Denied) if stop::is_traced(thread.pid.as_raw()) => {
                self.missed += 1;
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(format!("stopping thread {}: {error}", thread.tid))),
        };
        let time = clock::monotonic().cast_unsigned();
        // Pages that are not in memory are not fetched for a sample.
        let in_stop = InStop::begin(&*target.memory);
        let walked = stopped.registers(thread.tid).ok().map(|registers| {
            let walked = walk::walk(&registers, &target.go, &*target.memory);
            (SampleRegisters { ip: registers.pc, sp: registers.sp, bp: registers.fp }, walked)
        });
        let waited = Times::read(thread.pid, thread.tid).and_then(|times| times.waited);
        let since_look = stopped.seen_running().saturating_duration_since(look) + LATE;
        drop(in_stop);
        self.pauses.add(stopped.resume());
        // The thread was killed while it was held.
        let Some((user, walked)) = walked else { return Ok(()) };
        if let (Some(before), Some(now)) = (thread.waited, waited)
            && now.saturating_sub(before) > since_look
        {
            return Ok(());
        }
        let Some(account) = target.threads.get_mut(&thread.tid) else { return Ok(()) };
        account.found(stands_for);
        account.owe(stands_for, self.period);
        let weight = account.take(self.period).min(MAX_WEIGHT);
        let Walked { frames, resumed_after_cgo, cut, crossed, goroutine, stack } = walked;
        self.counts.taken += weight;
        for _ in 0..weight {
            each(Event::Sample(RawSample {
                pid: thread.pid,
                tid: thread.tid,
                time,
                in_kernel: false,
                user: Some(user),
                frames: frames.clone(),
                resumed_after_cgo,
                cut,
                crossed: (!target.go.is_empty()).then_some(crossed),
                goroutine,
                kernel: Vec::new(),
                stack: &stack,
            }));
        }
        Ok(())
    }

    /// Finds processes that began, and processes that execute another program.
    fn family(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        let mut begun = Vec::new();
        for (&pid, target) in &mut self.targets {
            if target.executes_another_program(pid) {
                // The layout of the other program is added soon.
                target.go.clear();
                each(Event::Exec(pid));
            }
            if self.options.follow {
                begun.extend(target.children(pid).map(|child| (child, pid)));
            }
        }
        for (pid, parent) in begun {
            if let Entry::Vacant(place) = self.targets.entry(pid) {
                place.insert(SampledProcess::new(pid, Vec::new(), true));
                each(Event::Fork { pid, parent });
            }
        }
    }

    /// Schedules the next look. Irregular times keep looks from running in step with periodic work.
    fn schedule(&mut self, looked: Duration) {
        let part = u32::try_from(self.random() % 1024).unwrap_or(512);
        let jittered = self.period / 2 + self.period * part / 1024;
        let now = Instant::now();
        self.next_look = now + jittered.max(looked * LOOKING_PART);
        // The next look comes only when there is time for one stop.
        if let Some(started) = self.started {
            self.next_look =
                self.next_look.max(started + (self.pauses.total + self.mean_pause()) * PAUSED_PART);
        }
    }
}

impl Drop for Ptrace {
    fn drop(&mut self) {
        PendingStop::await_all(std::mem::take(&mut self.late));
    }
}

impl Source for Ptrace {
    fn add(&mut self, pid: Pid, go: &[GoTarget]) -> io::Result<()> {
        if let Some(target) = self.targets.get_mut(&pid) {
            target.go = go.to_vec();
            return Ok(());
        }
        let status = Status::parse(&fs::read(format!("/proc/{pid}/status"))?);
        if let Some(tracer) = status.tracer {
            return Err(io::Error::other(format!(
                "process {pid} is traced by process {tracer}, and only one can trace it: end that debugger"
            )));
        }
        self.targets.insert(pid, SampledProcess::new(pid, go.to_vec(), false));
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        if self.started.is_none() {
            self.priority = Some(Raised::raise());
        }
        let begun = *self.started.get_or_insert_with(Instant::now);
        let until = Instant::now() + timeout;
        // The time before the first look counts for no thread.
        if self.next_look <= begun {
            self.next_look = begun;
        }
        while self.next_look < until {
            self.rest(self.next_look);
            let looking = Instant::now();
            // The first look only reads the CPU time that threads have used before.
            if self.last_look.is_some() && self.stops_left() == 0 {
                self.schedule(Duration::ZERO);
                continue;
            }
            if looking >= self.next_family {
                self.family(each);
                self.next_family = looking + FAMILY_EVERY;
            }
            let paused = self.pauses.total;
            let after = self.last_look.replace(looking).map_or(Duration::ZERO, |last| looking - last);
            self.look(looking, after, each)?;
            let looked = looking.elapsed().saturating_sub(self.pauses.total - paused);
            self.schedule(looked);
        }
        self.rest(until);
        Ok(())
    }

    fn counts(&self) -> Counts {
        let lost = self.all_unseen().as_nanos() / self.period.as_nanos().max(1);
        let pauses = Some(self.pauses);
        Counts { lost: u64::try_from(lost).unwrap_or(u64::MAX), pauses, ..self.counts }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "threads were stopped one at a time: those that began and ended between two looks are not seen, and time in the kernel counts for the system call".to_owned(),
        ];
        let unseen = self.all_unseen();
        if unseen >= self.period * 10 {
            notes.push(format!(
                "{} ms of CPU time are of threads that no look found running",
                unseen.as_millis()
            ));
        }
        if self.missed > 0 {
            notes.push(format!("{} times a thread did not come to its stop in time", self.missed));
        }
        notes
    }
}
