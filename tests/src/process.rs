//! Process under test: its standard error, its end, and a check that it was left untouched.

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

/// Returns the CPU time in seconds that the kernel accounts to a process, or to its ended children.
///
/// # Errors
///
/// Returns an error if the process is gone.
pub fn cpu_time(pid: u32, of_children: bool) -> Result<f64> {
    /// `USER_HZ`, the same on all machines.
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(Error::file(path))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    let first = if of_children { 13 } else { 11 };
    let ticks: f64 = fields.skip(first).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Maximum time for a process to start or to answer. It is far above the normal time and only ends hung
/// tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Child process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub(crate) child: Child,
    stderr: fs::File,
}

impl Process {
    /// Starts a command with its standard error in a file; the command decides on input and output.
    ///
    /// # Errors
    ///
    /// Returns an error if the command does not start.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let program = format!("{command:?}");
        let stderr = tempfile::tempfile().map_err(Error::file("temporary file"))?;
        let writer = stderr.try_clone().map_err(Error::file("temporary file"))?;
        let child = command.stderr(writer).spawn().map_err(|source| Error::Start { program, source })?;
        Ok(Self { child, stderr })
    }

    /// Removes variables from a command's environment that change the behaviour of the Go runtime.
    pub fn without_runtime_settings(command: &mut Command) {
        for name in ["GODEBUG", "GOTRACEBACK", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"] {
            command.env_remove(name);
        }
    }

    /// Pid of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the text that the process wrote on stderr so far.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        let mut text = Vec::new();
        // The file offset is shared with the process: restore it after reading.
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

    /// Waits until the process ends by itself, or by a signal that the test sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not end.
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

    /// Ends the process by a signal that is fatal to Go programs, and returns the dump of its goroutines.
    ///
    /// # Errors
    ///
    /// Returns an error if the signal cannot be sent or the process survives it.
    pub fn dump_by(&mut self, signal: Signal) -> Result<String> {
        let pid = i32::try_from(self.pid()).unwrap_or(0);
        // The process is not reaped yet, so the pid is still its own; 0 would be the test's own group.
        if pid == 0 || kill(Pid::from_raw(pid), signal).is_err() {
            return Err(self.no_answer(signal.as_str()));
        }
        self.wait()?;
        Ok(self.stderr_text())
    }

    /// Checks that the process lives and that none of its tasks is traced or stopped. Sends nothing to the
    /// process.
    ///
    /// # Errors
    ///
    /// Returns a description of the violation.
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

    /// Creates the error for a question that was not answered in time.
    pub(crate) fn no_answer(&self, question: &str) -> Error {
        Error::NoAnswer {
            pid: self.pid(),
            question: question.to_owned(),
            limit: PATIENCE,
            stderr: self.stderr_text(),
        }
    }

    /// Creates the error for a process that ended instead of answering a question.
    pub(crate) fn ended(&self, question: &str) -> Error {
        Error::Ended { pid: self.pid(), question: question.to_owned(), stderr: self.stderr_text() }
    }

    /// Creates the error for an unexpected answer.
    pub(crate) fn bad_answer(&self, question: &str, answer: &str) -> Error {
        Error::BadAnswer { pid: self.pid(), question: question.to_owned(), answer: answer.to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child is not reaped before, so its pid cannot belong to another process.
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

/// Copies a program for execution.
///
/// # Errors
///
/// Returns an error if the program cannot be copied.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    run(copying(from, to)).map(drop)
}
