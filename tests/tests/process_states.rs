//! Processes in states that are not the usual one: without their first thread, panicking, held by somebody else, frozen,
//! in a wait that nothing interrupts. What can be answered is, and what cannot is refused with its true cause and a way
//! out that helps.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fixtures::matrix::{QUICK, newest_of};
use fixtures::repetition::say;
use fixtures::{Cell, Dump, Fixture, Program, Variant, build, compare, copy_program, matrix, probe, stack};
use inspector::change::guard::{Guard, Times};
use inspector::change::journal::Journal;
use inspector::process::Process;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn cell(version: &'static str, variant: Variant, program: Program) -> Cell {
    let cell = Cell::new(version, variant, program);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    cell
}

fn collector() -> Fixture {
    Fixture::spawn(&cell(newest_of(24), Variant::Stripped, Program::Collector), &[], &[]).unwrap()
}

/// Go code in a C program of which a thread does something.
fn host(what: &str, folder: &Path) -> Fixture {
    let library = cell(newest_of(24), Variant::CShared, Program::States).library().unwrap();
    let program = folder.join("host");
    let source = matrix::source_root().join("hosts/ends.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-pthread", "-o"]).arg(&program).arg(source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    let mut command = Command::new(&program);
    command.arg(library).arg(what);
    Fixture::start(command).unwrap()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(arguments: &[&str]) -> Value {
    let output = probe(arguments).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_says(arguments: &[&str], code: i32, words: &[&str], not: &[&str]) {
    let output = probe(arguments).unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word:?} is not in {said:?}");
    }
    for word in not {
        assert!(!said.contains(word), "{arguments:?}: {word:?} is in {said:?}");
    }
}

/// A command that stops the process, however long it takes to read on a machine that is busy.
fn stopping<'a>(command: &'a str, pid: &'a str) -> Vec<&'a str> {
    let mut arguments = vec![command, pid];
    if command == "heap" {
        arguments.extend(["--max-pause", "10s"]);
    }
    arguments
}

/// The first thread is a zombie; all that there is to know is known by the others.
#[test]
fn the_first_thread_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = host("ends", folder.path());
    let number = fixture.pid().to_string();
    let pid = number.as_str();
    let stat = format!("/proc/{pid}/stat");
    wait_until("its first thread does not end", || fs::read_to_string(&stat).unwrap().contains(") Z "));
    let list = json(&["list", "--json"]);
    let entry = list["processes"].as_array().unwrap().iter().find(|p| p["pid"].as_u64() == pid.parse().ok());
    assert_eq!(entry.unwrap_or_else(|| panic!("{list}"))["version"], "go1.24.13");
    assert_eq!(probe(&["version", pid]).unwrap().stdout, b"go1.24.13\n");
    assert_eq!(json(&["process", "--json", pid])["pid"], fixture.pid());
    for options in [&[][..], &["--no-pause"]] {
        let before = Dump::parse(&fixture.dump().unwrap());
        let found = stack(fixture.pid(), options).unwrap();
        let after = Dump::parse(&fixture.dump().unwrap());
        let comparison = compare(&before, &found, &after, fixture.dumper());
        assert!(comparison.accepted(), "{options:?}: {comparison:?}");
    }
    let state = tempfile::tempdir().unwrap();
    let change = |arguments: &[&str]| -> Value {
        let mut command = Command::new(fixtures::binary().unwrap());
        let output = command.args(arguments).env("GOPS_PROBE_STATE_DIR", state.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = change(&["gc", "--json", pid])["cycle"].as_u64().unwrap();
    let second = change(&["gc", "--json", pid])["cycle"].as_u64().unwrap();
    assert_eq!(second, first + 1);
    for options in [&[][..], &["--no-pause"]] {
        let stats = json(&[&["memstats", "--json", pid], options].concat());
        let text = stats.to_string();
        assert!(text.contains(&format!("\"NumGC\":{second}")), "{text}");
    }
    assert_eq!(change(&["setgc", "--json", pid, "77"])["previous_percent"], 100);
    assert!(json(&["stats", "--json", pid]).to_string().contains("goroutines"));
    assert!(probe(&["heap", pid]).unwrap().status.success());
    let goroutines = ["pprof-goroutine", "--format", "json", "-o", "-", pid];
    assert!(!json(&goroutines)["samples"].as_array().unwrap().is_empty());
    fixture.assert_untouched().unwrap();
}

/// A pipe into which nothing more fits.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    while (&writer).write(b".").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// It cannot write its traceback to its end, as nobody reads it.
#[test]
fn a_program_that_panics() {
    for version in QUICK {
        let program = cell(version, Variant::Stripped, Program::Collector).path();
        for by_signal in [false, true] {
            let (mut reader, writer) = full_pipe();
            let mut child = Command::new(&program)
                .env("GOTRACEBACK", "all")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(writer)
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().starts_with("dumper "));
            assert!(lines.next().unwrap().unwrap().starts_with("ready "));
            let number = child.id().to_string();
            let pid = number.as_str();
            let sound = probe(&["stack", pid]).unwrap();
            assert!(sound.status.success() && stderr(&sound).is_empty(), "{version}: {}", stderr(&sound));
            for command in ["stack", "memstats", "stats", "heap"] {
                assert_eq!(json(&[command, "--json", pid])["panicking"], false, "{version} {command}");
            }
            if by_signal {
                kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGQUIT).unwrap();
            } else {
                // It is no number.
                child.stdin.as_mut().unwrap().write_all(b"percent x\n").unwrap();
            }
            wait_until("it does not come to write its traceback", || {
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
                let channel = |task: PathBuf| fs::read_to_string(task.join("wchan")).unwrap_or_default();
                tasks.map(|task| channel(task.path())).any(|channel| channel.contains("pipe_write"))
            });
            for options in [&[][..], &["--no-pause"]] {
                let arguments = [&["stack"], options, &[pid]].concat();
                let output = probe(&arguments).unwrap();
                let said = stderr(&output);
                assert!(said.contains("note: the program is panicking"), "{version} {options:?}: {said}");
                assert!(output.stdout.starts_with(b"goroutine "), "{version} {options:?}");
                let arguments = [&["stack", "--json"], options, &[pid]].concat();
                let answer: Value = serde_json::from_slice(&probe(&arguments).unwrap().stdout).unwrap();
                assert_eq!(answer["panicking"], true, "{version} {options:?}");
            }
            // Whatever else is read says so too; there the goroutines wait for the one that writes.
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("profile").display().to_string();
            for command in [&["memstats"][..], &["stats"], &["heap"], &["pprof-goroutine", "-o", &file]] {
                let output = probe(&[command, &[pid]].concat()).unwrap();
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(0), "{version} {command:?}: {said}");
                assert_eq!(
                    said.matches("note: the program is panicking").count(),
                    1,
                    "{version} {command:?}: {said}"
                );
                if command.len() == 1 {
                    let answer = json(&[command, &["--json", pid]].concat());
                    assert_eq!(answer["panicking"], true, "{version} {command:?}");
                }
            }
            assert_says(&["gc", pid], 1, &["it is panicking"], &[]);
            // Once somebody reads what it writes, it ends as it would have.
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(2), "{version}");
            let cause = if by_signal { "SIGQUIT: quit" } else { "panic: " };
            let text = text.trim_start_matches('.');
            assert!(text.contains(cause) && text.contains("goroutine 1 "), "{version}: {text}");
        }
    }
}

