//! What is left where the machine gives us no thread and no process, and where memory that we want to read does not come: each
//! command answers, or says why it does not, and the target goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, probe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn cell(program: Program) -> Cell {
    let cell = Cell::new(NEWEST, Variant::Stripped, program);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    cell
}

/// A cgroup in which nothing can start a thread or a process, removed when dropped.
struct Full(PathBuf);

impl Full {
    /// `None` where no hierarchy of cgroups that counts tasks can be written.
    fn make(of: &str) -> Option<Self> {
        for top in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
            let folder = Path::new(top).join(format!("gops-probe-test-{of}-{}", std::process::id()));
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let full = Full(folder);
            // It is there where this is a cgroup, and not just a folder.
            let limit = fs::OpenOptions::new().write(true).open(full.0.join("pids.max"));
            if limit.is_ok_and(|mut limit| limit.write_all(b"1").is_ok()) {
                return Some(full);
            }
        }
        None
    }

    /// `gops-probe`, alone in it.
    fn probe(&self, arguments: &[&str]) -> Command {
        self.probe_after(":", arguments)
    }

    /// The same, where a shell has done something before.
    fn probe_after(&self, what: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        let script = format!("{what} && echo 0 > \"$0\" && exec \"$@\"");
        command.arg("-c").arg(script).arg(self.0.join("cgroup.procs"));
        command.arg(binary().unwrap()).args(arguments);
        command
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{:?}\n{}\n{err}", output.status, out.get(..2000).unwrap_or(&out))
}

#[test]
fn no_thread_and_no_process() {
    let Some(full) = Full::make("tasks") else {
        say("NOT TESTED: no further tasks: no cgroup with pids.max can be made here");
        return;
    };
    // As many goroutines as several threads would share.
    let never = [("GOGC", "off")];
    let mut fixture = Fixture::spawn(&cell(Program::Parked), &["-n", "5000"], &never).unwrap();
    let pid = fixture.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    let file = file.to_str().unwrap();
    for arguments in [
        &["list"][..],
        &["tree"],
        &["process", &pid],
        &["version", &pid],
        &["stack", &pid],
        &["stack", "--json", &pid],
        &["stack", "--no-pause", &pid],
        &["stats", &pid],
        &["memstats", &pid],
        &["memstats", "--no-pause", &pid],
        &["heap", &pid],
        &["pprof-heap", "-o", file, &pid],
        &["pprof-allocs", "-o", file, &pid],
        &["pprof-goroutine", "-o", file, &pid],
        &["pprof-threadcreate", "-o", file, &pid],
        &["pprof-block", "-o", file, &pid],
        &["pprof-mutex", "-o", file, &pid],
        &["pprof-cpu", "--duration=500ms", "-o", file, &pid],
        &["pprof-cpu", "--mode=ptrace", "--duration=500ms", "-o", file, &pid],
        &["trace", "-o", file, &pid],
        &["binary", "-o", file, &pid],
        &["generate", "commands-table"],
    ] {
        let ours = full.probe(arguments).output().unwrap();
        let theirs = probe(arguments).unwrap();
        // What hardly runs is sampled by chance only: both without a sample and with a few.
        let by_chance = arguments.contains(&"pprof-cpu");
        let code = |output: &Output| match output.status.code() {
            Some(7) if by_chance => Some(0),
            code => code,
        };
        assert_eq!(code(&ours), code(&theirs), "{arguments:?}: {}", said(&ours));
        if arguments.contains(&"stack") && !arguments.contains(&"--json") {
            let count = |output: &Output| {
                output.stdout.split(|&b| b == b'\n').filter(|line| line.starts_with(b"goroutine ")).count()
            };
            assert!(count(&ours) >= 5000, "{arguments:?}: {}", count(&ours));
            assert_eq!(count(&ours), count(&theirs), "{arguments:?}");
        }
    }
    fixture.assert_untouched().unwrap();
    // What changes a setting has another process that puts it back: a collection does where there are none.
    let collections = |fixture: &mut Fixture| {
        let stats = probe(&["memstats", &fixture.pid().to_string()]).unwrap();
        let stats = String::from_utf8(stats.stdout).unwrap();
        stats.lines().find_map(|line| line.strip_prefix("num-gc: ")).unwrap().to_owned()
    };
    let before = collections(&mut fixture);
    for arguments in [&["gc", &pid][..], &["pprof-block", "--enable", "--duration=1s", "-o", file, &pid]] {
        let output = full.probe(arguments).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("no guard could be started"), "{said}");
        assert!(said.contains("its pids.max allows") && said.contains("nothing is written"), "{said}");
    }
    assert_eq!(collections(&mut fixture), before);
    let output = full.probe(&["-vv", "stack", &pid]).output().unwrap();
    assert!(said(&output).contains("no thread can be started: the cgroup"), "{}", said(&output));
    // One that goes on answers one connection after the other.
    let mut server = full.probe(&["serve", "--gops", &pid]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let address = line.split_ascii_whitespace().find(|word| word.contains(':')).unwrap().to_owned();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&[4]).unwrap();
        let mut version = String::new();
        stream.read_to_string(&mut version).unwrap();
        assert_eq!(version.trim(), format!("go{NEWEST}"), "{line}");
    }
    kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_ne!(server.wait().unwrap().code(), Some(101));
    fixture.assert_untouched().unwrap();
}

