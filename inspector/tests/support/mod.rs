//! Go programs to look at, built here with the local Go, and what must hold of them afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

#[path = "../../../tests/src/copying.rs"]
mod copying;
pub(crate) mod schema;

const TINY: &str = r#"package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
)

func main() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	fmt.Println("done")
	in.ReadString('\n')
}
"#;

/// A directory for the programs of one test, empty at first.
pub(crate) fn dir(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for the test");
    dir
}

/// Runs a command that must succeed.
pub(crate) fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Whether the text of `list` marks a process as one with an agent. The mark stands behind the column of names, which is as wide
/// as the longest name of any Go process, so it is a word of its own where another name is longer.
pub(crate) fn has_agent(list: &str, pid: &str) -> bool {
    let rows = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|words| words.first() == Some(&pid))
        .any(|words| words.get(2).is_some_and(|name| name.ends_with('*')) || words.get(3) == Some(&"*"))
}

/// Builds the small program with these flags of `go build`.
pub(crate) fn build(dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    fs::write(dir.join("go.mod"), "module example.com/tiny\n\ngo 1.18\n").unwrap();
    fs::write(dir.join("main.go"), TINY).unwrap();
    let cgo = flags.contains(&"-buildmode=c-shared");
    must(
        Command::new("go")
            .current_dir(dir)
            .env("CGO_ENABLED", if cgo { "1" } else { "0" })
            .arg("build")
            .args(flags)
            .args(["-o", name, "."]),
    );
    dir.join(name)
}

/// What the local Go calls itself.
pub(crate) fn go_version() -> String {
    must(Command::new("go").args(["env", "GOVERSION"])).trim().to_owned()
}

/// Builds a C program.
pub(crate) fn build_c(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let file = dir.join(format!("{name}.c"));
    fs::write(&file, source).unwrap();
    must(Command::new("cc").arg("-o").arg(dir.join(name)).arg(file).args(flags));
    dir.join(name)
}

/// Copies a program that is to be executed.
pub(crate) fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    must(&mut copying::copying(from.as_ref(), to.as_ref()));
}

/// Writes a program that is to be executed.
pub(crate) fn write(to: &Path, bytes: &[u8]) {
    let written = to.with_extension("written");
    fs::write(&written, bytes).unwrap();
    fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).unwrap();
    copy(&written, to);
}

/// Copies a program with its bytes changed.
pub(crate) fn patched(from: &Path, to: PathBuf, patch: impl FnOnce(&mut [u8])) -> PathBuf {
    let mut bytes = fs::read(from).unwrap();
    patch(&mut bytes);
    write(&to, &bytes);
    to
}

/// Forgets the section headers.
pub(crate) fn drop_sections(bytes: &mut [u8]) {
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
}

/// Zeroes the build info, version and all.
pub(crate) fn wipe_build_info(bytes: &mut [u8]) {
    let magic = b"\xff Go buildinf:";
    let at = bytes.windows(magic.len()).position(|w| w == magic).expect("build info");
    bytes[at..at + 64].fill(0);
}

/// A running program that waits on its standard input.
pub(crate) struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The first line that it wrote.
    pub(crate) greeting: String,
    /// Its pid as we see it.
    pub(crate) pid: u32,
}

impl Target {
    pub(crate) fn start(program: &Path) -> Self {
        Self::start_command(&mut Command::new(program))
    }

    pub(crate) fn start_command(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // Another test's child was forked while we wrote this program, and has not executed its own yet.
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(e) => panic!("{command:?}: {e}"),
            }
        };
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        stdout.read_line(&mut greeting).unwrap();
        assert!(!greeting.is_empty(), "{command:?} ended early");
        let pid = child.id();
        Target { child, stdin, stdout, greeting: greeting.trim().to_owned(), pid }
    }

    /// Asserts that it runs, untraced and unstopped, and answers; then ends it.
    pub(crate) fn finish(mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it still runs");
        assert!(status.contains("TracerPid:\t0\n"), "traced: {status}");
        let state = status.lines().find_map(|l| l.strip_prefix("State:\t")).unwrap();
        assert!(!state.starts_with(['T', 't']), "{state}");
        self.stdin.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "done");
        let _ = self.stdin.write_all(b"\n");
        let _ = self.child.wait();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our program.
pub(crate) fn probe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gops-probe"))
}

pub(crate) fn run(args: &[&str]) -> Output {
    probe().args(args).output().unwrap()
}

/// The JSON answer of a command that must succeed.
pub(crate) fn json(args: &[&str]) -> Value {
    serde_json::from_str(&must(probe().args(args))).expect("JSON")
}

/// What `list --json` says about a process, if it lists it.
pub(crate) fn listed(pid: u32) -> Option<Value> {
    let list = json(&["--json"]);
    list["processes"].as_array().unwrap().iter().find(|p| p["pid"] == pid).cloned()
}

/// Whether tests may change namespaces and users. Said loudly where not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}
