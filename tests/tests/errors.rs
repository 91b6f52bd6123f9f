//! Every cause that `stack` cannot give an answer for: its exit code, the cause, and what to do about it.
//! Those that `list` and `version` meet first are tested next to these commands.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Variant, binary, build, copy_program, probe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use symbols::image::{Arch, Image};
use symbols::program::{Release, identify};

fn cell(program: Program) -> Cell {
    let cell = Cell::new(NEWEST, Variant::Stripped, program);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    cell
}

fn parked(goroutines: &str) -> Fixture {
    Fixture::spawn(&cell(Program::Parked), &["-n", goroutines], &[]).unwrap()
}

/// Checks the exit code, and that the message names all of this.
fn assert_says(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
}

/// Ends a process of the test when dropped.
struct Other(Child);

impl Other {
    /// Starts a program that writes a line first.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{command:?}");
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Checks that it lives, untraced and not stopped.
    fn assert_untouched(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        assert!(status.contains("TracerPid:\t0\n"), "{status}");
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap();
        assert!(state.contains(['S', 'R']) && !state.contains('Z'), "{state}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds a small Go program for a machine.
fn tiny(folder: &Path, machine: &str) -> PathBuf {
    let source = "package main\n\nimport \"os\"\n\nfunc main() {\n\tos.Stdout.WriteString(\"ready\\n\")\n\
                  \tos.Stdin.Read(make([]byte, 1))\n}\n";
    fs::write(folder.join("go.mod"), "module example.com/tiny\n\ngo 1.18\n").unwrap();
    fs::write(folder.join("main.go"), source).unwrap();
    let path = folder.join(machine);
    let mut go = Command::new("go");
    go.current_dir(folder).args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"]).arg(&path);
    go.env("GOARCH", machine).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", format!("go{NEWEST}"));
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

#[test]
fn what_is_no_go_process() {
    assert_says(&probe(&["stack", "999999999"]).unwrap(), 3, &["there is no process 999999999", "hint: "]);
    let mut sleeper = Other::start(Command::new("sh").args(["-c", "echo; read x"]));
    let output = probe(&["stack", &sleeper.pid()]).unwrap();
    assert_says(&output, 4, &["is not a Go program", "hint: `gops-probe` without arguments lists"]);
    sleeper.assert_untouched();
    // Not waited for, it becomes a zombie.
    sleeper.0.kill().unwrap();
    let stat = format!("/proc/{}/stat", sleeper.pid());
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    let parent = format!("its parent {} has not waited", std::process::id());
    assert_says(&probe(&["stack", &sleeper.pid()]).unwrap(), 3, &["is a zombie", &parent]);
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        assert_says(&probe(&["stack", "2"]).unwrap(), 4, &["(kthreadd) is a kernel thread"]);
    } else {
        say("NOT TESTED: stack of a kernel thread: none is visible here");
    }
    for wrong in
        [&["stack"][..], &["stack", "-1"], &["stack", "1", "--max-pause", "x"], &["stack", "1", "--no"]]
    {
        assert_eq!(probe(wrong).unwrap().status.code(), Some(2), "{wrong:?}");
    }
    assert_says(&probe(&["stack", "1", "--match", "("]).unwrap(), 2, &["--match"]);
}

#[test]
fn programs_for_other_machines() {
    let folder = tempfile::tempdir().unwrap();
    for (machine, arch, size) in [
        ("arm64", Arch::Arm64, 8),
        ("riscv64", Arch::Other(243), 8),
        ("arm", Arch::Other(40), 4),
        ("386", Arch::Other(3), 4),
    ] {
        let path = tiny(folder.path(), machine);
        let bytes = fs::read(&path).unwrap();
        let image = Image::parse(Box::new(bytes.clone())).unwrap();
        assert_eq!((image.arch(), image.pointer_size()), (arch, size), "{machine}");
        let program = identify(&image).unwrap();
        assert!(
            matches!(&program.release, Release::Exact(v) if v.raw == format!("go{NEWEST}")),
            "{machine}: {program:?}"
        );
        let info = program.build_info.unwrap();
        assert_eq!(info.setting("GOARCH"), Some(machine));
        // Cut off anywhere, it may be unknown, and no more.
        for length in (0..bytes.len()).step_by(bytes.len() / 64) {
            if let Ok(image) = Image::parse(Box::new(bytes[..length].to_vec())) {
                let _ = identify(&image);
            }
        }
    }
    let mut command = Command::new(folder.path().join("386"));
    match command.stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(_) => {}
        Err(error) => {
            say(&format!("NOT TESTED: a process of a 32-bit program: {error}"));
            return;
        }
    }
    let target = Other::start(&mut Command::new(folder.path().join("386")));
    let version = probe(&["version", &target.pid()]).unwrap();
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("go{NEWEST}\n"), "{version:?}");
    let list = probe::<&str>(&[]).unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(&target.pid()));
    assert!(line.is_some_and(|line| line.contains(&format!("go{NEWEST}"))), "{list}");
    for mode in [&["stack"][..], &["stack", "--no-pause"]] {
        let output = probe(&[mode, &[&target.pid()]].concat()).unwrap();
        assert_says(&output, 6, &["a Go program for 386 (32-bit x86)", "not supported"]);
    }
    target.assert_untouched();
}

