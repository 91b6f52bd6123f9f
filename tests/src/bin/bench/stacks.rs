//! `stack` in its three ways, the agent's `stack`, `runtime.Stack` and the goroutine profile, in turn on one process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fixtures::Fixture;
use fixtures::build;
use fixtures::matrix::NEWEST;
use fixtures::matrix::{Cell, Program, Variant};

use super::run;
use fixtures::paired::{Figures, figures};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The program with the agent inside, stripped.
const TOOLCHAIN: &str = NEWEST;
const LOAD: [&str; 4] = ["-wakeups", "20000", "-alloc", "300"];

/// A way to get all stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Nothing,
    Paused,
    Limited,
    Unpaused,
    /// `stack --no-pause` of another process: the same work for the machine, which the target cannot notice but by
    /// having to share the cores.
    Elsewhere,
    Agent,
    RuntimeStack,
    Profile,
}

pub(crate) const WAYS: [Way; 8] = [
    Way::Nothing,
    Way::Paused,
    Way::Limited,
    Way::Unpaused,
    Way::Elsewhere,
    Way::Agent,
    Way::RuntimeStack,
    Way::Profile,
];

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Nothing => "nothing (baseline)",
            Way::Paused => "`stack`",
            Way::Limited => "`stack --max-pause 1ms`",
            Way::Unpaused => "`stack --no-pause`",
            Way::Elsewhere => "`stack --no-pause` of another process (control)",
            Way::Agent => "gops agent, `stack`",
            Way::RuntimeStack => "`runtime.Stack(all)` inside",
            Way::Profile => "goroutine profile inside, `debug=0`",
        }
    }
}

/// What one way cost on one process, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) way: Way,
    /// Our own clock.
    pub(crate) stopped: Option<Figures>,
    /// The longest stall of the clock inside the target.
    pub(crate) stall: Figures,
    pub(crate) total: Figures,
    pub(crate) runs: usize,
}

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) goroutines: usize,
    pub(crate) busy: bool,
    pub(crate) rows: Vec<Row>,
    /// Stalls in milliseconds of each round: by `--no-pause`, and by its control.
    pub(crate) unpaused_stalls: Vec<(f64, f64)>,
}

fn cell() -> Cell {
    Cell::new(TOOLCHAIN, Variant::Stripped, Program::Agent)
}

/// Measures all processes.
pub(crate) fn measure(quick: bool) -> Result<Vec<Group>> {
    build::build(&[cell()], 2, &|_, _| {})?;
    let sizes: &[usize] = if quick { &[1000, 10_000] } else { &[1000, 10_000, 100_000] };
    let mut groups = Vec::new();
    for &goroutines in sizes {
        for busy in [false, true] {
            let rounds = match goroutines {
                _ if quick => 2,
                100_000.. => 15,
                _ => 30,
            };
            eprintln!("{goroutines} goroutines, {}", if busy { "busy" } else { "parked" });
            groups.push(group(goroutines, busy, rounds)?);
        }
    }
    Ok(groups)
}

fn group(goroutines: usize, busy: bool, rounds: usize) -> Result<Group> {
    let config = tempfile::tempdir()?;
    let count = goroutines.to_string();
    let mut arguments = vec!["-n", &count];
    if busy {
        arguments.extend(LOAD);
    }
    let directory = config.path().to_str().ok_or("a temporary directory that is no text")?;
    let mut target = Fixture::spawn(&cell(), &arguments, &[("GOPS_CONFIG_DIR", directory)])?;
    let port = std::fs::read_to_string(config.path().join(target.pid().to_string()))?;
    let other_arguments = ["-n", &count, "-heartbeat", "0"];
    let mut other = Fixture::spawn(&cell(), &other_arguments, &[("GOPS_CONFIG_DIR", directory)])?;
    let mut raw: Vec<(Way, Duration, Option<Duration>, Duration)> = Vec::new();
    for round in 0..rounds {
        for way in WAYS {
            // What stops the world for seconds is repeated less.
            let slow = matches!(way, Way::Agent | Way::RuntimeStack) && goroutines >= 100_000;
            if slow && round % 4 != 0 {
                continue;
            }
            target.order("reset")?;
            let (total, stopped) = once(way, &mut target, other.pid(), port.trim())?;
            let stall = target.command("stall")?;
            let stall = stall.split(' ').nth(1).and_then(|n| n.parse().ok()).ok_or("no stall")?;
            raw.push((way, total, stopped, Duration::from_nanos(stall)));
        }
    }
    target.assert_untouched()?;
    other.assert_untouched()?;
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    let rows = WAYS
        .iter()
        .map(|&way| {
            let of_way: Vec<_> = raw.iter().filter(|r| r.0 == way).collect();
            let stopped: Vec<f64> = of_way.iter().filter_map(|r| r.2.as_ref().map(ms)).collect();
            Row {
                way,
                stopped: (!stopped.is_empty()).then(|| figures(&stopped)),
                stall: figures(&of_way.iter().map(|r| ms(&r.3)).collect::<Vec<_>>()),
                total: figures(&of_way.iter().map(|r| ms(&r.1)).collect::<Vec<_>>()),
                runs: of_way.len(),
            }
        })
        .collect();
    let stalls = |way| raw.iter().filter(move |r| r.0 == way).map(|r| ms(&r.3));
    let unpaused_stalls = stalls(Way::Unpaused).zip(stalls(Way::Elsewhere)).collect();
    Ok(Group { goroutines, busy, rows, unpaused_stalls })
}

fn once(way: Way, target: &mut Fixture, other: u32, port: &str) -> Result<(Duration, Option<Duration>)> {
    let begun = Instant::now();
    let ours = |arguments: &[&str]| -> Result<(Duration, Option<Duration>)> {
        let run = run::stack(target.pid(), arguments)?;
        Ok((run.total, Some(run.stopped)))
    };
    match way {
        Way::Nothing => std::thread::sleep(Duration::from_millis(300)),
        Way::Paused => return ours(&[]),
        Way::Limited => return ours(&["--max-pause", "1ms"]),
        Way::Unpaused => return ours(&["--no-pause"]),
        Way::Elsewhere => return Ok((run::stack(other, &["--no-pause"])?.total, None)),
        Way::Agent => {
            let mut agent = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
            agent.write_all(&[1])?;
            let mut buffer = vec![0; 1 << 20];
            while agent.read(&mut buffer)? > 0 {}
        }
        Way::RuntimeStack => return Ok((told(&target.command("stack")?)?, None)),
        Way::Profile => return Ok((told(&target.command("goroutine 0")?)?, None)),
    }
    Ok((begun.elapsed(), None))
}

/// The duration in an answer: its second word, in nanoseconds.
fn told(answer: &str) -> Result<Duration> {
    let nanoseconds = answer.split(' ').find_map(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.ok_or_else(|| format!("no duration: {answer}"))?))
}

/// Peak memory of `stack` in KiB for 100,000 goroutines with 8 KiB of live stack each.
pub(crate) fn peak_memory() -> Result<i64> {
    let arguments = ["-n", "100000", "-stack", "8192", "-heartbeat", "0"];
    let config = tempfile::tempdir()?;
    let directory = config.path().to_str().ok_or("a temporary directory that is no text")?;
    let mut target = Fixture::spawn(&cell(), &arguments, &[("GOPS_CONFIG_DIR", directory)])?;
    let mut peak = 0;
    for _ in 0..3 {
        peak = peak.max(run::stack(target.pid(), &[])?.peak);
    }
    target.assert_untouched()?;
    Ok(peak)
}
