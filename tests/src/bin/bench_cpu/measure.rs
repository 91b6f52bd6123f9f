//! The measurements.

use std::error::Error;
use std::fs;
use std::ops::Add;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use fixtures::matrix::NEWEST;
use fixtures::{Cell, Fixture, Process as Spawned, Program, Variant, build};
use inspector::capture::cpu::mode::{CaptureOptions, Loader, Mode};
use inspector::capture::cpu::session::Capture;
use inspector::process::Process;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use perf_event::events::Software;
use perf_event::{Builder, Counter};
use rustix::time::ClockId;

/// How long the kernel counts.
pub(crate) const COUNTED: Duration = Duration::from_secs(5);

/// Who samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// We, so many times in a second.
    Bpf(u32),
    /// The target itself, by `runtime/pprof`: 100 times in a second.
    Inside,
    /// Nobody: the kernel's timer goes off so many times in a second, and there is no program.
    Timer(u32),
}

pub(crate) const WAYS: [Way; 4] = [Way::Bpf(99), Way::Bpf(999), Way::Inside, Way::Timer(999)];
pub(crate) const RATES: [u32; 2] = [99, 999];

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One goroutine that computes in registers: what others on the machine disturb least.
    Arithmetic,
    /// One goroutine that writes and reads JSON.
    Json,
    /// A server, and a client of it that never waits.
    Server,
}

pub(crate) const SUBJECTS: [Subject; 3] = [Subject::Arithmetic, Subject::Json, Subject::Server];

/// What the kernel counted of our program in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) time: Duration,
    /// CPU time of the target, and of us who read the samples.
    pub(crate) target: Duration,
    pub(crate) ours: Duration,
}

impl Counted {
    /// Seconds of a run.
    pub(crate) fn each(&self) -> f64 {
        self.time.as_secs_f64() / self.runs.max(1) as f64
    }
}

/// The pairs of a subject.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) subject: Subject,
    /// For each way: operations in a second of CPU time, sampled and not.
    pub(crate) pairs: Vec<Vec<(f64, f64)>>,
    /// For each rate.
    pub(crate) counted: Vec<Counted>,
}

/// What the target did in a while.
#[derive(Debug, Clone, Copy)]
struct Work {
    operations: f64,
    cpu: Duration,
}

impl Work {
    /// Operations in a second of its CPU time.
    fn rate(self) -> f64 {
        self.operations / self.cpu.as_secs_f64().max(1e-9)
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Work { operations: self.operations + other.operations, cpu: self.cpu + other.cpu }
    }
}

/// The processor of the target, and the one of its client and of this program.
const TARGETS: usize = 1;
const OURS: usize = 0;

fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// For what goes on for a moment after sampling ended.
const SETTLING: Duration = Duration::from_millis(20);
/// For the client of a server to catch up: who begins to sample takes its processor for some 160 ms.
const CATCHING_UP: Duration = Duration::from_millis(150);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Target {
    fixture: Fixture,
    process: Process,
    clocks: Clocks,
    _client: Option<Spawned>,
}

impl Target {
    fn start(subject: Subject) -> Result<Self> {
        let program = match subject {
            Subject::Arithmetic | Subject::Json => Program::Hot,
            Subject::Server => Program::HttpServer,
        };
        let cell = Cell::new(NEWEST, Variant::Stripped, program);
        build::build(&[cell], 2, &|_, _| ())?;
        // Each has a processor, or the collector's workers would use more or less of what we leave of theirs.
        stay_on(TARGETS)?;
        let mut fixture = Fixture::spawn(&cell, &[], &[])?;
        stay_on(OURS)?;
        let client = match subject {
            Subject::Arithmetic => {
                fixture.order("begin shares")?;
                None
            }
            Subject::Json => {
                fixture.order("begin encodes")?;
                None
            }
            Subject::Server => {
                let answer = fixture.command("address")?;
                let address = answer.strip_prefix("address ").ok_or("no address")?;
                let mut client = Command::new(cell.path());
                client.args(["-client", address, "-pause", "0s", "-workers", "4"]);
                client.stdin(Stdio::piped()).stdout(Stdio::null());
                Some(Spawned::spawn(client)?)
            }
        };
        let process = fixture.pinned()?;
        std::thread::sleep(Duration::from_secs(1));
        let clocks = Clocks::start(fixture.pid())?;
        Ok(Target { fixture, process, clocks, _client: client })
    }

    fn operations(&mut self) -> Result<f64> {
        let answer = self.fixture.command("counts")?;
        Ok(answer.split(' ').nth(1).ok_or("no counts")?.parse()?)
    }

    fn cpu_time(&mut self) -> Result<Duration> {
        self.clocks.read()
    }

