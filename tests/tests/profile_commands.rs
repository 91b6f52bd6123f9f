//! The profile commands: goroutines and threads as the process itself counts them, and every format read by what it is for.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use fixtures::matrix::{NEWEST, QUICK, newest_of};
use fixtures::pprof::{self, Place, Row};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build};
use serde_json::Value;

/// Whose `go tool pprof` reads what we write.
const READERS: [&str; 4] = [newest_of(18), newest_of(21), newest_of(24), NEWEST];

#[track_caller]
fn ours<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<u8> {
    let output = Command::new(binary().unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    output.stdout
}

#[track_caller]
fn text<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    String::from_utf8(ours(arguments)).unwrap()
}

/// Where a program is, and with which labels: how often.
type Counts = BTreeMap<(Vec<Place>, Vec<String>), i64>;

fn counts(rows: Vec<Row>) -> Counts {
    let mut counts = Counts::new();
    for mut row in rows {
        // Maps of labels have no order.
        row.labels.sort();
        *counts.entry((row.stack, row.labels)).or_default() += row.values[0];
    }
    counts
}

/// The goroutine that answers commands, and so writes the profile.
fn answers(row: &Row) -> bool {
    row.passes("example.com/fixtures/proto.Serve")
}

/// What the process writes before and after us, where that is the same.
fn settled(
    fixture: &mut Fixture,
    kind: &str,
    between: impl Fn(&Fixture) -> Vec<Row>,
) -> (Vec<Row>, Vec<Row>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs");
    let theirs = |fixture: &mut Fixture| {
        fixture.order(&format!("profile {kind} {}", path.display())).unwrap();
        pprof::parse(&fs::read(&path).unwrap()).unwrap().rows
    };
    theirs(fixture);
    for _ in 0..10 {
        let before = theirs(fixture);
        let ours = between(fixture);
        let keep = |rows: &[Row]| counts(rows.iter().filter(|row| !answers(row)).cloned().collect());
        let after = theirs(fixture);
        if keep(&before) == keep(&after) {
            return (ours, after);
        }
    }
    panic!("its {kind} profile is another one each time");
}

fn by_command(fixture: &Fixture, command: &str) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours");
    ours(&[OsStr::new(command), OsStr::new(&fixture.pid().to_string()), OsStr::new("-o"), path.as_os_str()]);
    pprof::parse(&fs::read(&path).unwrap()).unwrap().rows
}

fn assert_equal(cell: &Cell, ours: &Counts, theirs: &Counts) {
    for (key, count) in ours.iter().chain(theirs) {
        assert_eq!(
            ours.get(key),
            theirs.get(key),
            "{cell}: {count} × {key:#?}\n ours: {}, theirs: {}",
            ours.len(),
            theirs.len()
        );
    }
}

/// Leaves the type arguments out of `name (system name) file:line start line`, and what belongs to the instance.
fn forget_instance(line: &mut String) {
    if let (Some(open), Some(close)) = (line.find('['), line.rfind(']')) {
        let behind = line.get(close..).unwrap_or_default();
        let place = behind.split(' ').nth(1).unwrap_or_default();
        *line = format!("{} {place}", line.get(..open).unwrap_or_default());
    }
}

#[test]
fn goroutines_as_the_process_counts_them() {
    let (mut of_cells, mut rows) = (0, 0);
    for cell in build::selected(Program::States).unwrap() {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let (ours, theirs) = settled(&mut fixture, "goroutine", |f| by_command(f, "pprof-goroutine"));
        let but_for_the_writer =
            |rows: Vec<Row>| counts(rows.into_iter().filter(|row| !answers(row)).collect());
        let (mut ours, mut theirs) = (ours, theirs);
        if cell.toolchain == "1.21.0" {
            // It writes one function for all instances of a generic one, whichever came first.
            for row in ours.iter_mut().chain(&mut theirs) {
                row.stack.iter_mut().flat_map(|place| &mut place.lines).for_each(forget_instance);
            }
        }
        let (ours, theirs) = (but_for_the_writer(ours), but_for_the_writer(theirs));
        assert_equal(&cell, &ours, &theirs);
        assert!(ours.len() > 20, "{cell}: {}", ours.len());
        let labelled = ours.keys().filter(|(_, labels)| !labels.is_empty()).count();
        assert!(labelled >= 3, "{cell}: {labelled} with labels");
        let deepest = ours.keys().map(|(stack, _)| stack.iter().map(|p| p.lines.len()).sum::<usize>()).max();
        assert!(deepest >= Some(31), "{cell}: {deepest:?}");
        fixture.assert_untouched().unwrap();
        of_cells += 1;
        rows += ours.len();
    }
    say(&format!("profile commands: goroutine: {of_cells} cells, {rows} rows equal"));
}

