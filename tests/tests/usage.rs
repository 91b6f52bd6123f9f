//! What a new user writes, and means: slips of the pen are named, and short cuts do what they look like.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fixtures::matrix::NEWEST;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, probe};

fn parked(arguments: &[&str]) -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Parked);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, arguments, &[]).unwrap()
}

/// Nothing in it runs by itself.
fn still() -> Fixture {
    parked(&["-n", "20", "-heartbeat", "0"])
}

#[track_caller]
fn says(arguments: &[&str], code: i32, words: &[&str]) -> Output {
    let output = probe(arguments).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: {word:?} is not in {stderr:?}");
    }
    assert!(!stderr.contains("\\n"), "{arguments:?}: {stderr}");
    output
}

#[test]
fn two_pids_are_no_period() {
    let (mut one, mut two) = (still(), still());
    let [first, second] = [one.pid().to_string(), two.pid().to_string()];
    says(&[&first, &second], 2, &[&second, "also the pid of", "one process at a time"]);
    says(&["process", &first, "20ms"], 0, &[]);
    one.assert_untouched().unwrap();
    two.assert_untouched().unwrap();
}

#[test]
fn names_of_processes() {
    let mut fixture = still();
    let pid = fixture.pid().to_string();
    says(&["parked"], 2, &["name:parked", &pid]);
    says(&["stack", "parked"], 2, &["name:parked"]);
    says(&["nothing-is-named-so"], 2, &["unrecognized subcommand"]);
    let help = says(&["help", "stack"], 0, &[]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
    fixture.assert_untouched().unwrap();
}

#[test]
fn units_and_signs() {
    let mut fixture = still();
    let pid = fixture.pid().to_string();
    says(&["stack", "--max-pause", "5", &pid], 2, &["5s", "5ms"]);
    says(&["stats", "--timeout", "60", &pid], 2, &["60s", "60ms"]);
    says(&["setgc", &pid, "-5"], 2, &["off"]);
    says(&["stack", "--match", "(", &pid], 2, &["--match", "unclosed group"]);
    says(&["stack", "--wait", "1s", &pid], 0, &[]);
    fixture.assert_untouched().unwrap();
}

#[test]
fn states_that_there_are() {
    let mut fixture = still();
    let pid = fixture.pid().to_string();
    let slip = says(&["stack", "--state", "chan recieve", &pid], 2, &["20 in chan receive"]);
    assert!(slip.stdout.is_empty());
    let none = says(&["stack", "--state", "select (no cases)", &pid], 0, &["hint: ", "20 in chan receive"]);
    assert!(none.stdout.is_empty());
    says(&["stack", "--state", "chan receive", &pid], 0, &[]);
    fixture.assert_untouched().unwrap();
}

#[test]
fn the_name_of_a_file_is_its_format() {
    let mut fixture = still();
    let pid = fixture.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, begins) in
        [("g.svg", &b"<?xml"[..]), ("g.pb.gz", b"\x1f\x8b"), ("g.json", b"{"), ("g.txt", b"Type: ")]
    {
        says(&["pprof-goroutine", "-o", &path(name), &pid], 0, &[]);
        assert!(fs::read(path(name)).unwrap().starts_with(begins), "{name}");
    }
    let svg = fs::read_to_string(path("g.svg")).unwrap();
    assert!(svg.contains(&format!("<title>goroutine profile of parked, process {pid}</title>")), "{svg}");
    says(&["pprof-goroutine", "-f", "pprof", "-o", &path("other.svg"), &pid], 2, &[".svg", "pprof"]);
    assert!(!folder.path().join("other.svg").exists());
    fixture.assert_untouched().unwrap();
}

#[test]
fn a_dump_once_nothing_moves() {
    let mut fixture = still();
    let pid = fixture.pid().to_string();
    let output = says(&["stack", "--when-stuck", "300ms", "--after", "10ms", &pid], 0, &[]);
    assert!(String::from_utf8_lossy(&output.stdout).matches("[chan receive").count() >= 20);
    fixture.assert_untouched().unwrap();

    // One that wakes goroutines all the time is never stuck; the wait ends with it.
    let mut busy = parked(&["-n", "50", "-wakeups", "2000"]);
    let mut command = Command::new(binary().unwrap());
    command.args(["stack", "--when-stuck", "3s", &busy.pid().to_string()]);
    let mut waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(4500));
    assert!(waiting.try_wait().unwrap().is_none(), "it is not stuck");
    busy.assert_untouched().unwrap();
    drop(busy);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}
