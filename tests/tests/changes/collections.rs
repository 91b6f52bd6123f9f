//! Collections that are forced, each counted by the process itself.

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Selection, Variant, build};
use serde_json::json;

use super::{ChangedFixture, FEW, VERSIONS, tried, with_candidates};

/// Forces collections, each counted by the process itself.
pub(crate) fn collect(target: &mut ChangedFixture, what: &str, count: usize) {
    let mut repetitions = Repetitions::new("changes", format!("{}: gc, {what}", target.name), count);
    let (mut stops, mut longest, mut took) = (0, 0, Vec::new());
    while repetitions.another() {
        let before = target.number("numgc");
        let said = target.json(&["gc", "--via", "probe", "--json", "PID"]);
        let after = target.number("numgc");
        assert!(after > before, "{}: {what}: {before} {after} {said}", target.name);
        let cycle = said["cycle"].as_u64().unwrap();
        assert!((before + 1..=after).contains(&cycle), "{}: {before} {after} {said}", target.name);
        assert!(said["swept"] == true && said["collected"] == true, "{said}");
        stops += said["stops"].as_u64().unwrap();
        longest = longest.max(said["stopped_us"].as_u64().unwrap());
        took.push(said["duration_us"].as_u64().unwrap());
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    repetitions.report(&json!({
        "collections": took.len(), "median_duration_us": median, "stops": stops, "longest_stop_us": longest,
    }));
    assert_eq!(target.journals(), 0, "{}", target.name);
    target.assert_sound();
}

#[test]
fn collections_of_an_idle_process() {
    for version in tried(&with_candidates()) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        collect(&mut target, "idle", 20);
        assert_eq!(target.number("forced"), 0);
        // What it says without being asked for more is nothing, as gops.
        assert_eq!(target.succeed(&["gc", "PID"]), "");
    }
}

#[test]
fn collections_of_a_busy_process() {
    for version in tried(&VERSIONS) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        target.fixture.order("busy 3").unwrap();
        collect(&mut target, "busy", 200);
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

/// GOGC=off stays off, and the goal stays what it is with it.
#[test]
fn collections_where_gogc_is_off() {
    for version in tried(&VERSIONS) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[("GOGC", "off")]);
        let goal = |target: &mut ChangedFixture| target.number("nextgc") >> 40;
        let off = goal(&mut target);
        collect(&mut target, "idle", 20);
        assert_eq!(goal(&mut target), off, "{version}");
        assert_eq!(target.percent(-1), -1, "{version}");
        target.fixture.order("busy 2").unwrap();
        collect(&mut target, "busy", 20);
        assert_eq!(target.percent(-1), -1, "{version}");
        assert_eq!(goal(&mut target), off, "{version}");
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

#[test]
fn collections_with_a_memory_limit() {
    for version in tried(&VERSIONS[1..]) {
        let environment = [("GOGC", "off"), ("GOMEMLIMIT", "96MiB")];
        let mut target = ChangedFixture::start(version, Variant::Stripped, &environment);
        target.fixture.order("busy 2").unwrap();
        collect(&mut target, "busy", 50);
        assert_eq!(target.percent(-1), -1, "{version}");
        assert_eq!(target.number("limit -1"), 96 << 20);
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

#[test]
fn collections_of_position_independent_programs() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Pie, &[]);
        collect(&mut target, "idle", 50);
    }
}

#[test]
fn collections_on_one_processor() {
    let mut target = ChangedFixture::start(NEWEST, Variant::Stripped, &[("GOMAXPROCS", "1")]);
    collect(&mut target, "idle", 20);
    target.fixture.order("busy 2").unwrap();
    collect(&mut target, "busy", 50);
    target.fixture.order("calm").unwrap();
}

#[test]
fn collections_while_threads_are_in_c() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Cgo, &[]);
        target.fixture.order("c 3").unwrap();
        collect(&mut target, "three threads in C", 100);
        target.fixture.order("c 0").unwrap();
    }
}

/// However a program is built, it is changed where its runtime is known beyond doubt, and refused elsewhere.
#[test]
fn ways_of_building() {
    let quick =
        matches!(Selection::from_environment(), Ok(Selection::Quick)) && !fixtures::repetition::full();
    if quick {
        say("NOT TESTED with the quick selection: changes of programs built in unusual ways");
    }
    for (variant, refusal) in [
        (Variant::Stripped, None),
        (Variant::NoSections, None),
        (Variant::NoBuildInfo, None),
        (Variant::CShared, None),
        (Variant::Plain, None),
        (Variant::V3, None),
        (Variant::Pgo, None),
        (Variant::NoOpt, None),
        (Variant::Race, Some("-race")),
    ] {
        let usual = [Variant::Stripped, Variant::NoSections, Variant::NoBuildInfo].contains(&variant);
        if quick && !usual {
            continue;
        }
        let mut cells = vec![Cell::new(NEWEST, variant, Program::States)];
        cells.extend(variant.derived_from().map(|variant| Cell { variant, ..cells[0] }));
        build::build(&cells, 2, &|_, _| ()).unwrap();
        let fixture = Fixture::spawn(&cells[0], &[], &[]).unwrap();
        let mut target =
            ChangedFixture { fixture, state: tempfile::tempdir().unwrap(), name: cells[0].to_string() };
        match refusal {
            None => {
                let cycle = |target: &ChangedFixture| {
                    target.json(&["gc", "--via", "probe", "--json", "PID"])["cycle"].as_u64().unwrap()
                };
                let before = cycle(&target);
                target.fixture.order("gc").unwrap();
                assert_eq!(cycle(&target), before + 3, "{variant}");
                let said = target.succeed(&["setgc", "--via", "probe", "PID", "90"]);
                assert_eq!(said, "New GC percent set to 90. Previous value was 100.\n");
            }
            Some(why) => {
                for arguments in
                    [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]]
                {
                    let output = target.run(arguments);
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.code() == Some(6) && stderr.contains(why), "{variant}: {stderr}");
                }
            }
        }
        target.fixture.assert_untouched().unwrap();
    }
}
