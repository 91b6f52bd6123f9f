//! A process under test: its standard error, its end, and whether somebody left a mark on it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::build::run;
use crate::copying::copying;
use crate::error::{Error, Result};

/// CPU time of a process that the kernel accounts to it, or to its children that have ended, in seconds.
///
/// # Errors
///
/// Where the process is gone.
pub fn cpu_time(pid: u32, of_children: bool) -> Result<f64> {
    /// `USER_HZ`, the same everywhere.
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(Error::file(path))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    let first = if of_children { 13 } else { 11 };
    let ticks: f64 = fields.skip(first).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// How long a process may take to start or to answer; far above what it needs, it only ends hung tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A child process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub(crate) child: Child,
    stderr: fs::File,
}

impl Process {
    /// Starts a command with its standard error in a file; input and output are what the command says.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let program = format!("{command:?}");
        let stderr = tempfile::tempfile().map_err(Error::file("temporary file"))?;
        let writer = stderr.try_clone().map_err(Error::file("temporary file"))?;
        let child = command.stderr(writer).spawn().map_err(|source| Error::Start { program, source })?;
        Ok(Self { child, stderr })
    }

    /// Leaves out of a command's environment what changes how the Go runtime behaves.
    pub fn without_runtime_settings(command: &mut Command) {
        for name in ["GODEBUG", "GOTRACEBACK", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"] {
            command.env_remove(name);
        }
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process wrote on stderr so far.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        let mut text = Vec::new();
        // The file offset is shared with the process: put back what reading moves.
        let read = self.stderr.try_clone().and_then(|mut file| {
            let end = file.stream_position()?;
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut text)?;
            file.seek(SeekFrom::Start(end))
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until the process ended by itself, or by a signal that the test sent.
    ///
    /// # Errors
    ///
    /// Where it goes on.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                _ => return Err(self.no_answer("end")),
            }
        }
    }

    /// Ends the process by a signal that is fatal to Go programs, and returns what it says about its goroutines.
    ///
    /// # Errors
    ///
    /// Where the signal cannot be sent or the process survives it.
    pub fn dump_by(&mut self, signal: Signal) -> Result<String> {
        let pid = i32::try_from(self.pid()).unwrap_or(0);
        // Not reaped yet, so the number is still this process's; 0 would be the test's own group.
        if pid == 0 || kill(Pid::from_raw(pid), signal).is_err() {
            return Err(self.no_answer(signal.as_str()));
        }
        self.wait()?;
        Ok(self.stderr_text())
    }

    /// Checks that the process lives and that none of its tasks is traced or stopped, without asking it anything.
    ///
    /// # Errors
    ///
    /// What was found instead.
    pub fn assert_untraced(&mut self) -> Result<()> {
        let pid = self.pid();
        let touched = |what: String| Error::Touched { pid, what };
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(touched(format!("it ended: {status}; stderr: {}", self.stderr_text())));
        }
        check_status(&format!("/proc/{pid}/status")).map_err(touched)?;
        let tasks = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&tasks).map_err(Error::file(&tasks))?.flatten() {
            check_status(&format!("{}/status", entry.path().display())).map_err(touched)?;
        }
        Ok(())
    }

    /// The error that the process did not answer a question in time.
    pub(crate) fn no_answer(&self, question: &str) -> Error {
        Error::NoAnswer {
            pid: self.pid(),
            question: question.to_owned(),
            limit: PATIENCE,
            stderr: self.stderr_text(),
        }
    }

    /// The error that the process ended when it should have answered a question.
    pub(crate) fn ended(&self, question: &str) -> Error {
        Error::Ended { pid: self.pid(), question: question.to_owned(), stderr: self.stderr_text() }
    }

    /// The error of an answer that is not what was asked for.
    pub(crate) fn bad_answer(&self, question: &str, answer: &str) -> Error {
        Error::BadAnswer { pid: self.pid(), question: question.to_owned(), answer: answer.to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child is not reaped before, so its number cannot belong to another process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds a tracer or a stop in a status file of /proc; a task that ended meanwhile is fine.
fn check_status(path: &str) -> std::result::Result<(), String> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    for line in text.lines() {
        let wrong = match line.split_once(':') {
            Some(("TracerPid", value)) => value.trim() != "0",
            Some(("State", value)) => value.trim_start().starts_with(['t', 'T']),
            _ => false,
        };
        if wrong {
            return Err(format!("{path}: {line}"));
        }
    }
    Ok(())
}

/// Copies a program that is to be executed.
///
/// # Errors
///
/// Where it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    run(copying(from, to)).map(drop)
}
