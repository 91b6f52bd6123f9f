//! Thousands of goroutines that are created, block, grow and shrink, switch as coroutines, fail and recover, while the
//! garbage collector runs: each chain ends properly or is marked, and no pair of frames is impossible.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::time::Duration;

use fixtures::chain::{Chains, Tally};
use fixtures::matrix::QUICK;
use fixtures::{Cell, Fixture, Program, Repetitions, Variant, build};
use inspector::runtime::open::open;
use inspector::runtime::snapshot::{self, Consistency, Frames, Pause, SnapshotOptions};
use serde_json::json;

/// Dumps of each mode in full.
const DUMPS: usize = 500;
/// The oldest release, the newest, and one between that has coroutines.
const VERSIONS: [&str; 3] = QUICK;

fn dumps(program: Program, args: &[&str], mode: &str, pause: Pause) {
    let cells: Vec<Cell> =
        VERSIONS.into_iter().map(|version| Cell::new(version, Variant::Stripped, program)).collect();
    build::build(&cells, 2, &|_, _| ()).unwrap();
    for cell in cells {
        let mut fixture = Fixture::spawn(&cell, args, &[]).unwrap();
        let mut repetitions = Repetitions::new("churn", format!("{cell}: {mode}"), DUMPS);
        let process = fixture.pinned().unwrap();
        let (view, _) = open(&process).unwrap();
        let mut chains = Chains::new(&process, &view);
        let (mut goroutines, mut verified_later, mut torn) = (0usize, 0usize, 0usize);
        let mut pauses = Vec::new();
        while repetitions.another() {
            let system = repetitions.random(2) == 0;
            let snapshot =
                snapshot::take(&process, &view, &SnapshotOptions { pause, system, goid: None }).unwrap();
            for slot in &snapshot.slots {
                if slot.g.is_dead() || slot.frames == Frames::Unwanted {
                    continue;
                }
                goroutines += 1;
                if let Err(what) = chains.check(&snapshot, slot) {
                    // Said not to be proven: nothing else ever proves such a one, so a few may be torn.
                    if !slot.confirmed {
                        torn += 1;
                        continue;
                    }
                    panic!("{cell}, {mode}, seed {}: {what}", repetitions.seed());
                }
            }
            verified_later += usize::from(snapshot.consistency == Consistency::InstantVerifiedAfterwards);
            pauses.push(snapshot.stopped);
            fixture.ping().unwrap();
            std::thread::sleep(Duration::from_micros(repetitions.random(3000)));
        }
        fixture.assert_untouched().unwrap();
        let Tally { complete, marked, unconfirmed, pairs, direct } = &chains.tally;
        pauses.sort_unstable();
        let microseconds = |at: usize| pauses.get(at).map_or(0, Duration::as_micros) as u64;
        repetitions.report(&json!({
            "goroutines": goroutines, "complete": complete, "marked": marked, "unconfirmed": unconfirmed, "torn_unconfirmed": torn,
            "pairs": pairs, "direct_calls": direct, "verified_after_the_stop": verified_later,
            "pause_us_median": microseconds(pauses.len() / 2),
            "pause_us_max": microseconds(pauses.len().saturating_sub(1)),
        }));
        let least = if program == Program::Churn { 1000 } else { 16 };
        assert!(goroutines >= least * repetitions.done(), "{cell}: {goroutines} goroutines");
        assert!(torn <= 1 + goroutines / 10_000, "{cell}, {mode}: {torn} of {goroutines} torn");
        assert!(chains.tally.all_marked() * 50 <= goroutines, "{cell}, {mode}: too many marked: {marked:?}");
    }
}

#[test]
fn with_the_default_pause() {
    dumps(Program::Churn, &[], "default pause", Pause::AtMost(Duration::from_millis(20)));
}

#[test]
fn with_a_pause_too_short_to_look_at_all() {
    dumps(Program::Churn, &[], "--max-pause 200us", Pause::AtMost(Duration::from_micros(200)));
}

#[test]
fn without_a_pause() {
    dumps(Program::Churn, &[], "--no-pause", Pause::No);
}

/// Between two waits at the same place they stop as often as the runtime's count of it takes to come round. Each one of
/// these wrong chains would be seen: 256 stops later the count says that nothing has moved.
const COME_ROUND: [&str; 4] = ["-goroutines", "16", "-stops", "256"];

#[test]
fn goroutines_that_come_round() {
    dumps(
        Program::Rounds,
        &COME_ROUND,
        "come round, default pause",
        Pause::AtMost(Duration::from_millis(20)),
    );
}

#[test]
fn goroutines_that_come_round_with_a_pause_too_short() {
    let pause = Pause::AtMost(Duration::from_micros(200));
    dumps(Program::Rounds, &COME_ROUND, "come round, --max-pause 200us", pause);
}

#[test]
fn goroutines_that_come_round_without_a_pause() {
    dumps(Program::Rounds, &COME_ROUND, "come round, --no-pause", Pause::No);
}
