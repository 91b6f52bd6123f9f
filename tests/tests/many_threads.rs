//! Thousands of threads that wait in system calls: what all of them at once takes longer than is allowed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::Command;

use fixtures::matrix::NEWEST;
use fixtures::repetition::{full, say};
use fixtures::{Cell, Fixture, Program, Variant, binary, build};
use serde_json::Value;

fn blocked(threads: usize) -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Blocked);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, &["-threads", &threads.to_string(), "-n", "100"], &[]).unwrap()
}

/// The answer, and what was said beside it.
fn stack(target: &Fixture, arguments: &[&str]) -> (Value, String) {
    let mut command = Command::new(binary().unwrap());
    command.args(["stack", "--json", &target.pid().to_string()]).args(arguments);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    (serde_json::from_slice(&output.stdout).unwrap(), stderr)
}

fn stall(target: &mut Fixture) -> u64 {
    let said = target.command("stall").unwrap();
    said.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 1000
}

/// How many of the goroutines wait in `read`, with all frames down to where they began, and are confirmed.
fn readers(answer: &Value) -> usize {
    let goroutines = answer["goroutines"].as_array().unwrap();
    let reads = |goroutine: &&Value| {
        let frames = goroutine["frames"].as_array().unwrap();
        let named = |name: &str| frames.iter().any(|frame| frame["function"] == name);
        named("syscall.Read") && named("main.read") && goroutine["confirmed"] == true
    };
    goroutines.iter().filter(reads).count()
}

#[test]
fn threads_are_stopped_one_by_one_where_all_at_once_take_too_long() {
    // So many take half a minute on a busy machine.
    let many = full().then_some(9000);
    for threads in [2000].into_iter().chain(many) {
        let mut target = blocked(threads);
        target.order("reset").unwrap();
        let (answer, said) = stack(&target, &["--max-pause", "1ms"]);
        let stalled = stall(&mut target);
        target.assert_untouched().unwrap();
        say(&format!(
            "many_threads: {threads}, --max-pause 1ms: {}, stopped for {} us, expected {} us for all, the target's clock stood \
             still for {stalled} us at most",
            answer["consistency"], answer["cost"]["stopped_us"], answer["too_many_threads"]["expected_us"],
        ));
        assert_eq!(answer["consistency"], "each-by-itself");
        assert!(answer["too_many_threads"]["threads"].as_u64().unwrap() > threads as u64);
        assert!(answer["too_many_threads"]["expected_us"].as_u64().unwrap() > 1000);
        assert!(said.contains("more than --max-pause 1ms: they were stopped one at a time"), "{said}");
        assert_eq!(readers(&answer), threads, "{}", answer["counts"]);
    }
}

#[test]
fn thousands_of_threads_are_stopped_at_once_where_that_is_allowed() {
    let mut target = blocked(2000);
    let (answer, said) = stack(&target, &["--max-pause", "60s"]);
    target.assert_untouched().unwrap();
    say(&format!("many_threads: 2000 at once: {}", answer["cost"]));
    assert!(answer["consistency"].as_str().unwrap().starts_with("instant"), "{said}");
    assert!(answer["cost"]["threads_stopped"].as_u64().unwrap() > 2000);
    assert_eq!((readers(&answer), &answer["too_many_threads"]), (2000, &Value::Null));
    // What cannot be done to single threads waits until all have stopped.
    for arguments in [&["memstats"][..], &["setgc", "150"]] {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary().unwrap());
        command.args([arguments[0], "--via", "probe", &target.pid().to_string()]).args(&arguments[1..]);
        let output = command.env("GOPS_PROBE_STATE_DIR", state.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.assert_untouched().unwrap();
    }
}