/// A debugger may hold a thread that is not the first one.
#[test]
fn another_thread_is_traced() {
    let mut fixture = collector();
    let number = fixture.pid().to_string();
    let pid = number.as_str();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut threads = threads.map(|task| task.file_name().to_str().unwrap().parse::<i32>().unwrap());
    let thread = threads.find(|thread| thread.to_string() != pid).unwrap();
    let (seized, is_seized) = channel();
    let (done, is_done) = channel::<()>();
    // The kernel lets the thread go when its tracer ends.
    let tracer = std::thread::spawn(move || {
        ptrace::seize(Pid::from_raw(thread), ptrace::Options::empty()).unwrap();
        seized.send(()).unwrap();
        let _ = is_done.recv();
    });
    is_seized.recv().unwrap();
    let by = format!("is traced by process {}", std::process::id());
    for command in ["stack", "memstats", "heap"] {
        let way = format!("gops-probe {command} --no-pause {pid}");
        assert_says(&stopping(command, pid), 5, &[&by, &way], &[]);
        assert!(matches!(probe(&[command, "--no-pause", pid]).unwrap().status.code(), Some(0 | 7)));
    }
    assert_says(&["setgc", pid, "50"], 5, &[&by, "detach "], &["--no-pause"]);
    drop(done);
    tracer.join().unwrap();
    assert_eq!(fixture.command("percent 100").unwrap(), "100");
    fixture.assert_untouched().unwrap();
}

/// A thread in a vfork comes to no stop until its child has ended.
#[test]
fn a_thread_that_nothing_interrupts() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = host("waits", folder.path());
    let number = fixture.pid().to_string();
    let pid = number.as_str();
    wait_until("no thread of it is in a vfork", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let stat = |task: PathBuf| fs::read_to_string(task.join("stat")).unwrap_or_default();
        tasks.map(|task| stat(task.path())).any(|stat| stat.contains(") D "))
    });
    for command in ["stack", "memstats", "heap"] {
        let way = format!("gops-probe {command} --no-pause {pid}");
        assert_says(&stopping(command, pid), 1, &["state D", &way], &[]);
        assert!(matches!(probe(&[command, "--no-pause", pid]).unwrap().status.code(), Some(0 | 7)));
    }
    assert_says(&["setgc", pid, "50"], 1, &["state D", "nothing is written"], &["--no-pause"]);
    fixture.assert_untouched().unwrap();
}

