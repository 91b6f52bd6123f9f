//! Go programs that are not ours to look into are named as what they are, by every command: of another machine, of another compiler,
//! executed by an emulator.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fixtures::binary;
use fixtures::matrix::NEWEST;
use fixtures::repetition::say;

/// Says that it runs, and computes.
const SOURCE: &str = "package main\n\nimport \"os\"\n\nfunc main() {\n\tos.Stdout.WriteString(\"ready\\n\")\n\tfor {\n\t}\n}\n";

const COMMANDS: &[&[&str]] = &[
    &["version"],
    &["stack"],
    &["stats"],
    &["memstats"],
    &["heap"],
    &["gc"],
    &["setgc", "PID", "100"],
    &["pprof-goroutine"],
    &["pprof-heap"],
    &["pprof-cpu", "-d", "500ms", "-o", "/dev/null"],
    &["pprof-cpu", "--mode", "ptrace", "-d", "500ms", "-o", "/dev/null"],
    &["top", "--count", "1"],
];

/// Builds the program for a machine with the newest release, without its symbols.
fn built(folder: &Path, machine: &str) -> PathBuf {
    let (source, program) = (folder.join("main.go"), folder.join(machine));
    fs::write(&source, SOURCE).unwrap();
    let mut command = Command::new("go");
    command
        .current_dir(folder)
        .env("GOTOOLCHAIN", format!("go{NEWEST}"))
        .env("GOARCH", machine)
        .env("CGO_ENABLED", "0");
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg(&source);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn started(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Ends with the test, also where that fails: some of the programs compute for ever.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Each of `commands` ends with this code, and says this of the process.
fn check(target: Child, commands: &[&[&str]], code: i32, what: &str) {
    let mut target = Ended(target);
    let pid = target.0.id().to_string();
    for words in commands {
        let mut command = Command::new(binary().unwrap());
        let mut words: Vec<&str> =
            words.iter().map(|&word| if word == "PID" { pid.as_str() } else { word }).collect();
        if !words.contains(&pid.as_str()) {
            words.push(&pid);
        }
        let output = command.args(&words).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && stderr.contains(what),
            "{words:?}: {}: {stderr}",
            output.status
        );
    }
    assert!(target.0.try_wait().unwrap().is_none(), "it ended");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n") && !status.contains("State:\tT"), "{status}");
    target.0.kill().unwrap();
    target.0.wait().unwrap();
}

#[test]
fn of_32_bits() {
    let folder = tempfile::tempdir().unwrap();
    let program = built(folder.path(), "386");
    // Its build info can be read.
    let others: Vec<&[&str]> = COMMANDS.iter().filter(|command| command[0] != "version").copied().collect();
    check(started(&mut Command::new(program)), &others, 6, "a Go program for 386 (32-bit x86)");
}

#[test]
fn emulated() {
    let Some(emulator) = ["qemu-aarch64-static", "qemu-aarch64"].into_iter().find(|name| is_there(name))
    else {
        say("NOT TESTED: programs under qemu-user, which is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let program = built(folder.path(), "arm64");
    let what = format!("a Go program for arm64 that {emulator} emulates");
    check(started(Command::new(emulator).arg(program)), COMMANDS, 6, &what);
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The samples of such a program are those of any native code; everything else needs the other runtime.
fn native_too(command: &&&[&str]) -> bool {
    !matches!(command[0], "pprof-cpu" | "top")
}

#[test]
fn of_gccgo() {
    let folder = tempfile::tempdir().unwrap();
    let without: Vec<&[&str]> = COMMANDS.iter().filter(native_too).copied().collect();
    // What tells those that have the library inside.
    let (source, program) = (folder.path().join("main.c"), folder.path().join("inside"));
    let text = "#include <stdio.h>\nconst char text[] = \"%s:%U: libgo assertion failure\\n\";\n\
        int main(void) { puts(\"ready\"), fflush(stdout); for (volatile long n = 0;; n++) {} }\n";
    fs::write(&source, text).unwrap();
    assert!(Command::new("gcc").args(["-s", "-o"]).arg(&program).arg(&source).status().unwrap().success());
    check(started(&mut Command::new(&program)), &without, 6, "a Go program built with gccgo");
    let Some(compiler) = ["gccgo", "gccgo-12"].into_iter().find(|name| is_there(name)) else {
        say("NOT TESTED: programs of gccgo itself, which is not installed");
        return;
    };
    let source = folder.path().join("main.go");
    fs::write(&source, SOURCE).unwrap();
    for options in [&["-s"][..], &["-s", "-static-libgo"]] {
        let program = folder.path().join("program");
        let mut command = Command::new(compiler);
        let output = command.args(options).arg("-o").arg(&program).arg(&source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check(started(&mut Command::new(&program)), &without, 6, "a Go program built with gccgo");
        fs::remove_file(program).unwrap();
    }
}
