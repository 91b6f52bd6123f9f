//! Running goroutines, caught at random: in Go code, prologues and epilogues, stack growth, the garbage collector,
//! the vDSO, under a storm of signals, and in C. Each frame is one that the fixture can have there.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fixtures::chain::{Chain, Chains};
use fixtures::matrix::{NEWEST, QUICK};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Selection, Variant, build};
use inspector::runtime::goroutine::status;
use inspector::runtime::open::open;
use inspector::runtime::snapshot::{self, Pause, SnapshotOptions};
use serde_json::json;

/// Samples of each situation in full.
const SAMPLES: usize = 1000;
/// How long something is waited for to be seen running.
const PATIENCE: Duration = Duration::from_secs(30);
/// The oldest release, the newest, and one between.
const VERSIONS: [&str; 3] = QUICK;

fn cells(program: Program) -> Vec<Cell> {
    let cells: Vec<Cell> =
        VERSIONS.into_iter().map(|version| Cell::new(version, Variant::Stripped, program)).collect();
    build::build(&cells, 2, &|_, _| ()).unwrap();
    cells
}

/// What a fixture says that can be on its stacks.
struct Known {
    names: Vec<String>,
    edges: Vec<(String, String)>,
}

impl Known {
    fn ask(fixture: &mut Fixture, situation: &str) -> Self {
        let mut words = |question: &str| {
            let answer = fixture.command(&format!("{question} {situation}")).unwrap();
            answer.rsplit(' ').next().unwrap().split(',').map(str::to_owned).collect::<Vec<String>>()
        };
        let mut names = words("known");
        // What starts the goroutines of the fixture, in that which does not say so.
        names.push("main.start.*".to_owned());
        // Packages of the runtime, and assembly that calls go to.
        names.extend(["internal/runtime/*", "runtime/internal/*", "internal/abi.*"].map(str::to_owned));
        // Assembly that belongs to no package by its name: the write barrier, the race detector's calls.
        names.extend(["gcWriteBarrier", "race*"].map(str::to_owned));
        let edges = words("edges");
        let edges = edges.iter().map(|edge| edge.split_once('>').unwrap());
        Self { names, edges: edges.map(|(a, b)| (a.to_owned(), b.to_owned())).collect() }
    }

    /// What is wrong with a chain.
    fn objection(&self, chain: &Chain) -> Option<String> {
        for name in &chain.names {
            if !matches_any(self.names.iter(), name) && !is_of_collector(name) {
                return Some(format!("{name} is not of this situation"));
            }
        }
        for pair in chain.names.windows(2) {
            let [callee, caller] = pair else { continue };
            let fits = |edge: &&(String, String)| fits(&edge.0, caller) && fits(&edge.1, callee);
            // What calls a goroutine's function, and what the runtime's own functions call.
            let outer = caller == "runtime.goexit" || caller.starts_with("main.start.");
            let callback = caller.starts_with("_cgoexp_")
                || matches!(caller.as_str(), "runtime.cgocallbackg1" | "runtime.deferreturn");
            let runtime = callee.starts_with("runtime")
                || callee.starts_with("internal/")
                || callee == "gcWriteBarrier"
                || is_of_collector(callee)
                || callee.starts_with("race");
            if !outer && !callback && !runtime && !self.edges.iter().any(|edge| fits(&edge)) {
                return Some(format!("{caller} does not call {callee}"));
            }
        }
        None
    }
}

/// Whether it is what a package has the runtime call at the begin of a collection (`runtime.clearpools`).
fn is_of_collector(name: &str) -> bool {
    name == "sync.poolCleanup" || name.starts_with("unique.")
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn matches_any<'a>(mut patterns: impl Iterator<Item = &'a String>, name: &str) -> bool {
    patterns.any(|pattern| fits(pattern, name))
}