#[test]
fn a_release_that_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(tiny(folder.path(), "amd64")).unwrap();
    // The version that the build info blob states.
    let at = bytes.windows(14).position(|window| window == b"\xff Go buildinf:").unwrap() + 33;
    let newest = format!("go{NEWEST}");
    assert!(bytes[at..].starts_with(newest.as_bytes()));
    let old = format!("go1.17{}", &newest["go1.17".len()..]);
    bytes[at..at + old.len()].copy_from_slice(old.as_bytes());
    let (written, path) = (folder.path().join("written"), folder.path().join("old"));
    fs::write(&written, bytes).unwrap();
    fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&written, &path).unwrap();
    let target = Other::start(&mut Command::new(&path));
    let version = probe(&["version", &target.pid()]).unwrap();
    // It is one of the newest release in truth, and its function table shows that.
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("{old} (doubtful)\n"), "{version:?}");
    assert_says(&version, 7, &[&format!("it would be {old}"), "function table is one of go1.20+"]);
    let output = probe(&["stack", &target.pid()]).unwrap();
    assert_says(&output, 6, &[&format!("was built by {old}"), "only go1.18 and later"]);
    target.assert_untouched();
}

#[test]
fn a_process_of_another_user() {
    if !nix::unistd::geteuid().is_root() {
        say("NOT TESTED: stack without permission: the test does not run as root");
        return;
    }
    let mut fixture = parked("10");
    // Where any user may execute it.
    let public = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = public.path().join("gops-probe");
    copy_program(binary().unwrap(), &program).unwrap();
    for mode in [&["stack"][..], &["stack", "--no-pause"]] {
        let mut command = Command::new(&program);
        command.args(mode).arg(fixture.pid().to_string()).uid(65534).gid(65534);
        assert_says(&command.output().unwrap(), 5, &["belongs to another user (uid 0)", "sudo", "hint: "]);
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn names_with_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\u{1b}]0;b\u{7}\nc\u{9b}31m");
    copy_program(&cell(Program::Parked).path(), &path).unwrap();
    let mut command = Command::new(&path);
    command.args(["-n", "10"]);
    let mut fixture = Fixture::start(command).unwrap();
    let pid = fixture.pid().to_string();
    for arguments in [
        &["list", "-v"][..],
        &["version", "-v", &pid],
        &["version", "--json", &pid],
        &["stack", "-v", &pid],
        &["stack", "-vvv", "--no-pause", &pid],
        &["stack", "--json", &pid],
        &["stack", "--goroutine", "999999999", &pid],
        &["stack", &pid, "-o", "/nonexistent/a\u{1b}[31m\u{7}"],
    ] {
        let output = probe(arguments).unwrap();
        for bytes in [output.stdout, output.stderr] {
            let text = String::from_utf8(bytes).unwrap();
            let raw = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
            assert_eq!(raw, None, "{arguments:?}: {text:?}");
            assert!(!text.contains("\nc\u{9b}31m"), "{arguments:?}: {text:?}");
        }
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn outputs_that_end_or_are_full() {
    let mut fixture = parked("2000");
    let pid = fixture.pid().to_string();
    let start = |stdout: Stdio| {
        let mut command = Command::new(binary().unwrap());
        command.args(["stack", &pid]).stdout(stdout).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // As `| head -1` does.
    let mut ours = start(Stdio::piped());
    let mut reader = BufReader::with_capacity(64, ours.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("goroutine "), "{line}");
    drop(reader);
    let output = ours.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{output:?}");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let output = start(full().into()).wait_with_output().unwrap();
    assert_says(&output, 1, &["cannot write standard output: No space left", "hint: the disk is full"]);
    let output = probe(&["stack", &pid, "-o", "/dev/full"]).unwrap();
    assert_says(&output, 1, &["cannot write /dev/full: No space left", "hint: the disk is full"]);
    let output = probe(&["stack", &pid, "-o", "/nonexistent/file"]).unwrap();
    assert_says(&output, 1, &["cannot write /nonexistent/file: No such file"]);
    fixture.assert_untouched().unwrap();
}

#[test]
fn a_slow_reader_does_not_hold_the_target() {
    let mut fixture = parked("5000");
    let mut command = Command::new(binary().unwrap());
    command.args(["stack", &fixture.pid().to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut ours = command.spawn().unwrap();
    // The answer begins; the rest does not fit into the pipe.
    let mut first = [0];
    ours.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        assert!(ours.try_wait().unwrap().is_none(), "it does not wait for its reader");
        fixture.assert_untouched().unwrap();
    }
    let output = ours.wait_with_output().unwrap();
    assert_eq!((output.status.code(), first), (Some(0), *b"g"));
    assert!(output.stdout.len() > 1 << 16);
    fixture.assert_untouched().unwrap();
}

#[test]
fn two_without_a_pause_at_once() {
    let mut fixture = parked("100");
    let pid = fixture.pid().to_string();
    let mut repetitions = Repetitions::new("errors", "two gops-probes without a pause at once", 60);
    while repetitions.another() {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let output = probe(&["stack", "--no-pause", &pid]).unwrap();
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{}: {stderr}", output.status);
                    assert!(output.stdout.starts_with(b"goroutine "));
                });
            }
        });
        fixture.assert_untouched().unwrap();
    }
    repetitions.report(&json!({}));
}

