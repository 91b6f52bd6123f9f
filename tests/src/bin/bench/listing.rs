//! `list`, `tree` and `process` against the real gops, with 30 Go processes among 110.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use fixtures::Fixture;
use fixtures::binary;
use fixtures::build;
use fixtures::matrix::NEWEST;
use fixtures::matrix::{Cell, Program, Variant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GO: usize = 30;
const OTHERS: usize = 80;
const GOPS: &str = "github.com/google/gops@v0.3.28";

/// A command, and milliseconds of ours and of gops for it, in turn.
pub(crate) struct Pairs {
    pub(crate) command: &'static str,
    /// The share of gops' time that it may take.
    pub(crate) allowed: f64,
    pub(crate) times: Vec<(f64, f64)>,
}

/// Measures each command. The process of `process` has the agent of gops inside and a connection to it, for to find what
/// is connected takes longer than to find what listens.
pub(crate) fn measure(pairs: usize) -> Result<Vec<Pairs>> {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    let with_agent = Cell::new(NEWEST, Variant::Stripped, Program::Agent);
    build::build(&[cell, with_agent], 2, &|_, _| {})?;
    let tools = tempfile::tempdir()?;
    let status = Command::new("go").args(["install", GOPS]).env("GOBIN", tools.path()).status()?;
    if !status.success() {
        return Err(format!("go install {GOPS} failed").into());
    }
    let gops = tools.path().join("gops");
    let config = tempfile::tempdir()?;
    let directory = config.path().to_str().ok_or("a temporary directory that is no text")?;
    let connected =
        Fixture::spawn(&with_agent, &["-n", "10", "-heartbeat", "0"], &[("GOPS_CONFIG_DIR", directory)])?;
    let pid = connected.pid().to_string();
    let port: u16 = std::fs::read_to_string(config.path().join(&pid))?.trim().parse()?;
    let connection = TcpStream::connect(("127.0.0.1", port))?;
    let targets =
        (1..GO).map(|_| Fixture::spawn(&cell, &[], &[])).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut others = Others(Vec::new());
    for _ in 0..OTHERS {
        others.0.push(Command::new("sleep").arg("1000").spawn()?);
    }
    let ours = binary()?;
    let mut measured = Vec::new();
    for (command, allowed, arguments) in
        [("list", 0.1, &[][..]), ("tree", 0.2, &["tree"]), ("process", 0.2, &["process", &pid])]
    {
        eprintln!("{command}");
        time(ours, arguments)?;
        time(&gops, arguments)?;
        let times = (0..pairs)
            .map(|_| Ok((time(ours, arguments)?, time(&gops, arguments)?)))
            .collect::<Result<Vec<_>>>()?;
        measured.push(Pairs { command, allowed, times });
    }
    drop((connection, connected, targets));
    Ok(measured)
}

fn time(program: &Path, arguments: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    let status =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    if status.success() { Ok(elapsed) } else { Err(format!("{}: {status}", program.display()).into()) }
}

/// Ends what it started.
struct Others(Vec<Child>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}
