//! Samples by looking at threads from time to time, and stopping one that runs for a moment.
//!
//! That a thread is found running says little: it may be waiting for a CPU. How much counts a sample for is what the
//! kernel says that the thread has used (`/proc/PID/task/TID/schedstat`). Each thread is owed a sample for each period
//! of CPU time. Once it is owed one, the next look that finds it running takes it, for all the periods that it is owed
//! by then. So the share of each thread is right whenever the looks come, and within a thread the places are those of
//! looks at irregular times.

mod account;
mod walk;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::account::{Account, Turn};
use self::walk::Walked;
use super::source::{Counts, Event, GoTarget, Pauses, RawSample, Registers, Source};
use crate::memory::LiveMemory;
use crate::process::Pid;
use crate::process::facts::{Stat, Status};
use crate::stop::{self, StopError, Stopped};

/// How to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Samples of each running thread in a second, at most [`MAX_RATE`].
    pub rate: u32,
    /// Whether processes that targets begin are followed.
    pub follow: bool,
}

/// The highest rate.
pub const MAX_RATE: u32 = 100;
/// A thread that does not come to its stop in this time is left alone.
const STOP_TIMEOUT: Duration = Duration::from_millis(20);
/// Stops take up no more than this part of the time: one in so many.
const PAUSED_PART: u32 = 100;
/// Looking takes up no more of our own time than one part in so many.
const LOOKING_PART: u32 = 5;
/// How often new processes and other programs are looked for.
const FAMILY_EVERY: Duration = Duration::from_millis(100);
/// More threads than are looked at.
const MAX_THREADS: usize = 1 << 16;
/// As many periods as one sample can count for.
const MAX_WEIGHT: u64 = 1 << 10;

/// Samples by stops.
#[derive(Debug)]
pub struct Ptrace {
    options: Options,
    period: Duration,
    targets: HashMap<Pid, Target>,
    next_look: Instant,
    next_family: Instant,
    random: u64,
    started: Option<Instant>,
    pauses: Pauses,
    counts: Counts,
    /// Threads that did not come to their stop in time.
    missed: u64,
    /// CPU time of threads that ended before it was sampled.
    unseen: Duration,
}

/// A process that is looked at.
#[derive(Debug)]
struct Target {
    go: Option<GoTarget>,
    memory: LiveMemory,
    threads: HashMap<i32, Account>,
    /// It was looked at: a thread that is new from now on has begun meanwhile.
    seen: bool,
    /// What it executes: device and inode.
    program: Option<(u64, u64)>,
}

/// Whom to stop.
#[derive(Debug, Clone, Copy)]
struct Due {
    pid: Pid,
    tid: i32,
    owed: Duration,
}

impl Ptrace {
    /// Nothing is looked at before the first [`Source::poll`].
    pub fn new(options: Options) -> Self {
        let rate = options.rate.clamp(1, MAX_RATE);
        let now = Instant::now();
        Ptrace {
            options: Options { rate, ..options },
            period: Duration::from_secs(1) / rate,
            targets: HashMap::new(),
            next_look: now,
            next_family: now,
            random: clock() | 1,
            started: None,
            pauses: Pauses::default(),
            counts: Counts::default(),
            missed: 0,
            unseen: Duration::ZERO,
        }
    }

    /// The rate in use.
    pub fn rate(&self) -> u32 {
        self.options.rate
    }

    /// Looks at all threads once, and takes the samples that are due.
    fn look(&mut self, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let mut due = Vec::new();
        let mut gone = Vec::new();
        for (&pid, target) in &mut self.targets {
            match target.look(pid, self.period, &mut due) {
                Ok(unseen) => self.unseen += unseen,
                Err(_) => gone.push(pid),
            }
        }
        for pid in gone {
            self.targets.remove(&pid);
        }
        // Who waits for longest comes first, as time may not do for all.
        due.sort_by_key(|due| std::cmp::Reverse(due.owed));
        for due in due {
            if !self.may_pause() {
                break;
            }
            self.sample(due, each)?;
        }
        Ok(())
    }

    /// Whether another stop, as long as those before, keeps within what they may take.
    fn may_pause(&self) -> bool {
        let Some(started) = self.started else { return false };
        let mean = self.pauses.total / u32::try_from(self.pauses.number).unwrap_or(u32::MAX).max(1);
        (self.pauses.total + mean) * PAUSED_PART <= started.elapsed() || self.pauses.number == 0
    }

    fn sample(&mut self, due: Due, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let Some(target) = self.targets.get_mut(&due.pid) else { return Ok(()) };
        let stopped = match Stopped::one_thread(due.tid, STOP_TIMEOUT) {
            Ok(stopped) => stopped,
            Err(StopError::Exited) => return Ok(()),
            Err(StopError::Timeout(_)) => {
                self.missed += 1;
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(format!("stopping thread {}: {error}", due.tid))),
        };
        let time = clock();
        let walked = stopped.registers(due.tid).ok().map(|registers| {
            let walked = walk::walk(&registers, target.go.as_ref(), &target.memory);
            (Registers { ip: registers.pc, sp: registers.sp, bp: registers.fp }, walked)
        });
        self.pauses.add(stopped.thaw());
        // It was killed while it was held.
        let Some((user, walked)) = walked else { return Ok(()) };
        let Some(account) = target.threads.get_mut(&due.tid) else { return Ok(()) };
        let weight = account.take(self.period).min(MAX_WEIGHT);
        let Walked { frames, hopped, cut, goroutine, stack } = walked;
        self.counts.taken += weight;
        for _ in 0..weight {
            each(Event::Sample(RawSample {
                pid: due.pid,
                tid: due.tid,
                time,
                in_kernel: false,
                user: Some(user),
                frames: frames.clone(),
                hopped,
                cut,
                goroutine,
                kernel: Vec::new(),
                stack: &stack,
            }));
        }
        Ok(())
    }

