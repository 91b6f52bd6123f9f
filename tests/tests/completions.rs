//! Completions in the shells themselves: bash and zsh on a terminal, where keys are pressed, and fish by its own command for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::repetition::say;
use fixtures::{Fixture, agents, binary, copy_program};
use nix::pty::{Winsize, openpty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the names of all processes of these tests begin; the name of the shell follows.
const NAME: &str = "completed-by-";

/// A Go process to be completed, and a folder with our program under its own name.
struct Setting {
    fixture: Fixture,
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(shell: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(binary().unwrap(), folder.path().join("gops-probe")).unwrap();
        let program = folder.path().join(format!("{NAME}{shell}-alone"));
        copy_program(&agents::parked(true).unwrap(), &program).unwrap();
        let mut command = Command::new(program);
        command.args(["-n", "1", "-heartbeat", "0"]);
        Setting { fixture: Fixture::start(command).unwrap(), folder }
    }

    fn pid(&self) -> String {
        self.fixture.pid().to_string()
    }

    fn script(&self, shell: &str) -> std::path::PathBuf {
        let output =
            Command::new(binary().unwrap()).args(["generate", "completions", shell]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.folder.path().join(format!("script.{shell}"));
        fs::write(&path, output.stdout).unwrap();
        path
    }

    /// A command whose programs are found in our folder first.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.folder.path().display()));
        command.env("HOME", self.folder.path()).env("TERM", "dumb").env_remove("GOPS_PROBE_COMPLETE");
        command.current_dir(self.folder.path());
        command
    }
}

/// Whether a shell is there. Said loudly where not.
fn has(shell: &str) -> bool {
    let found = Command::new(shell).args(["-c", "true"]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        say(&format!("NOT TESTED: completions of {shell}: it is not installed"));
    }
    found
}

/// A shell on a terminal.
struct Terminal {
    shell: Child,
    ours: File,
    seen: String,
}

impl Terminal {
    fn open(mut command: Command) -> Self {
        let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let theirs = File::from(pair.slave);
        command.stdin(theirs.try_clone().unwrap());
        command.stdout(theirs.try_clone().unwrap());
        command.stderr(theirs);
        Terminal { shell: command.spawn().unwrap(), ours: File::from(pair.master), seen: String::new() }
    }

    fn take(&mut self, patience: Duration) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let mut events = [PollFd::new(&self.ours, PollFlags::IN)];
        if poll(&mut events, Some(&timeout)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 1 << 12];
        let Ok(length) = self.ours.read(&mut bytes) else { return false };
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        true
    }

    /// Presses keys, and waits until this has been written since.
    #[track_caller]
    fn press(&mut self, keys: &str, expected: &str) -> String {
        self.seen.clear();
        self.ours.write_all(keys.as_bytes()).unwrap();
        self.see(keys, expected)
    }

    #[track_caller]
    fn see(&mut self, keys: &str, expected: &str) -> String {
        let start = Instant::now();
        while !self.seen.contains(expected) {
            assert!(start.elapsed() < PATIENCE, "{keys:?} does not give {expected:?}: {:?}", self.seen);
            self.take(Duration::from_millis(100));
        }
        while self.take(Duration::from_millis(50)) {}
        self.seen.clone()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Clears the line.
const CLEAR: &str = "\u{15}";

/// What both shells on a terminal must do. Pressing the key until the rest is there is what a user does.
fn keys(terminal: &mut Terminal, setting: &Setting, shell: &str) {
    let pid = setting.pid();
    terminal.press("gops-probe vers\t", "ion");
    // A command with a dash, and a word behind a command.
    terminal.press(&format!("{CLEAR}gops-probe pprof-gor\t"), "outine");
    terminal.press(&format!("{CLEAR}gops-probe pprof-heap --format fl\t"), "amegraph");
    terminal.press(&format!("{CLEAR}gops-probe pprof-heap --format=fl\t"), "amegraph");
    terminal.press(&format!("{CLEAR}gops-probe stack --no-p\t"), "ause");
    // The whole pid but for its last digit may be the beginning of others too.
    terminal.press(&format!("{CLEAR}gops-probe stack {pid}\t"), &pid);
    terminal.press(&format!("{CLEAR}gops-probe stack name:{NAME}{shell}\t"), "-alone");
    let shown = terminal.press(&format!("{CLEAR}gops-probe g\t\t"), "gc");
    assert!(!shown.contains("guard"), "the hidden commands are hidden: {shown}");
}

#[test]
fn bash() {
    if !has("bash") {
        return;
    }
    let mut setting = Setting::new("bash");
    let script = setting.script("bash");
    let mut command = setting.command("setsid");
    command.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]).env("PS1", "READY ");
    let mut terminal = Terminal::open(command);
    terminal.see("", "READY");
    terminal.press(
        &format!("bind 'set bell-style none'; source {}; echo SO''URCED\n", script.display()),
        "SOURCED",
    );
    keys(&mut terminal, &setting, "bash");
    // Where there are several, each is shown with what it is.
    let text = fs::read_to_string(&script).unwrap();
    assert!(text.contains("COMP_POINT"), "{text}");
    let pid = setting.pid();
    let shown = terminal.press(&format!("{CLEAR}gops-probe stack \t\t"), NAME);
    assert!(shown.contains(&pid), "{shown}");
    drop(terminal);
    setting.fixture.assert_untouched().unwrap();
}

