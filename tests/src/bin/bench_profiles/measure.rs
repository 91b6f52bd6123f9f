//! Each way in turn on one process that parks many goroutines, computes, and has a clock that notices stalls.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::Fixture;
use fixtures::matrix::NEWEST;
use fixtures::matrix::{Cell, Program, Variant};
use fixtures::{binary, build, machine};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TOOLCHAIN: &str = NEWEST;
/// One core is left for whoever asks, and for the clock: with all of them taken, each wait for a core would look like a
/// stall.
const WORKERS: &str = "1";
/// So that a look of few milliseconds is repeated until its cost can be seen.
const WINDOW: Duration = Duration::from_millis(400);

/// A way to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Nothing,
    /// A command of gops-probe.
    Probe(&'static [&'static str]),
    /// The same command of another process: the same work for the machine, which the target cannot notice but by having
    /// to share the cores.
    Elsewhere(&'static [&'static str]),
    /// A signal of the gops agent.
    Agent(u8, &'static str),
    /// A command of the fixture: what `net/http/pprof` calls for a request.
    Inside(&'static str),
}

/// What is compared: ours, its control, and what a user would use instead.
pub(crate) const QUESTIONS: [(&str, [Way; 4]); 3] = [
    (
        "memstats",
        [
            Way::Probe(&["memstats"]),
            Way::Elsewhere(&["memstats"]),
            Way::Agent(3, "memstats"),
            Way::Inside("memstats"),
        ],
    ),
    (
        "pprof-heap",
        [
            Way::Probe(&["pprof-heap", "-o", "/dev/null"]),
            Way::Elsewhere(&["pprof-heap", "-o", "/dev/null"]),
            Way::Agent(5, "pprof-heap"),
            Way::Inside("heap"),
        ],
    ),
    (
        "pprof-goroutine",
        [
            Way::Probe(&["pprof-goroutine", "-o", "/dev/null"]),
            Way::Elsewhere(&["pprof-goroutine", "-o", "/dev/null"]),
            Way::Agent(1, "stack"),
            Way::Inside("goroutine 0"),
        ],
    ),
];

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The longest stall of the clock inside, in milliseconds.
    pub(crate) stall: f64,
    /// Units of work per second.
    pub(crate) throughput: f64,
    /// Milliseconds of one answer.
    pub(crate) total: f64,
}

/// A round: the window in which nothing was asked, and those of the ways of each question.
pub(crate) type Round = (Window, Vec<[Window; 4]>);

/// All that was measured.
pub(crate) struct Measured {
    pub(crate) goroutines: usize,
    pub(crate) rounds: Vec<Round>,
    pub(crate) load: (String, String),
}

/// Measures.
pub(crate) fn measure(goroutines: usize, rounds: usize) -> Result<Measured> {
    let cell = Cell::new(TOOLCHAIN, Variant::Stripped, Program::Agent);
    build::build(&[cell], 2, &|_, _| {})?;
    let config = tempfile::tempdir()?;
    let directory = config.path().to_str().ok_or("a temporary directory that is no text")?;
    let count = goroutines.to_string();
    let environment = [("GOPS_CONFIG_DIR", directory)];
    let before = machine::load();
    let mut target = Fixture::spawn(&cell, &["-n", &count, "-work", WORKERS], &environment)?;
    let port = std::fs::read_to_string(config.path().join(target.pid().to_string()))?;
    let mut other = Fixture::spawn(&cell, &["-n", &count, "-heartbeat", "0"], &environment)?;
    let mut measured = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let mut window = |way| window(way, &mut target, other.pid(), port.trim());
        let nothing = window(Way::Nothing)?;
        let mut of_questions = Vec::new();
        for (_, ways) in QUESTIONS {
            let [a, b, c, d] = ways;
            of_questions.push([window(a)?, window(b)?, window(c)?, window(d)?]);
        }
        measured.push((nothing, of_questions));
    }
    target.assert_untouched()?;
    other.assert_untouched()?;
    Ok(Measured { goroutines, rounds: measured, load: (before, machine::load()) })
}

fn window(way: Way, target: &mut Fixture, other: u32, port: &str) -> Result<Window> {
    target.order("reset")?;
    let (work, since) = work(target)?;
    let begun = Instant::now();
    let mut answers = 0u32;
    while answers == 0 || begun.elapsed() < WINDOW {
        once(way, target, other, port)?;
        answers += 1;
    }
    let total = begun.elapsed().as_secs_f64() * 1e3 / f64::from(answers);
    let (done, now) = self::work(target)?;
    let stall = target.command("stall")?;
    let stall: u64 = stall.split(' ').nth(1).and_then(|n| n.parse().ok()).ok_or("no stall")?;
    let seconds = Duration::from_nanos(now - since).as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "counts of a second")]
    let throughput = (done - work) as f64 / seconds;
    Ok(Window { stall: Duration::from_nanos(stall).as_secs_f64() * 1e3, throughput, total })
}

/// Units of work so far, and the target's clock in nanoseconds.
fn work(target: &mut Fixture) -> Result<(u64, u64)> {
    let answer = target.command("work")?;
    let mut words = answer.split(' ').skip(1).map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(work)), Some(Ok(now))) => Ok((work, now)),
        _ => Err(format!("no work: {answer}").into()),
    }
}

fn once(way: Way, target: &mut Fixture, other: u32, port: &str) -> Result<()> {
    match way {
        Way::Nothing => std::thread::sleep(WINDOW),
        Way::Probe(arguments) => probe(arguments, target.pid())?,
        Way::Elsewhere(arguments) => probe(arguments, other)?,
        Way::Agent(signal, _) => {
            let mut agent = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
            agent.write_all(&[signal])?;
            let mut buffer = vec![0; 1 << 20];
            while agent.read(&mut buffer)? > 0 {}
        }
        Way::Inside(command) => {
            target.command(command)?;
        }
    }
    Ok(())
}

fn probe(arguments: &[&str], pid: u32) -> Result<()> {
    let mut command = Command::new(binary()?);
    command.args(arguments).args([pid.to_string(), "--via".to_owned(), "probe".to_owned()]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    match status.code() {
        // A partial answer is one: goroutines come and go.
        Some(0 | 7) => Ok(()),
        _ => Err(format!("{arguments:?}: {status}").into()),
    }
}