/// A cgroup of our own, removed when dropped.
struct Cgroup {
    folder: PathBuf,
    version: u8,
}

impl Cgroup {
    /// Of the hierarchies that are mounted, one of this version that can freeze.
    fn new(version: u8) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let fits = match version {
                1 => words[2] == "cgroup" && words[3].split(',').any(|option| option == "freezer"),
                _ => words[2] == "cgroup2",
            };
            fits.then(|| PathBuf::from(words[1]))
        });
        let folder = root?.join(format!("gops-probe-states-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let cgroup = Self { folder, version };
        cgroup.folder.join(cgroup.file()).exists().then_some(cgroup)
    }

    fn file(&self) -> &'static str {
        if self.version == 1 { "freezer.state" } else { "cgroup.freeze" }
    }

    fn freeze(&self, is_to_be: bool) {
        let text = match (self.version, is_to_be) {
            (1, true) => "FROZEN",
            (1, false) => "THAWED",
            (_, true) => "1",
            (_, false) => "0",
        };
        fs::write(self.folder.join(self.file()), text).unwrap();
    }

    fn is_frozen(&self) -> bool {
        let (file, word) =
            if self.version == 1 { ("freezer.state", "FROZEN") } else { ("cgroup.events", "frozen 1") };
        fs::read_to_string(self.folder.join(file)).unwrap().contains(word)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.freeze(false);
        let root = self.folder.parent().unwrap().to_owned();
        for pid in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_frozen_process() {
    for version in [1, 2] {
        // Dropped last: what is frozen cannot be ended.
        let mut fixture = collector();
        let Some(cgroup) = Cgroup::new(version) else {
            say(&format!("NOT TESTED: a process frozen by a cgroup of version {version}: none can be made"));
            continue;
        };
        let number = fixture.pid().to_string();
        let pid = number.as_str();
        fs::write(cgroup.folder.join("cgroup.procs"), pid).unwrap();
        cgroup.freeze(true);
        wait_until("it does not freeze", || cgroup.is_frozen());
        let frozen = format!("its cgroup {} is frozen", cgroup.folder.display());
        let thaw = format!(" > {}", cgroup.folder.join(cgroup.file()).display());
        for command in ["stack", "memstats", "heap"] {
            let way = format!("gops-probe {command} --no-pause {pid}");
            // In version 2 a frozen thread can be traced.
            if version == 1 {
                assert_says(&stopping(command, pid), 1, &[&frozen, &thaw, &way], &[]);
            } else {
                assert!(probe(&stopping(command, pid)).unwrap().status.success(), "{command}");
            }
            assert!(matches!(probe(&[command, "--no-pause", pid]).unwrap().status.code(), Some(0 | 7)));
            assert!(cgroup.is_frozen(), "{command}");
        }
        for arguments in [&["gc", pid][..], &["setgc", pid, "50"], &["setmemlimit", pid, "1GiB"]] {
            assert_says(arguments, 1, &[&frozen, &thaw], &["--no-pause"]);
        }
        cgroup.freeze(false);
        wait_until("it does not thaw", || !cgroup.is_frozen());
        assert_eq!(fixture.command("percent 100").unwrap(), "100");
        fixture.assert_untouched().unwrap();
    }
}

/// /proc writes the path of its program in two ways.
#[test]
fn a_program_with_a_line_end_in_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsStr::from_bytes(b"a\nb\\012c"));
    copy_program(&cell(newest_of(24), Variant::Pie, Program::Collector).path(), &path).unwrap();
    let mut command = Command::new(&path);
    command.env("GOGC", "off");
    let mut fixture = Fixture::start(command).unwrap();
    let count = |fixture: &mut Fixture| fixture.command("numgc").unwrap().parse::<u64>().unwrap();
    let before = count(&mut fixture);
    let state = tempfile::tempdir().unwrap();
    let mut gc = Command::new(fixtures::binary().unwrap());
    gc.args(["gc", &fixture.pid().to_string()]).env("GOPS_PROBE_STATE_DIR", state.path());
    let output = gc.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(count(&mut fixture), before + 1);
    fixture.assert_untouched().unwrap();
}

/// The guard refuses a process that has executed another program, and that is the cause that is named.
#[test]
fn another_program_is_executed_before_the_guard_stands() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo; read x; exec sleep 60"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let process = Process::pin(u64::from(child.id()).try_into().unwrap()).unwrap();
    let journal = Journal::open(&process).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let name = format!("/proc/{}/comm", child.id());
    wait_until("it executes nothing", || fs::read_to_string(&name).unwrap() == "sleep\n");
    let times = Times { opening: PATIENCE, open: PATIENCE };
    let error = Guard::start(fixtures::binary().unwrap(), &process, &journal, times).unwrap_err().to_string();
    assert!(error.contains("executed another program"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
}