#[test]
fn threads_as_the_process_counts_them() {
    let (mut of_cells, mut threads) = (0, 0);
    for cell in build::selected(Program::States).unwrap() {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let (ours, mut theirs) =
            settled(&mut fixture, "threadcreate", |f| by_command(f, "pprof-threadcreate"));
        // From Go 1.23 on, the process writes the unused rest of a stack too, as places that are nowhere.
        for row in &mut theirs {
            row.stack.retain(|place| !(place.lines.is_empty() && place.address == u64::MAX));
        }
        let (ours, theirs) = (counts(ours), counts(theirs));
        assert_equal(&cell, &ours, &theirs);
        threads += ours.values().sum::<i64>();
        fixture.assert_untouched().unwrap();
        of_cells += 1;
    }
    say(&format!("profile commands: threadcreate: {of_cells} cells, {threads} threads equal"));
}

/// A fixture that has rows in all of its profiles.
fn busy(cell: &Cell) -> Fixture {
    build::build(&[*cell], 1, &|_, _| ()).unwrap();
    let mut fixture = Fixture::spawn(cell, &[], &[("RATE", "1000")]).unwrap();
    for command in ["rates 1 1", "allocate 5", "contend", "gc"] {
        fixture.order(command).unwrap();
    }
    fixture
}

const KINDS: [(&str, &str); 6] = [
    ("heap", "inuse_space"),
    ("allocs", "alloc_space"),
    ("goroutine", "goroutine"),
    ("threadcreate", "threadcreate"),
    ("block", "delay"),
    ("mutex", "delay"),
];

#[test]
fn go_tools_of_four_releases_read_them() {
    let mut fixture = busy(&Cell::new(newest_of(24), Variant::Stripped, Program::Profiles));
    let pid = fixture.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<(&str, &str, _)> = Vec::new();
    for (kind, shown) in KINDS {
        let path = folder.path().join(kind);
        let said = text(&[&format!("pprof-{kind}"), &pid, "-o", path.to_str().unwrap()]);
        assert_eq!(said.trim(), path.to_str().unwrap());
        files.push((kind, shown, path));
    }
    let path = folder.path().join("difference");
    text(&["pprof-goroutine", &pid, "--diff", "--duration", "100ms", "-o", path.to_str().unwrap()]);
    files.push(("difference", "goroutine", path));
    for reader in READERS {
        for (kind, shown, path) in &files {
            for way in ["-top", "-traces", "-raw"] {
                let report = pprof::tool(reader, way, path).unwrap();
                let expected = match way {
                    "-raw" => "PeriodType: ".to_owned(),
                    _ => format!("Type: {shown}"),
                };
                assert!(report.contains(&expected), "{reader} {way} {kind}: {report}");
                if !matches!(*kind, "threadcreate" | "difference") {
                    assert!(report.contains("example.com/fixtures/p"), "{reader} {way} {kind}: {report}");
                }
            }
        }
    }
    say(&format!("profile commands: {} files read by go tool pprof of {READERS:?}", files.len()));
    fixture.assert_untouched().unwrap();
}

