//! What changes a process: collections that are forced, GOGC and the memory limit, held against the process's own
//! runtime; killed and interrupted at any instant; on a process whose memory is not what it should be.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

mod collections;
mod kills;
mod refusals;
mod settings;
mod windows;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST_OF_EACH_MINOR, QUICK, candidates};
use fixtures::{Cell, Fixture, Program, Selection, Variant, binary, build};
use inspector::process::Process;
use nix::unistd::Pid;
use serde_json::Value;

/// The newest patch of each minor.
const VERSIONS: [&str; NEWEST_OF_EACH_MINOR.len()] = NEWEST_OF_EACH_MINOR;
/// The oldest release, the newest, and one between.
const FEW: [&str; 3] = QUICK;

/// These, and what comes before releases.
fn with_candidates() -> Vec<&'static str> {
    VERSIONS.into_iter().chain(candidates()).collect()
}

/// What of these is tried: all, or three releases in daily work.
fn tried(all: &[&'static str]) -> Vec<&'static str> {
    if fixtures::repetition::full() {
        return all.to_vec();
    }
    Selection::from_environment().unwrap().releases(all)
}

const STATE_VARIABLE: &str = "GOPS_PROBE_STATE_DIR";
/// For about so long, something is changed by a collection with GOGC=off.
const CHANGED: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing interrupts.
fn never() -> bool {
    false
}

/// A process to be changed, and where the journals of it are.
struct ChangedFixture {
    fixture: Fixture,
    state: tempfile::TempDir,
    name: String,
}

impl ChangedFixture {
    fn start(version: &'static str, variant: Variant, environment: &[(&str, &str)]) -> Self {
        let cell = Cell::new(version, variant, Program::Collector);
        build::build(&[cell], 2, &|_, _| ()).unwrap();
        let fixture = Fixture::spawn(&cell, &[], environment).unwrap();
        let settings: Vec<String> =
            environment.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        let name = format!("{cell}{}", settings.concat());
        Self { fixture, state: tempfile::tempdir().unwrap(), name }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().unwrap());
        let pid = self.fixture.pid().to_string();
        let with_pid =
            arguments.iter().map(|&argument| if argument == "PID" { pid.as_str() } else { argument });
        command.args(with_pid).env(STATE_VARIABLE, self.state.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {arguments:?}: {stderr}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    fn number(&mut self, question: &str) -> u64 {
        self.fixture.command(question).unwrap().parse().unwrap()
    }

    /// Sets GOGC in the process, and says what it was.
    fn percent(&mut self, percent: i32) -> i32 {
        self.fixture.command(&format!("percent {percent}")).unwrap().parse().unwrap()
    }

    /// Everything that the process checks is as it should be, nobody holds it, and it answers.
    fn assert_sound(&mut self) {
        let said = self.fixture.command("check").unwrap();
        assert!(said.starts_with("sound "), "{}: {said}", self.name);
        self.fixture.assert_untouched().unwrap();
        assert_eq!(self.fixture.stderr_text(), "", "{}", self.name);
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.state.path()).unwrap().count()
    }

    /// Whether a journal says that there is something to put back.
    fn has_left_over(&self) -> bool {
        let lines =
            |path: &Path| fs::read(path).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count();
        fs::read_dir(self.state.path()).unwrap().any(|entry| lines(&entry.unwrap().path()) > 1)
    }

    /// The guards of this process.
    fn guards(&self) -> Vec<Pid> {
        let pid = self.fixture.pid().to_string();
        let is_guard = |path: &Path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            words.get(1) == Some(&&b"guard-of-change"[..]) && words.get(2) == Some(&pid.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let found = entries.filter(|path| is_guard(path));
        found.filter_map(|path| path.file_name()?.to_str()?.parse().ok().map(Pid::from_raw)).collect()
    }

    /// Waits until no guard is there any more.
    fn wait_for_guards(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.guards().is_empty() {
            assert!(Instant::now() < deadline, "{}: a guard stays", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Any command that looks at the process puts back what nobody could.
    fn look_again(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.succeed(&["version", "--via", "probe", "PID"]);
            if self.journals() == 0 {
                return;
            }
            // A guard that was being started when its principal was killed comes later, and finds nothing to do.
            assert!(Instant::now() < deadline, "{}: a journal stays", self.name);
            self.wait_for_guards();
        }
    }

    fn pinned(&self) -> Process {
        self.fixture.pinned().unwrap()
    }
}
