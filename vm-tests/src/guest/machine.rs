//! The machine that sub-tests run on: its programs, and who runs them.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixtures::{Cell, Fixture, Process};

use super::identity::Identity;
use super::{Failure, targets};
use crate::needs::Need;

/// The machine that sub-tests run on.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    /// It is ours: settings can be changed.
    pub(crate) own: bool,
    /// What the sub-test in progress found out about capabilities.
    needs: RefCell<Vec<Need>>,
}

impl Machine {
    /// A machine with programs below a folder; its settings are changed only where it is our `own`.
    #[must_use]
    pub fn new(root: &Path, own: bool) -> Self {
        Self { root: root.to_owned(), own, needs: RefCell::default() }
    }

    /// Notes how a command went, for the table of capabilities.
    pub(crate) fn note(&self, need: Need) {
        self.needs.borrow_mut().push(need);
    }

    /// What was noted since the last time.
    pub(crate) fn noted(&self) -> Vec<Need> {
        self.needs.take()
    }

    /// Why programs cannot run as other users, if they cannot.
    pub(crate) fn no_other_users(&self) -> Option<String> {
        (!nix::unistd::geteuid().is_root()).then(|| "only root can run programs as other users".to_owned())
    }

    /// `gops-probe` as we are.
    pub(crate) fn probe<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output, Failure> {
        let mut command = Command::new(self.probe_path());
        command.args(arguments);
        run(command)
    }

    /// `gops-probe` as somebody else.
    pub(crate) fn probe_as<S: AsRef<OsStr>>(
        &self,
        who: Identity,
        arguments: &[S],
    ) -> Result<Output, Failure> {
        let mut command = self.command_as(who, &self.probe_path());
        command.args(arguments);
        run(command)
    }

    /// `gops-probe` as somebody else, without an environment.
    pub(crate) fn bare_probe_as(&self, who: Identity, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = self.command_as(who, &self.probe_path());
        command.args(arguments).env_clear();
        run(command)
    }

    /// A target of ours.
    pub(crate) fn target(&self, cell: &Cell) -> Result<Fixture, Failure> {
        self.start(Command::new(self.root.join(targets::name(cell))))
    }

    /// A target of somebody else.
    pub(crate) fn target_as(&self, who: Identity, cell: &Cell) -> Result<Fixture, Failure> {
        self.start(self.command_as(who, &self.root.join(targets::name(cell))))
    }

    fn start(&self, mut command: Command) -> Result<Fixture, Failure> {
        Process::without_runtime_settings(&mut command);
        Ok(Fixture::start(command)?)
    }

    /// A program as somebody else, to add arguments to. The process is a child of this one, and no other.
    pub(crate) fn command_as(&self, who: Identity, program: &Path) -> Command {
        let mut command = Command::new(self.runner_path());
        command.args(["as", &who.uid.to_string(), &format!("--capabilities={}", who.names())]).arg(program);
        command.env("HOME", "/tmp").current_dir("/");
        command
    }

    pub(crate) fn probe_path(&self) -> PathBuf {
        self.root.join("bin/gops-probe")
    }

    fn runner_path(&self) -> PathBuf {
        self.root.join("bin/vm-runner")
    }
}

fn run(mut command: Command) -> Result<Output, Failure> {
    command.output().map_err(|error| format!("{command:?} cannot be started: {error}").into())
}

/// Checks the exit code, and that the messages have all of these words; returns what was written on standard output.
pub(crate) fn expect(what: &str, output: &Output, code: i32, words: &[&str]) -> Result<String, Failure> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) {
        return Err(format!("{what}: {} instead of exit code {code}: {stderr}", output.status).into());
    }
    match words.iter().find(|word| !stderr.contains(**word)) {
        Some(word) => Err(format!("{what}: {word:?} is not in {stderr:?}").into()),
        None => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}