/// A process with a page that has to be served: `tests/fixtures/absent`. `None` where that is not possible.
fn absent(program: &Path, arguments: &[&str]) -> Option<Fixture> {
    let mut command = Command::new(program);
    command.args(arguments);
    match Fixture::start(command) {
        Ok(fixture) => Some(fixture),
        Err(error) if ["userfaultfd", "fuse:"].iter().any(|way| error.to_string().contains(way)) => {
            say(&format!("NOT TESTED: memory that does not come: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Its goroutine goes on, and finds all that was on its stack.
fn finish(fixture: &mut Fixture) {
    fixture.assert_untouched().unwrap();
    assert_eq!(fixture.command("finish").unwrap(), "sum 778240");
    fixture.assert_untouched().unwrap();
}

/// Waits for the end of a process that was told to end, for a time in which even a machine that is busy comes to it.
fn end(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn start(arguments: &[&str], pid: &str) -> Child {
    let mut command = Command::new(binary().unwrap());
    command.args(arguments).arg(pid).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The program, under a name that the kernel cuts off.
fn build_absent(folder: &Path) -> PathBuf {
    let program = folder.join("absent-memory-of-a-process");
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    go.args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"]).arg(&program).arg("./absent");
    go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", format!("go{NEWEST}"));
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn frames(output: &Output) -> usize {
    String::from_utf8_lossy(&output.stdout).matches("\nmain.deep(").count()
}

#[test]
fn memory_that_does_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let program = build_absent(folder.path());
    let stack = &["stack"][..];

    // The process that is stopped would have to serve it.
    for arguments in [stack, &["stack", "--no-pause"]] {
        for waits in ["syscall", "channel"] {
            let Some(mut fixture) = absent(&program, &[waits, "self"]) else { return };
            let pid = fixture.pid().to_string();
            let output = end(start(arguments, &pid));
            assert_eq!((output.status.code(), frames(&output)), (Some(0), 64), "{waits}: {}", said(&output));
            finish(&mut fixture);
        }
    }
    // Nobody serves it, for so long as anybody waits for it. The process is not stopped meanwhile.
    let file = folder.path().join("out").display().to_string();
    let profile = &["pprof-goroutine", "-o", &file][..];
    for waits in ["syscall", "channel"] {
        let Some(mut fixture) = absent(&program, &[waits, "asked"]) else { return };
        let pid = fixture.pid().to_string();
        let ours = start(&["stack", "--timeout=2s"], &pid);
        fixture.order("waited-for").unwrap();
        fixture.assert_untouched().unwrap();
        let output = end(ours);
        let text = format!("no answer within 2s: still waiting to read the memory of process {pid} at 0x");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(&text), "{}", said(&output));
        // A signal ends what waits, whether it is caught or not.
        for (arguments, code) in [(stack, None), (profile, Some(130))] {
            let ours = start(arguments, &pid);
            fixture.order("waited-for").unwrap();
            kill(Pid::from_raw(ours.id().cast_signed()), Signal::SIGINT).unwrap();
            let output = end(ours);
            assert_eq!(output.status.code(), code, "{arguments:?}: {}", said(&output));
        }
        // It comes late.
        let ours = start(stack, &pid);
        fixture.order("waited-for").unwrap();
        fixture.order("serve").unwrap();
        let output = end(ours);
        assert_eq!((output.status.code(), frames(&output)), (Some(0), 64), "{waits}: {}", said(&output));
        finish(&mut fixture);
    }
    // And without a thread that watches: a signal ends it, or the time, where whoever started it has the signal ignored.
    let Some(full) = Full::make("memory") else { return };
    let Some(mut fixture) = absent(&program, &["syscall", "asked"]) else { return };
    for ignored in [false, true] {
        let mut ours = full.probe_after(if ignored { "trap '' INT" } else { ":" }, profile);
        ours.arg("--timeout=2s").arg(fixture.pid().to_string());
        let ours = ours.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        fixture.order("waited-for").unwrap();
        kill(Pid::from_raw(ours.id().cast_signed()), Signal::SIGINT).unwrap();
        let expected = if ignored { libc::SIGALRM } else { libc::SIGINT };
        let output = end(ours);
        assert_eq!(output.status.signal(), Some(expected), "{}", said(&output));
        fixture.assert_untouched().unwrap();
    }
    fixture.order("serve").unwrap();
    finish(&mut fixture);
}

/// One process that does not answer is named, and hides no other.
#[test]
fn a_process_that_does_not_answer_is_left_out_of_lists() {
    let folder = tempfile::tempdir().unwrap();
    let program = build_absent(folder.path());
    let at = folder.path().join("mounted");
    fs::create_dir(&at).unwrap();
    let Some(mut server) = absent(&program, &["program", at.to_str().unwrap()]) else { return };
    let mut other = Fixture::spawn(&cell(Program::Parked), &["-n", "10"], &[]).unwrap();
    let (silent_pid, pid) = (server.command("pid").unwrap(), other.pid().to_string());
    let silent: u32 = silent_pid.parse().unwrap();
    server.order("stop").unwrap();
    // It may have to be built first.
    binary().unwrap();
    for command in ["list", "tree"] {
        let begun = Instant::now();
        let output = end(start(&[command], "--json"));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let left_out = answer["not_looked_at"].as_array().unwrap();
        assert!(left_out.contains(&silent.into()), "{answer}");
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(text.contains(&format!("\"pid\": {pid},")), "{text}");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let warned = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(warned.contains("does not finish (userfaultfd") && warned.contains(&silent_pid), "{warned}");
        // Far below the time of a whole command.
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    }
    // Who asks for it alone is told why there is no answer.
    let output = end(start(&["stack", "--timeout=2s"], &silent_pid));
    let text =
        format!("no answer within 2s: still waiting to look at the executable of process {silent_pid}");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&text), "{}", said(&output));
    // Served, it is as any other.
    server.order("go on").unwrap();
    let output = end(start(&["list"], "--json"));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("\"pid\": {silent_pid},")));
    server.assert_untouched().unwrap();
    other.assert_untouched().unwrap();
}

/// A server of files has taken the request for a page, and does not answer.
#[test]
fn a_server_of_files_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let program = build_absent(folder.path());
    let at = folder.path().display().to_string();
    for waits in ["syscall", "channel"] {
        for way in ["async", "sync"] {
            let Some(mut fixture) = absent(&program, &[waits, "asked", &at, way]) else { return };
            let pid = fixture.pid().to_string();
            let mut ours = start(&["stack", "--timeout=2s"], &pid);
            fixture.order("waited-for").unwrap();
            fixture.assert_untouched().unwrap();
            let text =
                format!("no answer within 2s: still waiting to read the memory of process {pid} at 0x");
            if way == "sync" {
                // The kernel keeps a thread that waits so until it is answered: what there is to say is said before.
                let mut line = String::new();
                BufReader::new(ours.stderr.take().unwrap()).read_line(&mut line).unwrap();
                assert!(line.contains(&text), "{line}");
                fixture.assert_untouched().unwrap();
                fixture.order("serve").unwrap();
                assert_eq!(end(ours).status.code(), Some(1));
            } else {
                let output = end(ours);
                assert_eq!(output.status.code(), Some(1), "{}", said(&output));
                assert!(said(&output).contains(&text), "{}", said(&output));
                fixture.order("serve").unwrap();
            }
            let output = end(start(&["stack"], &pid));
            assert_eq!((output.status.code(), frames(&output)), (Some(0), 64), "{waits}: {}", said(&output));
            finish(&mut fixture);
        }
    }
}

/// A stop needs a timer, which counts as a signal that waits.
#[test]
fn no_timer_for_a_stop() {
    let mut fixture = Fixture::spawn(&cell(Program::Parked), &["-n", "10"], &[]).unwrap();
    let pid = fixture.pid().to_string();
    for command in ["stack", "memstats", "heap"] {
        let mut ours = Command::new("prlimit");
        let output = ours
            .args(["--sigpending=0", "--"])
            .arg(binary().unwrap())
            .args([command, &pid])
            .output()
            .unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(
            said.contains("reach RLIMIT_SIGPENDING (ulimit -i, 0)") && !said.contains("ptrace"),
            "{command}: {said}"
        );
        fixture.assert_untouched().unwrap();
    }
}