#[test]
fn every_format_has_the_same_sums() {
    let mut fixture = busy(&Cell::new(NEWEST, Variant::Stripped, Program::Profiles));
    let pid = fixture.pid().to_string();
    // Nothing changes between the readings: the fixture waits for its next command.
    let json = |extra: &[&str]| -> Value {
        let arguments = [&["pprof-heap", &pid, "--format", "json"], extra].concat();
        serde_json::from_slice(&ours(&arguments)).unwrap()
    };
    let whole = json(&[]);
    let sum = |index: usize| -> i64 {
        let samples = whole["samples"].as_array().unwrap();
        samples.iter().map(|sample| sample["values"][index].as_i64().unwrap()).sum()
    };
    assert_eq!((&whole["via"], &whole["schema"]), (&"probe".into(), &1.into()));
    assert!(whole["cost"]["bytes_read"].as_u64().unwrap() > 0 && whole["cost"]["bytes_written"] == 0);
    for (index, kind) in ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"].iter().enumerate() {
        assert_eq!(whole["sample_types"][index]["type"], **kind);
        let folded = text(&["pprof-heap", &pid, "--format", "folded", "--sample-type", kind]);
        let values = folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap());
        assert_eq!(values.sum::<i64>(), sum(index), "{kind}");
        let shown = text(&["pprof-heap", &pid, "--format", "text", "--sample-type", kind]);
        assert!(shown.starts_with(&format!("Type: {kind}\n")), "{shown}");
        assert!(shown.contains("example.com/fixtures/profiled."), "{shown}");
        if index == 0 {
            assert!(shown.contains(&format!("Total: {} in ", sum(0))), "{shown}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (speedscope, svg) = (path("speedscope"), path("svg"));
    text(&["pprof-heap", &pid, "-f", "speedscope", "-o", &speedscope]);
    let speedscope: Value = serde_json::from_slice(&fs::read(&speedscope).unwrap()).unwrap();
    assert_eq!(speedscope["$schema"], "https://www.speedscope.app/file-format-schema.json");
    assert_eq!(speedscope["activeProfileIndex"], 3);
    let frames = speedscope["shared"]["frames"].as_array().unwrap().len() as u64;
    for index in 0..4 {
        let profile = &speedscope["profiles"][index];
        let weights = profile["weights"].as_array().unwrap();
        assert_eq!(weights.iter().map(|w| w.as_i64().unwrap()).sum::<i64>(), sum(index));
        assert_eq!(profile["endValue"], sum(index));
        let samples = profile["samples"].as_array().unwrap();
        assert_eq!(samples.len(), weights.len());
        let indices = samples.iter().flat_map(|s| s.as_array().unwrap());
        assert!(indices.map(|i| i.as_u64().unwrap()).all(|i| i < frames));
    }
    text(&["pprof-heap", &pid, "-f", "flamegraph", "-o", &svg]);
    let svg = fs::read_to_string(&svg).unwrap();
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>") && svg.contains("profiled."));
    // With --json the answer says where the profile is.
    let saved: Value =
        serde_json::from_slice(&ours(&["pprof-heap", &pid, "-f", "text", "--json", "-o", &path("text")]))
            .unwrap();
    assert_eq!(saved["bytes"], fs::read(path("text")).unwrap().len());
    fixture.assert_untouched().unwrap();
}

#[test]
fn a_difference_is_what_came_in_between() {
    let mut fixture = busy(&Cell::new(NEWEST, Variant::Stripped, Program::Profiles));
    let pid = fixture.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("difference");
    // Nothing came.
    let nothing = text(&["pprof-block", &pid, "--diff", "--duration", "50ms", "-f", "folded"]);
    assert_eq!(nothing, "");
    let mut child = Command::new(binary().unwrap())
        .args(["pprof-block", &pid, "--diff", "--duration", "3s", "--format", "json", "-o"])
        .arg(&path)
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        fixture.order("contend").unwrap();
    }
    let difference: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(difference["duration_ns"].as_u64().unwrap() >= 3_000_000_000, "{difference}");
    let samples = difference["samples"].as_array().unwrap();
    assert!(!samples.is_empty());
    for sample in samples {
        assert!(sample["values"][0].as_i64().unwrap() > 0, "{sample}");
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn what_does_not_go_together() {
    let mut fixture = busy(&Cell::new(NEWEST, Variant::Stripped, Program::Profiles));
    let pid = fixture.pid().to_string();
    let fails = |arguments: &[&str], code: i32, said: &str| {
        let output = Command::new(binary().unwrap()).args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    };
    fails(&["pprof-goroutine", "--via", "agent", &pid], 2, "agents cannot answer");
    fails(&["pprof-mutex", "127.0.0.1:1"], 2, "agents cannot answer");
    fails(&["pprof-heap", "-f", "text", "--sample-type", "nothing", &pid], 2, "alloc_objects, alloc_space");
    fails(&["pprof-heap", "-f", "text", "--open", &pid], 2, "--open requires");
    fails(&["pprof-heap", "--diff", &pid], 2, "--duration");
    fails(&["pprof-heap", "--json", "-o", "-", &pid], 2, "both use standard output");
    fixture.assert_untouched().unwrap();
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Unprofiled);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
    let pid = fixture.pid().to_string();
    fails(&["pprof-heap", "-f", "text", &pid], 1, "the linker left it out");
    fails(&["pprof-block", "-f", "text", &pid], 1, "SetBlockProfileRate is 0");
    fixture.assert_untouched().unwrap();
}

/// Where everybody has been stuck since before, a time has no waits that end: how many wait, for what and where is said.
#[test]
fn who_waits_since_before_a_profiler_was_switched_on() {
    for toolchain in QUICK {
        let cell = Cell::new(toolchain, Variant::Stripped, Program::States);
        build::build(&[cell], 2, &|_, _| ()).unwrap();
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let pid = fixture.pid().to_string();
        // As the process itself says it.
        let dump = fixture.dump().unwrap();
        let waiting = |states: &[&str]| {
            let begins = |line: &&str| line.starts_with("goroutine ");
            let is = |line: &&str| {
                let state = line.split('[').nth(1).unwrap_or_default();
                states.iter().any(|wanted| state.starts_with(wanted))
            };
            dump.lines().filter(begins).filter(is).count()
        };
        let locks: &[&str] = &["sync.Mutex.Lock", "sync.RWMutex", "semacquire"];
        for (command, states) in [("pprof-mutex", locks), ("pprof-block", &["chan send"][..])] {
            let arguments =
                [command, "--enable", "--duration=300ms", "--format=text", "-o", "-", pid.as_str()];
            let text = text(&arguments);
            let note = text.lines().find(|line| line.contains("have been waiting since before"));
            let note = note.unwrap_or_else(|| panic!("{command} of {toolchain}: {text}"));
            for state in states {
                let (name, count) = (*state, waiting(&[*state]));
                let named = note.split([':', ',']).filter_map(|part| part.trim().split_once(" in "));
                let told: usize = named
                    .filter(|(_, reason)| reason.starts_with(name))
                    .map(|(count, _)| count.parse::<usize>().unwrap())
                    .sum();
                assert!(told <= count, "{command}: {name}: {told} of {count}: {note}");
            }
            if command == "pprof-mutex" {
                let all = waiting(states);
                assert!(note.contains(&format!("Note: {all} goroutines have")), "{all}: {note}");
                assert!(text.contains("waited for locks when the profiler was switched on"), "{text}");
                assert!(note.contains("main.") || note.contains("states."), "{note}");
            }
        }
        fixture.assert_untouched().unwrap();
    }
}

/// Twenty thousand goroutines that have been stuck on one lock since before: all are told, with the place, and by both
/// profiles that waits for locks belong to.
#[test]
fn thousands_are_stuck_on_one_lock() {
    const STUCK: usize = 20_000;
    for toolchain in QUICK {
        let cell = Cell::new(toolchain, Variant::Stripped, Program::Blocked);
        build::build(&[cell], 2, &|_, _| ()).unwrap();
        let stuck = STUCK.to_string();
        let mut fixture = Fixture::spawn(&cell, &["-n=1", "-heartbeat=0", "-queue", &stuck], &[]).unwrap();
        let pid = fixture.pid().to_string();
        // Before Go 1.20 a mutex has the wait reason of a semaphore.
        let reason = if cell.minor() < 20 { "semacquire" } else { "sync.Mutex.Lock" };
        for command in ["pprof-mutex", "pprof-block"] {
            let text = text(&[command, "--enable", "--duration=300ms", "--format=text", "-o", "-", &pid]);
            let note = text.lines().find(|line| line.contains("have been waiting since before"));
            let note = note.unwrap_or_else(|| panic!("{command} of {toolchain}: {text}"));
            assert!(note.contains(&format!("{STUCK} in {reason}")), "{command} of {toolchain}: {note}");
            assert!(note.contains(&format!("{STUCK} main.wait at main.go:")), "{command}: {note}");
            // What parked has besides waits on a channel, which only one of both is about.
            let others = if command == "pprof-block" { 1 } else { 0 };
            let all = format!("Note: {} goroutines have been waiting", STUCK + others);
            assert!(note.contains(&all), "{command} of {toolchain}: {note}");
        }
        fixture.assert_untouched().unwrap();
    }
}
