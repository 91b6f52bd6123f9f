//! A running fixture: starts it, talks to it, and checks that nobody left a mark on it.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::matrix::Cell;

/// How long a fixture may take to start or to answer; far above what it needs, it only ends hung tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fixture process, killed when dropped.
#[derive(Debug)]
pub struct Fixture {
    child: Child,
    stdin: ChildStdin,
    stdout: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    stderr: fs::File,
    dumper: u64,
}

impl Fixture {
    /// Starts a built cell and waits until all of its goroutines are in place.
    ///
    /// # Errors
    ///
    /// Where the cell is not built, or does not come to say that it is ready.
    pub fn spawn(cell: &Cell, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let path = cell.path();
        if !path.exists() {
            return Err(Error::NotBuilt(path));
        }
        let mut command = Command::new(path);
        command.args(cell.library()).args(arguments);
        for name in ["GODEBUG", "GOTRACEBACK", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        Self::start(command)
    }

    /// Starts a program that speaks the fixtures' protocol and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Where it does not start, or does not come to say that it is ready.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = format!("{command:?}");
        let stderr = tempfile::tempfile().map_err(Error::file("temporary file"))?;
        let writer = stderr.try_clone().map_err(Error::file("temporary file"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(writer);
        let mut child =
            command.spawn().map_err(|source| Error::Start { program: program.clone(), source })?;
        let (Some(stdin), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Failed { program, stderr: "no pipes".to_owned() });
        };
        let (sender, stdout) = channel();
        // A thread, so that waiting for an answer can end. It ends with the process's stdout.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(size @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut fixture = Self { child, stdin, stdout, pending: Vec::new(), stderr, dumper: 0 };
        let line = fixture.line("start")?;
        fixture.dumper = line
            .strip_prefix("dumper ")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| fixture.bad_answer("start", &line))?;
        let line = fixture.line("start")?;
        if line != format!("ready {}", fixture.pid()) {
            return Err(fixture.bad_answer("start", &line));
        }
        Ok(fixture)
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The goroutine that answers commands: blocked reading stdin while nothing is asked.
    #[must_use]
    pub fn dumper(&self) -> u64 {
        self.dumper
    }

    /// Sends a command and returns its answer, one line.
    ///
    /// # Errors
    ///
    /// Where the process ended or does not answer.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.line(line)
    }

    /// Sends a command that answers `ok`.
    ///
    /// # Errors
    ///
    /// Where the answer is another.
    pub fn order(&mut self, line: &str) -> Result<()> {
        self.expect(line, "ok")
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn ping(&mut self) -> Result<()> {
        self.expect("ping", "pong")
    }

    /// The process's own dump of all goroutines.
    ///
    /// # Errors
    ///
    /// Where the process does not give one.
    pub fn dump(&mut self) -> Result<String> {
        let line = self.command("dump")?;
        let size: usize = line
            .strip_prefix("dump ")
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| self.bad_answer("dump", &line))?;
        let deadline = Instant::now() + PATIENCE;
        while self.pending.len() <= size {
            self.receive("dump", deadline)?;
        }
        let rest = self.pending.split_off(size + 1);
        let mut text = std::mem::replace(&mut self.pending, rest);
        text.truncate(size);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Sends a command without waiting for its answer.
    ///
    /// # Errors
    ///
    /// Where the process does not take it.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let sent = self.stdin.write_all(format!("{line}\n").as_bytes());
        sent.map_err(|_| Error::Ended {
            pid: self.pid(),
            question: line.to_owned(),
            stderr: self.stderr_text(),
        })
    }

    /// The next line that the process writes; `question` is what errors say it was asked.
    ///
    /// # Errors
    ///
    /// Where there is none in time.
    pub fn line(&mut self, question: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.truncate(end);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.receive(question, deadline)?;
        }
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

    /// Ends the process as Go's fatal signal does, and returns what it says about its goroutines.
    ///
    /// What it says depends on the `GOTRACEBACK` that it was started with.
    ///
    /// # Errors
    ///
    /// Where the signal cannot be sent or the process survives it.
    pub fn quit_dump(&mut self) -> Result<String> {
        use nix::sys::signal::{Signal, kill};
        let pid = i32::try_from(self.pid()).unwrap_or(0);
        // Not reaped yet, so the number is still this process's; 0 would be the test's own group.
        if pid == 0 || kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT).is_err() {
            return Err(self.no_answer("SIGQUIT"));
        }
        self.wait()?;
        Ok(self.stderr_text())
    }

    /// Checks that the process lives, that none of its tasks is traced or stopped, and that it answers.
    ///
    /// # Errors
    ///
    /// What was found instead.
    pub fn assert_untouched(&mut self) -> Result<()> {
        self.assert_untraced()?;
        self.ping()
    }

    /// As [`Self::assert_untouched`], without asking the process anything: it stays as it was.
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

    fn expect(&mut self, question: &str, expected: &str) -> Result<()> {
        let answer = self.command(question)?;
        if answer == expected { Ok(()) } else { Err(self.bad_answer(question, &answer)) }
    }

    fn receive(&mut self, question: &str, deadline: Instant) -> Result<()> {
        match self.stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                self.pending.extend(bytes);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(self.no_answer(question)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Ended {
                pid: self.pid(),
                question: question.to_owned(),
                stderr: self.stderr_text(),
            }),
        }
    }

    fn no_answer(&self, question: &str) -> Error {
        Error::NoAnswer {
            pid: self.pid(),
            question: question.to_owned(),
            limit: PATIENCE,
            stderr: self.stderr_text(),
        }
    }

    fn bad_answer(&self, question: &str, answer: &str) -> Error {
        Error::BadAnswer { pid: self.pid(), question: question.to_owned(), answer: answer.to_owned() }
    }
}

impl Drop for Fixture {
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
