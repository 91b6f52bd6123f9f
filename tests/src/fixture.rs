//! Running fixture: start, commands, and a check that it was left untouched.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::matrix::Cell;
use crate::process::{PATIENCE, Process};

/// Fixture process, killed when dropped.
#[derive(Debug)]
pub struct Fixture {
    process: Process,
    stdin: ChildStdin,
    stdout: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    dumper: u64,
}

impl Fixture {
    /// Starts a built cell and waits until all of its goroutines are in place.
    ///
    /// # Errors
    ///
    /// Returns an error if the cell is not built, or does not report that it is ready.
    pub fn spawn(cell: &Cell, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let path = cell.path();
        if !path.exists() {
            return Err(Error::NotBuilt(path));
        }
        let mut command = Command::new(path);
        command.args(cell.library()).args(arguments);
        Process::without_runtime_settings(&mut command);
        command.envs(environment.iter().copied());
        Self::start(command)
    }

    /// Starts a program that speaks the fixtures' protocol and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Returns an error if the program does not start, or does not report that it is ready.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let (Some(stdin), Some(mut output)) = (process.child.stdin.take(), process.child.stdout.take())
        else {
            return Err(Error::Failed { program, stderr: "no pipes".to_owned() });
        };
        let (sender, stdout) = channel();
        // A thread reads the output, so that waiting for an answer can end. The thread ends with the
        // process's stdout.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(size @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut fixture = Self { process, stdin, stdout, pending: Vec::new(), dumper: 0 };
        let line = fixture.line("start")?;
        fixture.dumper = line
            .strip_prefix("dumper ")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| fixture.process.bad_answer("start", &line))?;
        let line = fixture.line("start")?;
        if line != format!("ready {}", fixture.pid()) {
            return Err(fixture.process.bad_answer("start", &line));
        }
        Ok(fixture)
    }

    /// Pid of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the pinned process.
    ///
    /// # Errors
    /// Returns an error if the process has ended.
    pub fn pinned(&self) -> std::result::Result<inspector::process::Process, Box<dyn std::error::Error>> {
        Ok(inspector::process::Process::pin(self.pid().try_into()?)?)
    }

    /// Number of the goroutine that answers commands; it blocks reading stdin between commands.
    #[must_use]
    pub fn dumper(&self) -> u64 {
        self.dumper
    }

    /// Sends a command and returns its answer, one line.
    ///
    /// # Errors
    ///
    /// Returns an error if the process ended or does not answer.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.line(line)
    }

    /// Sends a command that answers `ok`.
    ///
    /// # Errors
    ///
    /// Returns an error if the answer is another.
    pub fn order(&mut self, line: &str) -> Result<()> {
        self.expect(line, "ok")
    }

    /// Checks that the process answers.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not answer.
    pub fn ping(&mut self) -> Result<()> {
        self.expect("ping", "pong")
    }

    /// Returns the process's own dump of all goroutines.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not return a dump.
    pub fn dump(&mut self) -> Result<String> {
        self.dump_on("dump")
    }

    /// Returns the dump that answers `question`.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not return a dump.
    pub fn dump_on(&mut self, question: &str) -> Result<String> {
        let line = self.command(question)?;
        let size: usize = line
            .strip_prefix("dump ")
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| self.process.bad_answer(question, &line))?;
        let deadline = Instant::now() + PATIENCE;
        while self.pending.len() <= size {
            self.receive(question, deadline)?;
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
    /// Returns an error if the process does not take the command.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let sent = self.stdin.write_all(format!("{line}\n").as_bytes());
        sent.map_err(|_| self.process.ended(line))
    }

    /// Returns the next line that the process writes; `question` is the command named in errors.
    ///
    /// # Errors
    ///
    /// Returns an error if no line arrives in time.
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

    /// Returns the text that the process wrote on stderr so far.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        self.process.stderr_text()
    }

    /// Waits until the process ends by itself, or by a signal that the test sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait()
    }

    /// Ends the process by Go's fatal signal, and returns the dump of its goroutines.
    ///
    /// The level of detail depends on the `GOTRACEBACK` that the process was started with.
    ///
    /// # Errors
    ///
    /// Returns an error if the signal cannot be sent or the process survives it.
    pub fn quit_dump(&mut self) -> Result<String> {
        self.process.dump_by(Signal::SIGQUIT)
    }

    /// Checks that the process lives, that none of its tasks is traced or stopped, and that it answers.
    ///
    /// # Errors
    ///
    /// Returns a description of the violation.
    pub fn assert_untouched(&mut self) -> Result<()> {
        self.assert_untraced()?;
        self.ping()
    }

    /// Checks the same as [`Self::assert_untouched`], but sends nothing to the process, so that its state
    /// does not change.
    ///
    /// # Errors
    ///
    /// Returns a description of the violation.
    pub fn assert_untraced(&mut self) -> Result<()> {
        self.process.assert_untraced()
    }

    fn expect(&mut self, question: &str, expected: &str) -> Result<()> {
        let answer = self.command(question)?;
        if answer == expected { Ok(()) } else { Err(self.process.bad_answer(question, &answer)) }
    }

    fn receive(&mut self, question: &str, deadline: Instant) -> Result<()> {
        match self.stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                self.pending.extend(bytes);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(self.process.no_answer(question)),
            Err(RecvTimeoutError::Disconnected) => Err(self.process.ended(question)),
        }
    }
}
