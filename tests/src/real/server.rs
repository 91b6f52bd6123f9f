//! Running third-party program: started on loopback in its own folder, queried by HTTP.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{GOROUTINES, Installed, Program};
use crate::dump::{Dump, Goroutine};
use crate::error::{Error, Result};
use crate::process::{PATIENCE, Process};

/// Time before the next request, if the program does not listen yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Maximum number of starts of a program: another process may take a port first.
const STARTS: usize = 3;

/// Folder and ports of a running program.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    ports: [u16; 3],
}

impl Place {
    fn new() -> Result<Self> {
        let folder = TempDir::new().map_err(Error::file("temporary folder"))?;
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        // All ports are held at the same time, so that they differ.
        let held = free().and_then(|a| Ok([a, free()?, free()?])).map_err(Error::file("loopback"))?;
        let ports = held.map(|listener| listener.local_addr().map_or(0, |address| address.port()));
        Ok(Self { folder, ports })
    }

    /// Returns a free port of the program; [`Server::get`] uses number 0.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number]
    }

    /// Returns address and port.
    #[must_use]
    pub fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.port(number))
    }

    /// Returns the address as a URL.
    #[must_use]
    pub fn url(&self, number: usize) -> String {
        format!("http://{}", self.address(number))
    }

    /// Returns the path of a file in the program's folder, which is its working directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Running program, killed when dropped.
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
    /// Returns an error if the program ends, or does not answer in time.
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
        // Some programs end when their input ends: the input stays open, and empty.
        command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null());
        // A user's own configuration must have no effect here.
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env(name, folder);
        }
        Process::without_runtime_settings(&mut command);
        let process = Process::spawn(command)?;
        // One connection stays open: its goroutine is in all dumps. No proxy of the environment is used.
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

    /// Returns the process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Pid of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the answer of the program's HTTP server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer, or answers with a failure.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.place.url(0));
        let answer = self.agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        answer.map_err(|source| Error::Http { url, source: Box::new(source) })
    }

    /// Returns the program's report about its goroutines; the goroutine that writes the report is the first.
    ///
    /// # Errors
    ///
    /// Returns an error if the program does not answer, or answers with something else.
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

    /// Returns the metric of this name, such as `go_goroutines`, as a whole number.
    ///
    /// # Errors
    ///
    /// Returns an error if the program does not answer, or if the metric is missing.
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
    /// Returns a description of the violation.
    pub fn assert_untouched(&mut self) -> Result<()> {
        self.process.assert_untraced()?;
        self.get(self.ready).map(drop)
    }
}

/// Report of a program about its goroutines.
#[derive(Debug, Clone)]
pub struct Report {
    /// Number of the goroutine that wrote the report; it serves the connection.
    pub dumper: u64,
    /// Number of goroutines in the report.
    pub total: usize,
    /// Goroutines of the report that exist without a request too.
    pub dump: Dump,
}

/// Returns true for the goroutine of `net/http` that reads the connection while a request is handled.
fn waits_for_the_end_of_a_request(goroutine: &Goroutine) -> bool {
    let frames = goroutine.frames();
    frames.last().is_some_and(|frame| frame.function == "net/http.(*connReader).startBackgroundRead")
}