/// Takes samples of a situation that is going on.
fn sample(fixture: &mut Fixture, cell: &Cell, situation: &str, pause: Pause, count: usize) {
    let known = Known::ask(fixture, situation);
    let root = known.names.iter().find(|name| name.contains(".run")).unwrap().clone();
    let mode = if pause == Pause::No { ", without a pause" } else { "" };
    let mut repetitions = Repetitions::new("running", format!("{cell}: {situation}{mode}"), count);
    let process = fixture.pinned().unwrap();
    let (view, _) = open(&process).unwrap();
    assert!(view.allm.is_some(), "{cell}: {:?}", view.unknown);
    let mut chains = Chains::new(&process, &view);
    let mut innermost: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = 0usize;
    let mut without_frames = Vec::new();
    let begun = Instant::now();
    // On a machine that is busy otherwise, few samples may all meet goroutines that wait for a core.
    while repetitions.another() || (seen == 0 && begun.elapsed() < PATIENCE) {
        let options = SnapshotOptions { pause, system: false, goid: None };
        let snapshot = snapshot::take(&process, &view, &options).unwrap();
        for slot in &snapshot.slots {
            let creator =
                view.modules.lookup(slot.g.startpc).map(|place| place.func.name_text().into_owned());
            let ours = creator.as_deref().is_some_and(|name| {
                name.ends_with("situations.start.func1")
                    || name == root
                    || name.starts_with(&root)
                    || name.starts_with("main.start")
            });
            if !ours || slot.g.is_dead() {
                continue;
            }
            let moving = matches!(slot.g.status(), status::RUNNING | status::SYSCALL | status::COPYSTACK);
            let chain = chains
                .check(&snapshot, slot)
                .unwrap_or_else(|what| panic!("{cell}: {situation}, seed {}: {what}", repetitions.seed()));
            if !moving {
                continue;
            }
            seen += 1;
            if let Some(what) = known.objection(&chain) {
                panic!("{cell}: {situation}: {what}: {}", chain.names.join(" < "));
            }
            match chain.names.first() {
                Some(name) => *innermost.entry(name.clone()).or_default() += 1,
                None => without_frames.push(format!("{:?}", slot.frames)),
            }
            if !chain.complete && !chain.names.is_empty() && std::env::var_os("GOPS_PROBE_SHOW").is_some() {
                say(&format!(
                    "{cell}: {situation}: incomplete: {} frames, {} {:?} {:?}",
                    chain.names.len(),
                    chain.names[0],
                    slot.frames,
                    slot.g
                ));
            }
        }
        // Away from the rhythm of what is sampled.
        std::thread::sleep(Duration::from_micros(repetitions.random(1500)));
    }
    let tally = &chains.tally;
    repetitions.report(&json!({
        "running": seen, "complete": tally.complete, "marked": tally.marked, "pairs": tally.pairs,
        "direct_calls": tally.direct, "innermost_functions": innermost.len(),
    }));
    assert!(seen > 0, "{cell}: {situation}: nothing ran");
    if !without_frames.is_empty() {
        say(&format!("{cell}: {situation}: without frames: {without_frames:?}"));
    }
    // Under the race detector, a goroutine's stack pointer is at times in one of several places, and then in none.
    let may_be_marked = if cell.variant == Variant::Race { seen / 40 } else { seen / 100 };
    assert!(
        tally.all_marked() <= 2 + may_be_marked,
        "{cell}: {situation}: too many marked: {:?} of {seen}",
        tally.marked
    );
}

/// All situations of a program's goroutines, on all versions.
fn situations(names: &[&str]) {
    for cell in cells(Program::Running) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        for situation in names {
            assert!(fixture.command(&format!("start {situation} 2")).unwrap().starts_with("ok "));
            sample(&mut fixture, &cell, situation, PAUSE, SAMPLES);
            sample(&mut fixture, &cell, situation, Pause::No, SAMPLES / 5);
            fixture.order("stop").unwrap();
        }
        fixture.assert_untouched().unwrap();
    }
}

const PAUSE: Pause = Pause::AtMost(Duration::from_millis(20));

#[test]
fn in_go_code() {
    situations(&["loop", "calls"]);
}

#[test]
fn growing_stacks_and_under_the_garbage_collector() {
    situations(&["morestack", "gc"]);
}

#[test]
fn in_the_vdso_and_under_signals() {
    situations(&["vdso", "signals"]);
}

/// The race detector's calls run C++ on the system stack, and leave nothing behind on the goroutine's g.
#[test]
fn under_the_race_detector() {
    let cell = Cell::new(NEWEST, Variant::Race, Program::Running);
    if matches!(Selection::from_environment(), Ok(Selection::Quick)) && !fixtures::repetition::full() {
        say("NOT TESTED with the quick selection: programs built with the race detector");
        return;
    }
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
    for situation in ["calls", "gc"] {
        assert!(fixture.command(&format!("start {situation} 2")).unwrap().starts_with("ok "));
        sample(&mut fixture, &cell, situation, PAUSE, SAMPLES);
        fixture.order("stop").unwrap();
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn in_c() {
    for cell in cells(Program::Cgo) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        assert!(fixture.command("start c 2").unwrap().starts_with("ok "));
        sample(&mut fixture, &cell, "c", PAUSE, SAMPLES);
        sample(&mut fixture, &cell, "c", Pause::No, SAMPLES / 5);
        fixture.order("stop").unwrap();
        fixture.assert_untouched().unwrap();
    }
}
