//! Collections that are forced, each counted by the process itself.

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Selection, Variant, build};
use serde_json::json;

use super::{FEW, Subjected, VERSIONS, tried, with_candidates};

/// Forces collections, each counted by the process itself.
pub(crate) fn collect(subjected: &mut Subjected, what: &str, count: usize) {
    let mut repetitions = Repetitions::new("changes", format!("{}: gc, {what}", subjected.name), count);
    let (mut stops, mut longest, mut took) = (0, 0, Vec::new());
    while repetitions.another() {
        let before = subjected.number("numgc");
        let said = subjected.json(&["gc", "--via", "probe", "--json", "PID"]);
        let after = subjected.number("numgc");
        assert!(after > before, "{}: {what}: {before} {after} {said}", subjected.name);
        let cycle = said["cycle"].as_u64().unwrap();
        assert!((before + 1..=after).contains(&cycle), "{}: {before} {after} {said}", subjected.name);
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
    assert_eq!(subjected.journals(), 0, "{}", subjected.name);
    subjected.assert_sound();
}

#[test]
fn collections_of_an_idle_process() {
    for version in tried(&with_candidates()) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        collect(&mut subjected, "idle", 20);
        assert_eq!(subjected.number("forced"), 0);
        // What it says without being asked for more is nothing, as gops.
        assert_eq!(subjected.succeed(&["gc", "PID"]), "");
    }
}

#[test]
fn collections_of_a_busy_process() {
    for version in tried(&VERSIONS) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        subjected.fixture.order("busy 3").unwrap();
        collect(&mut subjected, "busy", 200);
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

/// GOGC=off stays off, and the goal stays what it is with it.
#[test]
fn collections_where_gogc_is_off() {
    for version in tried(&VERSIONS) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[("GOGC", "off")]);
        let goal = |subjected: &mut Subjected| subjected.number("nextgc") >> 40;
        let off = goal(&mut subjected);
        collect(&mut subjected, "idle", 20);
        assert_eq!(goal(&mut subjected), off, "{version}");
        assert_eq!(subjected.percent(-1), -1, "{version}");
        subjected.fixture.order("busy 2").unwrap();
        collect(&mut subjected, "busy", 20);
        assert_eq!(subjected.percent(-1), -1, "{version}");
        assert_eq!(goal(&mut subjected), off, "{version}");
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

#[test]
fn collections_with_a_memory_limit() {
    for version in tried(&VERSIONS[1..]) {
        let environment = [("GOGC", "off"), ("GOMEMLIMIT", "96MiB")];
        let mut subjected = Subjected::start(version, Variant::Stripped, &environment);
        subjected.fixture.order("busy 2").unwrap();
        collect(&mut subjected, "busy", 50);
        assert_eq!(subjected.percent(-1), -1, "{version}");
        assert_eq!(subjected.number("limit -1"), 96 << 20);
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

#[test]
fn collections_of_position_independent_programs() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Pie, &[]);
        collect(&mut subjected, "idle", 50);
    }
}

#[test]
fn collections_on_one_processor() {
    let mut subjected = Subjected::start(NEWEST, Variant::Stripped, &[("GOMAXPROCS", "1")]);
    collect(&mut subjected, "idle", 20);
    subjected.fixture.order("busy 2").unwrap();
    collect(&mut subjected, "busy", 50);
    subjected.fixture.order("calm").unwrap();
}

#[test]
fn collections_while_threads_are_in_c() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Cgo, &[]);
        subjected.fixture.order("c 3").unwrap();
        collect(&mut subjected, "three threads in C", 100);
        subjected.fixture.order("c 0").unwrap();
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
        let mut subjected =
            Subjected { fixture, state: tempfile::tempdir().unwrap(), name: cells[0].to_string() };
        match refusal {
            None => {
                let cycle = |subjected: &Subjected| {
                    subjected.json(&["gc", "--via", "probe", "--json", "PID"])["cycle"].as_u64().unwrap()
                };
                let before = cycle(&subjected);
                subjected.fixture.order("gc").unwrap();
                assert_eq!(cycle(&subjected), before + 3, "{variant}");
                let said = subjected.succeed(&["setgc", "--via", "probe", "PID", "90"]);
                assert_eq!(said, "New GC percent set to 90. Previous value was 100.\n");
            }
            Some(why) => {
                for arguments in
                    [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]]
                {
                    let output = subjected.run(arguments);
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.code() == Some(6) && stderr.contains(why), "{variant}: {stderr}");
                }
            }
        }
        subjected.fixture.assert_untouched().unwrap();
    }
}
