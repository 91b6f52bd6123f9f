//! CPU samples of what is done on the stack of a thread for a goroutine: stacks that grow, work of the runtime. They have the callers
//! that the program's own profile of the same time has.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::process::{Command, Stdio};

use fixtures::pprof::{self, Row};
use fixtures::repetition::say;
use fixtures::{Fixture, Program, binary, build, machine};
use serde_json::Value;

/// What the runtime does for a stack that grows.
const GROWTH: [&str; 2] = ["runtime.newstack", "runtime.copystack"];

fn sum(rows: &[Row], of: impl Fn(&Row) -> bool) -> i64 {
    rows.iter().filter(|row| of(row)).map(|row| row.values[0]).sum()
}

/// Of the samples of functions of the program, how many pass one of the runtime's; and how many there are. What belongs to no
/// goroutine counts as it comes: the two profiles do not see the same of that.
fn share(rows: &[Row], function: &str) -> (f64, i64) {
    let all = sum(rows, |row| row.passes("main.deep"));
    (sum(rows, |row| row.passes("main.deep") && row.passes(function)) as f64 / all as f64, all)
}

/// Profiles of the same time, of ours and of the program itself.
#[derive(Default)]
struct Both {
    ours: Vec<Row>,
    theirs: Vec<Row>,
    user: i64,
    rooted: i64,
}

impl Both {
    /// Adds those of some seconds.
    fn take(&mut self, fixture: &mut Fixture, mode: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        fixture.order("profile").unwrap();
        let mut command = Command::new(binary().unwrap());
        command.args(["pprof-cpu", "--json", "-d", "2s", "-r", "499", "--mode", mode, "-o"]).arg(&ours);
        let output = command.arg(fixture.pid().to_string()).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        fixture.order(&format!("write {}", theirs.display())).unwrap();
        // Where others have the CPUs, no look of stops may find a thread on one.
        if mode == "ptrace" && output.status.code() == Some(7) && stderr.contains("there are no samples") {
            return;
        }
        assert!(output.status.success(), "{mode}: {stderr}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        self.user += said["sampling"]["user"].as_i64().unwrap();
        self.rooted += said["sampling"]["rooted"].as_i64().unwrap();
        self.ours.extend(pprof::parse(&fs::read(&ours).unwrap()).unwrap().rows);
        self.theirs.extend(pprof::parse(&fs::read(&theirs).unwrap()).unwrap().rows);
    }

    fn is_enough(&self, mode: &str) -> bool {
        let wanted = if mode == "ptrace" { 3 } else { 20 };
        sum(&self.theirs, |row| row.passes("main.deep")) >= 100
            && sum(&self.ours, |row| row.passes("runtime.newstack")) >= wanted
    }
}

/// On a machine that has much else to do there are few samples in a while.
const MOST_ROUNDS: usize = 20;

#[test]
fn stacks_that_grow_keep_their_callers() {
    let _alone = machine::alone();
    // Made before anybody computes.
    binary().unwrap();
    for cell in build::selected(Program::Growing).unwrap() {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        fixture.order("begin").unwrap();
        for mode in ["bpf", "ptrace", "perf"] {
            let mut both = Both::default();
            for _ in 0..MOST_ROUNDS {
                both.take(&mut fixture, mode);
                if both.is_enough(mode) {
                    break;
                }
            }
            assert!(both.is_enough(mode), "{cell}, {mode}: {:?}", both.ours);
            let Both { ours, theirs, user, rooted } = both;
            let all = sum(&ours, |_| true);
            let grown = sum(&ours, |row| row.passes("runtime.newstack"));
            // A goroutine that is preempted where its stack might have grown has left the stack of the thread to the scheduler.
            let left = |row: &Row| row.passes("runtime.schedule");
            let lost = |row: &Row| row.passes("runtime.newstack") && !row.passes("main.deep") && !left(row);
            let lost = sum(&ours, lost);
            let shares = GROWTH.map(|function| (share(&ours, function), share(&theirs, function)));
            say(&format!(
                "{cell}, {mode}: {grown} of {all} samples of growth, {lost} without callers; {shares:.3?}; {rooted} of {user} whole"
            ));
            if mode == "perf" {
                // What the goroutine did is not had without its g: such stacks are not said to be whole.
                let whole = sum(&ours, |row| !row.passes("runtime.newstack") || left(row));
                assert!(rooted <= whole, "{cell}: {rooted} of {all}, not {whole}");
                continue;
            }
            // The first and the last instructions on either stack are between the two.
            assert!(lost * 20 <= grown + 20, "{cell}, {mode}: {lost} of {grown}: {ours:#?}");
            if mode == "ptrace" {
                // One stop stands for several samples: there are too few to count by.
                continue;
            }
            let switches = |line: &String| {
                ["runtime.morestack", "runtime.systemstack"].iter().any(|name| line.starts_with(name))
            };
            let between =
                sum(&ours, |row| row.stack.first().is_some_and(|place| place.lines.iter().any(switches)));
            assert!(
                (rooted + between) * 100 >= user * 98,
                "{cell}, {mode}: {rooted} and {between} of {user}: {ours:#?}"
            );
            for (function, ((ours, n), (theirs, m))) in GROWTH.into_iter().zip(shares) {
                // Theirs come with the kernel's ticks, several of one moment.
                let both = (ours * n as f64 + theirs * m as f64) / (n + m) as f64;
                let deviation = |count: i64| (both * (1.0 - both) / count as f64).sqrt();
                let chance = (6.0 * deviation(n).hypot(deviation(m)) - 0.03).max(0.0);
                assert!(
                    (ours - theirs).abs() <= 0.03 + chance,
                    "{cell}, {mode}, {function}: {ours:.3} of {n}, not {theirs:.3} of {m}, ±{:.3}",
                    0.03 + chance
                );
            }
        }
        fixture.order("end").unwrap();
        fixture.assert_untouched().unwrap();
    }
}