    /// What it does in a while; samples are read meanwhile.
    fn window(&mut self, length: Duration, mut capture: Option<&mut Capture<'_>>) -> Result<Work> {
        let before = Work { operations: self.operations()?, cpu: self.cpu_time()? };
        let start = Instant::now();
        while let Some(left) = length.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            match &mut capture {
                Some(capture) => capture.poll(left.min(Duration::from_millis(100)))?,
                None => std::thread::sleep(left),
            }
        }
        Ok(Work {
            operations: self.operations()? - before.operations,
            cpu: self.cpu_time()?.saturating_sub(before.cpu),
        })
    }

    /// When sampling has begun: two halves, as each answer of the target is a part of what it does.
    fn halves(&mut self, length: Duration, mut capture: Option<&mut Capture<'_>>) -> Result<Work> {
        std::thread::sleep(CATCHING_UP);
        let first = self.window(length / 2, capture.as_deref_mut())?;
        Ok(first + self.window(length / 2, capture)?)
    }

    /// What it does in a while of another one's sampling, or of a timer.
    fn sampled(&mut self, way: Way, length: Duration) -> Result<Work> {
        match way {
            Way::Inside => {
                self.fixture.order("profile")?;
                let work = self.halves(length, None)?;
                self.fixture.order("write /dev/null")?;
                Ok(work)
            }
            Way::Bpf(rate) => {
                let (process, options) = (Process::pin(self.process.pid())?, options(rate));
                let processes = [process];
                let mut capture = Capture::begin(&processes, &options)?;
                self.halves(length, Some(&mut capture))
            }
            Way::Timer(rate) => {
                let mut timer = Builder::new(Software::CPU_CLOCK)
                    .any_pid()
                    .one_cpu(TARGETS)
                    .sample_frequency(rate.into())
                    .build()?;
                timer.enable()?;
                self.halves(length, None)
            }
        }
    }

    /// A pair: half a window, a window that is sampled, half a window. So what drifts, as a machine of others does, is
    /// the same on both sides.
    fn pair(&mut self, way: Way, length: Duration) -> Result<(f64, f64)> {
        let before = self.window(length / 2, None)?;
        let sampled = self.sampled(way, length)?;
        std::thread::sleep(SETTLING);
        let plain = before + self.window(length / 2, None)?;
        Ok((sampled.rate(), plain.rate()))
    }

    /// What the kernel itself counts. To count costs too, so this is no part of the pairs.
    fn counted(&mut self, rate: u32, length: Duration) -> Result<Counted> {
        let _counting = enable_stats(Stats::RunTime)?;
        let (process, options) = (Process::pin(self.process.pid())?, options(rate));
        let processes = [process];
        let mut capture = Capture::begin(&processes, &options)?;
        let before = (ours()?, self.cpu_time()?, own_cpu_time());
        self.window(length, Some(&mut capture))?;
        let after = (ours()?, self.cpu_time()?, own_cpu_time());
        Ok(Counted {
            runs: after.0.0 - before.0.0,
            time: after.0.1.saturating_sub(before.0.1),
            target: after.1.saturating_sub(before.1),
            ours: after.2.saturating_sub(before.2),
        })
    }
}

/// How often the sampling program ran, and for how long.
fn ours() -> Result<(u64, Duration)> {
    for program in loaded_programs() {
        let program = program?;
        if program.name_as_str() == Some("on_cpu") {
            return Ok((program.run_count(), program.run_time()));
        }
    }
    Err("the kernel has no program that samples".into())
}

/// The CPU time of a process's threads, to the nanosecond: what `/proc` says is as old as the last tick for those that run.
struct Clocks(Vec<Counter>);

impl Clocks {
    /// Of those that it has, and of those that they start.
    fn start(pid: u32) -> Result<Self> {
        let mut counters = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let tid = task?.file_name().to_string_lossy().parse()?;
            let mut counter = Builder::new(Software::TASK_CLOCK).observe_pid(tid).inherit(true).build()?;
            counter.enable()?;
            counters.push(counter);
        }
        Ok(Self(counters))
    }

    /// Since the start.
    fn read(&mut self) -> Result<Duration> {
        let mut sum = 0;
        for counter in &mut self.0 {
            sum += counter.read()?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// What this program used.
fn own_cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

fn options(rate: u32) -> CaptureOptions {
    CaptureOptions {
        rate,
        duration: Duration::MAX,
        whole_system: false,
        children: false,
        by_thread: false,
        kernel_frames: true,
        mode: Some(Mode::Bpf),
        loader: Loader::default(),
    }
}

/// Measures one subject in `rounds` rounds; each has a pair for each way, and another way is first each time.
pub(crate) fn measure(subject: Subject, rounds: usize, window: Duration) -> Result<Measured> {
    let mut target = Target::start(subject)?;
    let mut pairs = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        for at in 0..WAYS.len() {
            let at = (at + round) % WAYS.len();
            pairs[at].push(target.pair(WAYS[at], window)?);
        }
    }
    let counted = RATES.iter().map(|&rate| target.counted(rate, COUNTED)).collect::<Result<_>>()?;
    target.fixture.assert_untraced()?;
    Ok(Measured { subject, pairs, counted })
}
