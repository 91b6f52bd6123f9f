//! CPU samples of what is done on the stack of a thread for a goroutine: stacks that grow, work of the runtime. They have the callers
//! that the program's own profile of the same time has.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::process::{Command, Stdio};

use fixtures::pprof::{self, Row};
use fixtures::repetition::say;
use fixtures::{Fixture, Program, binary, build, machine};
use serde_json::Value;

/// The functions of the program, from the first of its goroutine on, and those of the runtime that work for it.
const SHARES: [&str; 4] = ["main.fresh", "main.deep", "runtime.newstack", "runtime.copystack"];

fn sum(rows: &[Row], of: impl Fn(&Row) -> bool) -> i64 {
    rows.iter().filter(|row| of(row)).map(|row| row.values[0]).sum()
}

/// Of all samples of goroutines that `main.work` begins or of the runtime for them, how many pass a function.
fn share(rows: &[Row], function: &str) -> f64 {
    sum(rows, |row| row.passes(function)) as f64 / sum(rows, |_| true) as f64
}

#[test]
fn stacks_that_grow_keep_their_callers() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    let (path, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for cell in build::selected(Program::Growing).unwrap() {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        fixture.order("begin").unwrap();
        for mode in ["bpf", "ptrace", "perf"] {
            fixture.order("profile").unwrap();
            let mut command = Command::new(binary().unwrap());
            command.args(["pprof-cpu", "--json", "-d", "3s", "-r", "499", "--mode", mode, "-o"]).arg(&path);
            let output = command.arg(fixture.pid().to_string()).stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            fixture.order(&format!("write {}", theirs.display())).unwrap();
            assert!(output.status.success(), "{cell}, {mode}: {stderr}");
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            let number = |name: &str| said["sampling"][name].as_u64().unwrap();
            let ours = pprof::parse(&fs::read(&path).unwrap()).unwrap().rows;
            let theirs = pprof::parse(&fs::read(&theirs).unwrap()).unwrap().rows;
            let (all, known) = (sum(&ours, |_| true), sum(&theirs, |_| true));
            let grown = sum(&ours, |row| row.passes("runtime.newstack"));
            let lost = sum(&ours, |row| row.passes("runtime.newstack") && !row.passes("main.deep"));
            let shares: Vec<(f64, f64)> = SHARES.map(|f| (share(&ours, f), share(&theirs, f))).into();
            say(&format!(
                "{cell}, {mode}: {grown} of {all} samples of growth, {lost} without callers; {shares:.3?} of {known}"
            ));
            assert!(grown > 20, "{cell}, {mode}: {grown} of {all}");
            if mode == "perf" {
                // What the goroutine did is not had without its g: such stacks are not said to be whole.
                let whole = i64::try_from(number("rooted")).unwrap();
                assert!(
                    whole <= sum(&ours, |row| !row.passes("runtime.newstack")),
                    "{cell}: {whole} of {all}"
                );
                continue;
            }
            // A goroutine that is preempted where its stack might have grown has left the stack of the thread to the scheduler.
            let left = |row: &Row| row.passes("runtime.newstack") && row.passes("runtime.schedule");
            assert!((lost - sum(&ours, left)) * 100 <= grown, "{cell}, {mode}: {lost} of {grown}");
            assert!(number("rooted") * 100 >= number("user") * 98, "{cell}, {mode}: {said}");
            for (function, (ours, theirs)) in SHARES.into_iter().zip(shares) {
                // Theirs come with the kernel's ticks, several of one moment.
                let chance = 6.0 * (theirs * (1.0 - theirs) / known as f64).sqrt();
                assert!(
                    (ours - theirs).abs() <= 0.03 + chance,
                    "{cell}, {mode}, {function}: {ours:.3}, not {theirs:.3} of {known} ±{chance:.3}"
                );
            }
        }
        fixture.order("end").unwrap();
        fixture.assert_untouched().unwrap();
    }
}