#[test]
fn interrupted_it_leaves_the_target_as_it_was() {
    let mut fixture = parked("2000");
    let pid = fixture.pid().to_string();
    let start = || {
        // The shell that started the test may have had it ignore the signal.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(binary().unwrap());
        command.args(["stack", &pid]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // The first times are longer than those that follow: a signal after so long would come too late.
    let run = || {
        let begun = Instant::now();
        start().wait().unwrap();
        u64::try_from(begun.elapsed().as_micros()).unwrap()
    };
    let whole = (0..5).map(|_| run()).min().unwrap();
    let mut repetitions = Repetitions::new("errors", "gops-probe interrupted", 200);
    let mut interrupted = 0;
    while repetitions.another() {
        let mut ours = start();
        std::thread::sleep(Duration::from_micros(repetitions.random(whole)));
        // Not waited for, so the number is still its own.
        kill(Pid::from_raw(i32::try_from(ours.id()).unwrap()), Signal::SIGINT).unwrap();
        let status = ours.wait().unwrap();
        // A shell says 130 of either.
        let by_signal = status.signal() == Some(Signal::SIGINT as i32);
        interrupted += usize::from(by_signal || status.code() == Some(130));
        assert!(by_signal || matches!(status.code(), Some(0 | 130)), "{status}, seed {}", repetitions.seed());
        fixture.assert_untouched().unwrap();
    }
    repetitions.report(&json!({ "interrupted": interrupted }));
    assert!(interrupted > 0);
}