    /// Finds processes that began, and those that execute another program.
    fn family(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        let mut begun = Vec::new();
        for (&pid, target) in &mut self.targets {
            let program = program_of(pid);
            if program.is_some() && target.program.is_some() && program != target.program {
                // Another layout, which is told soon.
                target.go = None;
                each(Event::Exec(pid));
            }
            target.program = program.or(target.program);
            if self.options.follow {
                let children = target.threads.keys().flat_map(|&tid| children_of(pid, tid));
                begun.extend(children.map(|child| (child, pid)));
            }
        }
        for (pid, parent) in begun {
            if !self.targets.contains_key(&pid) {
                self.targets.insert(pid, Target::new(pid, None, true));
                each(Event::Fork { pid, parent });
            }
        }
    }

    /// When to look next: at irregular times, or looks would keep step with what works in steps.
    fn schedule(&mut self, looked: Duration) {
        // Of xorshift, for want of any need of better numbers.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = u32::try_from(self.random % 1024).unwrap_or(512);
        let jittered = self.period / 2 + self.period * part / 1024;
        self.next_look = Instant::now() + jittered.max(looked * LOOKING_PART);
    }
}

impl Source for Ptrace {
    fn add(&mut self, pid: Pid, go: Option<&GoTarget>) -> io::Result<()> {
        if let Some(target) = self.targets.get_mut(&pid) {
            target.go = go.copied();
            return Ok(());
        }
        let status = Status::parse(&fs::read(format!("/proc/{pid}/status"))?);
        if let Some(tracer) = status.tracer {
            return Err(io::Error::other(format!(
                "process {pid} is traced by process {tracer}, and only one can trace it: end that debugger"
            )));
        }
        self.targets.insert(pid, Target::new(pid, go.copied(), false));
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let begun = *self.started.get_or_insert_with(Instant::now);
        let until = Instant::now() + timeout;
        // Time up to the first look is nobody's.
        if self.next_look <= begun {
            self.next_look = begun;
        }
        while self.next_look < until {
            std::thread::sleep(self.next_look.saturating_duration_since(Instant::now()));
            let looking = Instant::now();
            if looking >= self.next_family {
                self.family(each);
                self.next_family = looking + FAMILY_EVERY;
            }
            let paused = self.pauses.total;
            self.look(each)?;
            let looked = looking.elapsed().saturating_sub(self.pauses.total - paused);
            self.schedule(looked);
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn counts(&self) -> Counts {
        let lost = self.unseen.as_nanos() / self.period.as_nanos().max(1);
        let pauses = Some(self.pauses);
        Counts { lost: u64::try_from(lost).unwrap_or(u64::MAX), pauses, ..self.counts }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "threads were stopped one at a time: those that began and ended between two looks are not seen, and time in the kernel counts for the system call".to_owned(),
        ];
        let owed: Duration = self.targets.values().flat_map(|t| t.threads.values()).map(Account::owed).sum();
        if owed >= self.period * 10 {
            notes.push(format!(
                "{} ms of CPU time are of threads that no look found running",
                owed.as_millis()
            ));
        }
        if self.missed > 0 {
            notes.push(format!("{} times a thread did not come to its stop in time", self.missed));
        }
        notes
    }
}

impl Target {
    fn new(pid: Pid, go: Option<GoTarget>, begun_meanwhile: bool) -> Self {
        Target {
            go,
            memory: LiveMemory::new(pid.as_raw()),
            threads: HashMap::new(),
            seen: begun_meanwhile,
            program: program_of(pid),
        }
    }

    /// Looks at the threads. Those that are owed a sample and run go to `due`; gives what ended threads were owed.
    fn look(&mut self, pid: Pid, period: Duration, due: &mut Vec<Due>) -> Result<Duration, StopError> {
        let mut known = std::mem::take(&mut self.threads);
        for tid in stop::threads(pid.as_raw())?.into_iter().take(MAX_THREADS) {
            let dir = format!("/proc/{pid}/task/{tid}");
            let Some(used) = cpu_time(&dir) else { continue };
            let account = match known.remove(&tid) {
                Some(account) => account,
                None if self.seen => Account::begun(),
                None => Account::known(used),
            };
            let account = self.threads.entry(tid).or_insert(account);
            if account.turn(used, period) == Turn::Due && runs(&dir) {
                due.push(Due { pid, tid, owed: account.owed() });
            }
        }
        self.seen = true;
        Ok(known.values().map(Account::owed).sum())
    }
}

/// What a thread has used of CPUs.
fn cpu_time(dir: &str) -> Option<Duration> {
    if let Ok(text) = fs::read_to_string(format!("{dir}/schedstat"))
        && let Some(used) = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok())
        && used > 0
    {
        return Some(Duration::from_nanos(used));
    }
    // A kernel without CONFIG_SCHED_INFO, or a thread that has not run yet.
    let stat = Stat::parse(&fs::read(format!("{dir}/stat")).ok()?)?;
    // USER_HZ, the same everywhere.
    Some(Duration::from_millis(stat.cpu_ticks.saturating_mul(10)))
}

fn runs(dir: &str) -> bool {
    let stat = fs::read(format!("{dir}/stat")).ok();
    stat.and_then(|bytes| Stat::parse(&bytes)).is_some_and(|stat| stat.state == 'R')
}

fn program_of(pid: Pid) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Processes that a thread began; none where the kernel does not tell (CONFIG_PROC_CHILDREN).
fn children_of(pid: Pid, tid: i32) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// CLOCK_MONOTONIC, in nanoseconds.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or_default())
}