#[test]
fn zsh() {
    if !has("zsh") {
        return;
    }
    let mut setting = Setting::new("zsh");
    let script = setting.script("zsh");
    let mut command = setting.command("setsid");
    command.args(["--ctty", "zsh", "-f", "-i"]).env("PS1", "READY ");
    let mut terminal = Terminal::open(command);
    terminal.see("", "READY");
    let line = format!(
        "autoload -U compinit; compinit -u -D; unsetopt beep; source {}; echo SO''URCED\n",
        script.display()
    );
    terminal.press(&line, "SOURCED");
    keys(&mut terminal, &setting, "zsh");
    drop(terminal);
    // As packages install it: a file in `fpath` whose first completion is no empty one.
    let folder = setting.folder.path().join("functions");
    fs::create_dir(&folder).unwrap();
    fs::copy(&script, folder.join("_gops-probe")).unwrap();
    let mut command = setting.command("setsid");
    command.args(["--ctty", "zsh", "-f", "-i"]).env("PS1", "READY ");
    let mut terminal = Terminal::open(command);
    terminal.see("", "READY");
    let line = format!(
        "fpath=({} $fpath); autoload -U compinit; compinit -u -D; echo SO''URCED\n",
        folder.display()
    );
    terminal.press(&line, "SOURCED");
    terminal.press("gops-probe vers\t", "ion");
    drop(terminal);
    setting.fixture.assert_untouched().unwrap();
}

#[test]
fn fish() {
    if !has("fish") {
        return;
    }
    let mut setting = Setting::new("fish");
    let script = setting.script("fish");
    let pid = setting.pid();
    for (line, expected) in [
        ("gops-probe vers", "version\t".to_owned()),
        ("gops-probe pprof-heap --format fl", "flamegraph\t".to_owned()),
        ("gops-probe stack name:completed-by-f", format!("name:{NAME}fish-alone\tprocess {pid}")),
        (&format!("gops-probe stack {pid}"), format!("{pid}\t{NAME}")),
    ] {
        let output = complete(&setting, &script, line);
        assert!(output.contains(&expected), "{line}: {output}");
    }
    assert!(!complete(&setting, &script, "gops-probe g").contains("guard"));
    setting.fixture.assert_untouched().unwrap();
}

fn complete(setting: &Setting, script: &Path, line: &str) -> String {
    let mut command = setting.command("fish");
    command.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]", "--"]).arg(script).arg(line);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    format!("{}{stderr}", String::from_utf8_lossy(&output.stdout))
}
