//! A running program of others: started on loopback in a folder of its own, asked by HTTP.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{GOROUTINES, Installed, Program};
use crate::dump::{Dump, Goroutine};
use crate::error::{Error, Result};
use crate::process::{PATIENCE, Process};

/// How long the next question waits where the program does not listen yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts of a program: somebody else may take a port before it does.
const STARTS: usize = 3;

/// Where a program runs: its folder and its ports.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    ports: [u16; 3],
}

impl Place {
    fn new() -> Result<Self> {
        let folder = TempDir::new().map_err(Error::file("temporary folder"))?;
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        // All held at a time, so that they differ.
        let held = free().and_then(|a| Ok([a, free()?, free()?])).map_err(Error::file("loopback"))?;
        let ports = held.map(|listener| listener.local_addr().map_or(0, |address| address.port()));
        Ok(Self { folder, ports })
    }

    /// A port of its own that is free; [`Server::get`] asks the first, number 0.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number]
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.port(number))
    }

    /// The address as a URL.
    #[must_use]
    pub fn url(&self, number: usize) -> String {
        format!("http://{}", self.address(number))
    }

    /// A file in the program's folder, which is its working directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    place: Place,
    agent: ureq::Agent,
    ready: &'static str,
}

impl Server {
    /// Starts a program and waits until it answers.
    ///
    /// # Errors
    ///
    /// Where it ends, or does not answer in time.
    pub fn start(program: &Program, installed: &Installed) -> Result<Self> {
        for _ in 1..STARTS {
            match Self::try_start(program, installed) {
                Err(Error::Ended { .. }) => {}
                other => return other,
            }
        }
        Self::try_start(program, installed)
    }

    fn try_start(program: &Program, installed: &Installed) -> Result<Self> {
        let place = Place::new()?;
        let folder = place.folder.path();
        let mut command = Command::new(&installed.executable);
        command.args((program.arguments)(&place).map_err(Error::file(folder))?);
        // Some end when their input does: it stays open, and empty.
        command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null());
        // What a user's own configuration says is of no use here.
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env(name, folder);
        }
        Process::without_runtime_settings(&mut command);
        let process = Process::spawn(command)?;
        // One connection, kept open: its goroutine is there in all dumps. No proxy of the environment.
        let agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE)).build().into();
        let mut server = Self { process, place, agent, ready: program.ready };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if server.get(program.ready).is_ok() {
                return Ok(server);
            }
            if let Ok(Some(_)) = server.process.child.try_wait() {
                return Err(server.process.ended("start"));
            }
            if Instant::now() > deadline {
                return Err(server.process.no_answer("start"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its HTTP server says.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or answers with a failure.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.place.url(0));
        let answer = self.agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        answer.map_err(|source| Error::Http { url, source: Box::new(source) })
    }

    /// What it reports about its goroutines, the one that writes the report first.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or with something else.
    pub fn report(&self) -> Result<Report> {
        let text = self.get(GOROUTINES)?;
        let mut dump = Dump::parse(&text);
        let Some(dumper) = dump.goroutines.first().map(|goroutine| goroutine.id) else {
            return Err(self.process.bad_answer(GOROUTINES, &text));
        };
        let total = dump.goroutines.len();
        dump.goroutines.retain(|goroutine| !waits_for_the_end_of_a_request(goroutine));
        Ok(Report { dumper, total, dump })
    }

    /// The metric of this name, such as `go_goroutines`, a whole number.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or without it.
    pub fn metric(&self, path: &str, name: &str) -> Result<usize> {
        let text = self.get(path)?;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let value = text.lines().find_map(value).map(|value| value as usize);
        value.ok_or_else(|| self.process.bad_answer(path, &text))
    }

    /// Checks that the program lives, that none of its tasks is traced or stopped, and that it answers.
    ///
    /// # Errors
    ///
    /// What was found instead.
    pub fn assert_untouched(&mut self) -> Result<()> {
        self.process.assert_untraced()?;
        self.get(self.ready).map(drop)
    }
}

/// What a program says about its goroutines.
#[derive(Debug, Clone)]
pub struct Report {
    /// The goroutine that wrote it, which serves the connection.
    pub dumper: u64,
    /// How many goroutines it counts.
    pub total: usize,
    /// Those of them that are there without a request too.
    pub dump: Dump,
}

/// While a request is handled, `net/http` has a second goroutine that reads the connection.
fn waits_for_the_end_of_a_request(goroutine: &Goroutine) -> bool {
    let frames = goroutine.frames();
    frames.last().is_some_and(|frame| frame.function == "net/http.(*connReader).startBackgroundRead")
}
