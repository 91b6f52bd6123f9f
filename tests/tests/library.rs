//! gops-probe as a library of other programs: what they ask and the program answers is the same, and the example programs work.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use fixtures::matrix::NEWEST;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, example, pprof, probe};
use inspector::{Consistency, CpuOptions, ErrorKind, HeapOptions, ProfileKind, StackOptions, Target};

const GOROUTINES: u64 = 100;

fn fixture(program: Program, args: &[&str]) -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, program);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, args, &[]).unwrap()
}

fn parked() -> Fixture {
    fixture(Program::Parked, &["-n", &GOROUTINES.to_string(), "-heartbeat", "0"])
}

#[test]
fn goroutines_are_those_of_the_program() {
    // Building it takes minutes, which would be in what goroutines have waited.
    binary().unwrap();
    let mut fixture = parked();
    let target = Target::pid(fixture.pid()).unwrap();
    assert_eq!(target.id(), fixture.pid());
    let seen = target.stack(&StackOptions::default()).unwrap();
    assert_eq!(seen.consistency(), Consistency::Instant);
    assert_eq!(seen.is_panicking(), Some(false));
    assert_eq!(seen.iter().count(), seen.len());
    assert!(seen.iter().all(|goroutine| goroutine.confirmed && !goroutine.frames.is_empty()));
    let by_program = probe(&["stack", &fixture.pid().to_string()]).unwrap();
    assert!(seen.to_string().into_bytes() == by_program.stdout, "the texts differ:\n{seen}");
    let mut json = Vec::new();
    let counts = seen.write_json(&mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(counts.goroutines, seen.len());
    assert_eq!(json["goroutines"].as_array().unwrap().len(), seen.len());

    let one = seen.iter().nth(1).unwrap();
    let mut options = StackOptions::default();
    (options.goroutine, options.max_pause) = (Some(one.id), None);
    let again = target.stack(&options).unwrap();
    assert_eq!(again.iter().map(|goroutine| goroutine.id).collect::<Vec<_>>(), [one.id]);
    options = StackOptions::default();
    options.system = true;
    assert!(target.stack(&options).unwrap().len() > seen.len());
    fixture.assert_untouched().unwrap();
}

#[test]
fn numbers_and_profiles() {
    let mut fixture = parked();
    let target = Target::pid(fixture.pid()).unwrap();
    let stats = target.stats().unwrap();
    let goroutines = stats.goroutines.unwrap();
    assert_eq!(goroutines, target.stack(&StackOptions::default()).unwrap().len() as u64);
    assert!(goroutines > GOROUTINES);
    assert!(target.memstats().unwrap().memstats.heap_alloc.unwrap() > 0);
    let heap = serde_json::to_value(target.heap(&HeapOptions::default()).unwrap()).unwrap();
    assert!(heap.is_object());
    let profile = target.profile(ProfileKind::Goroutine).unwrap();
    assert_eq!(profile.missing(), None);
    assert!(profile.notes().is_empty());
    let rows = pprof::parse(&profile.to_pprof()).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.values[0]).sum::<i64>(), i64::try_from(goroutines).unwrap());
    assert_eq!(target.runtimes().unwrap().len(), 1);
    fixture.assert_untouched().unwrap();
}

#[test]
fn an_error_says_what_kind_it_is() {
    let mut ended = parked();
    let target = Target::pid(ended.pid()).unwrap();
    target.check().unwrap();
    ended.send("quit").unwrap();
    ended.wait().unwrap();
    for error in [
        target.check().unwrap_err(),
        target.stats().unwrap_err(),
        target.stack(&StackOptions::default()).unwrap_err(),
        target.profile(ProfileKind::Heap).unwrap_err(),
        target.cpu_profile(Duration::from_millis(100), &CpuOptions::default()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NoProcess, "{error}");
    }
    assert_eq!(Target::pid(0).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(Target::named("(").unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(Target::named("^no-such-program$").unwrap_err().kind(), ErrorKind::NoProcess);
    let no_go = Target::pid(std::process::id()).unwrap();
    let error = no_go.stats().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotGo, "{error}");
}

#[test]
fn example_programs() {
    binary().unwrap();
    let mut fixture = parked();
    let pid = fixture.pid().to_string();
    let output = Command::new(example("goroutine_count").unwrap()).arg(&pid).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let count: u64 = text.rsplit(' ').next().unwrap().trim().parse().unwrap();
    assert!(output.status.success() && count > GOROUTINES, "{text}");

    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.txt");
    let status =
        Command::new(example("dump_on_condition").unwrap()).args([&pid, "50"]).arg(&dump).status().unwrap();
    assert!(status.success());
    let by_program = probe(&["stack", &pid]).unwrap();
    assert!(fs::read(&dump).unwrap() == by_program.stdout, "the texts differ");
    fixture.assert_untouched().unwrap();

    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Hot);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    let profile = folder.path().join("cpu.pprof");
    let mut command = Command::new(example("profile_of_child").unwrap());
    command.arg(&profile).arg("1").arg(cell.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = command.spawn().unwrap();
    // Kept open: the child ends with it.
    let mut orders = running.stdin.take().unwrap();
    orders.write_all(b"begin shares\n").unwrap();
    assert!(running.wait().unwrap().success());
    let rows = pprof::parse(&fs::read(&profile).unwrap()).unwrap().rows;
    assert!(rows.iter().any(|row| row.passes("main.fifty")), "{} rows", rows.len());
}

#[test]
fn a_library_has_no_command_line() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = |features: &[&str]| {
        let mut command = Command::new(&cargo);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args([
            "tree",
            "--locked",
            "--package",
            "gops-probe",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        let output = command.args(features).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |tree: &str, name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    let (library, program) = (tree(&["--no-default-features"]), tree(&[]));
    for name in ["clap", "ratatui", "indicatif"] {
        assert!(has(&program, name), "the program has no {name}");
        assert!(!has(&library, name), "the library has {name}");
    }
}
