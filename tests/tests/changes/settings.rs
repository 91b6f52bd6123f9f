//! GOGC and the memory limit, held against the process's own calls.

use fixtures::matrix::{NEWEST, newest_of};
use fixtures::{Repetitions, Variant};
use inspector::change::verified::VerifiedRuntime;
use serde_json::json;

use super::{ChangedFixture, VERSIONS, tried, with_candidates};

/// What the process's own call makes of the same percentage, with no collection between the two.
fn compare_percent(target: &mut ChangedFixture, percent: i32, before: i32) {
    let text = if percent < 0 { "off".to_owned() } else { percent.to_string() };
    for _ in 0..20 {
        target.percent(before);
        // So far below its goal that it does not begin a collection.
        target.fixture.order("gc").unwrap();
        let cycles = target.number("numgc");
        let said = target.succeed(&["setgc", "--via", "probe", "PID", &text]);
        assert_eq!(said, format!("New GC percent set to {percent}. Previous value was {before}.\n"));
        let ours = target.number("nextgc");
        assert_eq!(target.percent(percent), percent, "{}", target.name);
        let theirs = target.number("nextgc");
        if target.number("numgc") != cycles {
            continue;
        }
        // With GOGC=off the goal follows from what is mapped, which the questions themselves change.
        let equal = if percent < 0 { ours.abs_diff(theirs) < 1 << 20 } else { ours == theirs };
        assert!(equal, "{}: {percent}: {ours} {theirs}", target.name);
        return;
    }
    panic!("{}: there was a collection each time", target.name);
}

#[test]
fn percentages_have_the_effect_of_the_call() {
    for version in tried(&with_candidates()) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        let mut before = 100;
        for percent in [50, 100, 300, 1000, -1, 40, 100, -1, 77] {
            compare_percent(&mut target, percent, before);
            before = percent;
        }
        // The pacer's own fields, after the call in the process and after ours.
        for percent in [-1, 250] {
            let fields = |target: &ChangedFixture| {
                let process = target.pinned();
                let subject = VerifiedRuntime::verify(&process).unwrap();
                let names: &[&str] = if version == newest_of(18) {
                    &["gcPercent", "heapMinimum", "trigger", "heapGoal"]
                } else {
                    &["gcPercent", "heapMinimum", "gcPercentHeapGoal", "sweepDistMinTrigger", "runway"]
                };
                let read = |name: &&str| subject.read("runtime.gcController", name).unwrap();
                names.iter().map(read).collect::<Vec<u64>>()
            };
            target.percent(percent);
            let theirs = fields(&target);
            target.percent(60);
            let percent = if percent < 0 { "off".to_owned() } else { percent.to_string() };
            target.succeed(&["setgc", "PID", &percent]);
            assert_eq!(fields(&target), theirs, "{version} {percent}");
        }
        target.assert_sound();
        assert_eq!(target.journals(), 0);
    }
}

#[test]
fn percentages_of_a_busy_process() {
    for version in tried(&VERSIONS) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        target.fixture.order("busy 3").unwrap();
        let mut repetitions = Repetitions::new("changes", format!("{}: setgc, busy", target.name), 100);
        let mut before = 100;
        let (mut stops, mut stopped, mut longest) = (0, 0, 0);
        while repetitions.another() {
            let percent = 20 + i64::try_from(repetitions.random(400)).unwrap();
            let said = target.json(&["setgc", "--json", "PID", &percent.to_string()]);
            assert_eq!((&said["percent"], &said["previous_percent"]), (&percent.into(), &before.into()));
            before = percent;
            let (n, us) = (said["stops"].as_u64().unwrap(), said["stopped_us"].as_u64().unwrap());
            stops += n;
            stopped += us;
            longest = longest.max(us / n);
        }
        let done = repetitions.done() as u64;
        repetitions.report(&json!({
            "stops": stops, "mean_stopped_us": stopped / done.max(1), "longest_mean_stop_us": longest,
        }));
        assert_eq!(i64::from(target.percent(100)), before);
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

#[test]
fn memory_limits() {
    for version in tried(&with_candidates()) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        if version == newest_of(18) {
            let output = target.run(&["setmemlimit", "PID", "1GiB"]);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(6) && stderr.contains("no memory limit"), "{stderr}");
            target.assert_sound();
            continue;
        }
        let none = i64::MAX as u64;
        let said = target.succeed(&["setmemlimit", "PID", "40MiB"]);
        assert_eq!(said, format!("New memory limit set to {}. Previous value was off.\n", 40 << 20));
        assert_eq!(target.number("limit -1"), 40 << 20);
        let (ours, cycles) = (target.number("nextgc"), target.number("numgc"));
        assert_eq!(target.number(&format!("limit {none}")), 40 << 20);
        target.number(&format!("limit {}", 40 << 20));
        let theirs = target.number("nextgc");
        assert_eq!(target.number("numgc"), cycles);
        assert!(ours.abs_diff(theirs) < 64 << 10, "{version}: {ours} {theirs}");
        let json = target.json(&["setmemlimit", "--json", "PID", "off"]);
        assert!(json.get("limit_bytes").is_none() && json["previous_limit_bytes"] == 40 << 20, "{json}");
        assert_eq!(target.number("limit -1"), none);
        // Below what can be had.
        let output = target.run(&["setmemlimit", "PID", "64KiB"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains("--force"), "{stderr}");
        assert_eq!(target.number("limit -1"), none);
        let output = target.run(&["setmemlimit", "PID", "64KiB", "--force"]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("warning:"));
        assert_eq!(target.number(&format!("limit {none}")), 64 << 10);
        target.assert_sound();
        assert_eq!(target.journals(), 0);
    }
}

#[test]
fn dry_runs_write_nothing() {
    let mut target = ChangedFixture::start(NEWEST, Variant::Stripped, &[("GOGC", "off")]);
    let cycles = target.number("numgc");
    for arguments in [
        &["gc", "PID"][..],
        &["setgc", "PID", "50"],
        &["setmemlimit", "PID", "1GiB"],
        &["setgc", "PID", "off"],
    ] {
        let arguments = [arguments, &["--dry-run", "--json"]].concat();
        let said = target.json(&arguments);
        assert!(said["dry_run"] == true && !said["written"].as_array().unwrap().is_empty(), "{said}");
    }
    let stderr = String::from_utf8(target.run(&["gc", "--dry-run", "PID"]).stderr).unwrap();
    assert!(stderr.contains("would write: gcController.gcPercent"), "{stderr}");
    assert_eq!(target.percent(-1), -1);
    assert_eq!(target.number("limit -1"), i64::MAX as u64);
    assert_eq!((target.number("numgc"), target.journals()), (cycles, 0));
    target.assert_sound();
}
