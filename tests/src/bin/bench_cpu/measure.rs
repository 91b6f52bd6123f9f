//! The measurements.

use std::error::Error;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use fixtures::{Cell, Fixture, Process as Spawned, Program, Variant, build};
use inspector::capture::cpu::session::{Capture, Loader, Mode, Options};
use inspector::process::Process;

/// Who samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// We, so many times in a second.
    Bpf(u32),
    /// The target itself, by `runtime/pprof`: 100 times in a second.
    Inside,
}

pub(crate) const WAYS: [Way; 3] = [Way::Bpf(99), Way::Bpf(999), Way::Inside];
pub(crate) const RATES: [u32; 2] = [99, 999];

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One goroutine that writes and reads JSON.
    Loop,
    /// A server, and a client of it that never waits.
    Server,
}

pub(crate) const SUBJECTS: [Subject; 2] = [Subject::Loop, Subject::Server];

/// What the kernel counted of our program in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) time: Duration,
    /// CPU time of the target, and of us who read the samples.
    pub(crate) target: Duration,
    pub(crate) ours: Duration,
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

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Target {
    fixture: Fixture,
    process: Process,
    _client: Option<Spawned>,
}

impl Target {
    fn start(subject: Subject) -> Result<Self> {
        let program = match subject {
            Subject::Loop => Program::Hot,
            Subject::Server => Program::HttpServer,
        };
        let cell = Cell::new("1.27.4", Variant::Stripped, program);
        build::build(&[cell], 2, &|_, _| ())?;
        let mut fixture = Fixture::spawn(&cell, &[], &[])?;
        let client = match subject {
            Subject::Loop => {
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
        let process = Process::pin(fixture.pid().to_string().parse()?)?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(Target { fixture, process, _client: client })
    }

    fn operations(&mut self) -> Result<f64> {
        let answer = self.fixture.command("counts")?;
        Ok(answer.split(' ').nth(1).ok_or("no counts")?.parse()?)
    }

    /// CPU time of its threads, which stay.
    fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.fixture.pid())
    }

    /// Operations in a second of its CPU time; samples are read meanwhile.
    fn window(&mut self, length: Duration, mut capture: Option<&mut Capture<'_>>) -> Result<f64> {
        let (operations, used) = (self.operations()?, self.cpu_time()?);
        let start = Instant::now();
        while let Some(left) = length.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            match &mut capture {
                Some(capture) => capture.poll(left.min(Duration::from_millis(100)))?,
                None => std::thread::sleep(left),
            }
        }
        let (operations, used) = (self.operations()? - operations, self.cpu_time()?.saturating_sub(used));
        Ok(operations / used.as_secs_f64().max(1e-9))
    }

    fn sampled(&mut self, way: Way, length: Duration) -> Result<f64> {
        match way {
            Way::Inside => {
                self.fixture.order("profile")?;
                let figure = self.window(length, None)?;
                self.fixture.order("write /dev/null")?;
                Ok(figure)
            }
            Way::Bpf(rate) => {
                let (process, options) = (Process::pin(self.process.pid())?, options(rate));
                let processes = [process];
                let mut capture = Capture::begin(&processes, &options)?;
                self.window(length, Some(&mut capture))
            }
        }
    }

    /// What the kernel itself counts. To count costs too, so this is no part of the pairs.
    fn counted(&mut self, rate: u32, length: Duration) -> Result<Counted> {
        let _counting = enable_stats(Stats::RunTime)?;
        let (process, options) = (Process::pin(self.process.pid())?, options(rate));
        let processes = [process];
        let mut capture = Capture::begin(&processes, &options)?;
        let before = (ours()?, self.cpu_time()?, cpu_time(std::process::id())?);
        self.window(length, Some(&mut capture))?;
        let after = (ours()?, self.cpu_time()?, cpu_time(std::process::id())?);
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

fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn options(rate: u32) -> Options {
    Options {
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

/// Measures one subject in `rounds` rounds; each has a pair for each way, and the order within pairs alternates.
pub(crate) fn measure(subject: Subject, rounds: usize, window: Duration) -> Result<Measured> {
    let mut target = Target::start(subject)?;
    let mut pairs = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        for at in 0..WAYS.len() {
            let at = (at + round) % WAYS.len();
            let pair = if round % 2 == 0 {
                let plain = target.window(window, None)?;
                (target.sampled(WAYS[at], window)?, plain)
            } else {
                let sampled = target.sampled(WAYS[at], window)?;
                (sampled, target.window(window, None)?)
            };
            pairs[at].push(pair);
        }
    }
    let counted = RATES.iter().map(|&rate| target.counted(rate, window * 5)).collect::<Result<_>>()?;
    target.fixture.assert_untraced()?;
    Ok(Measured { subject, pairs, counted })
}
