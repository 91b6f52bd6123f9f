//! Profiles read from outside are what the process itself writes at the same instant: every row of `heap`, `allocs`,
//! `block` and `mutex`, with names, files, lines, addresses, inlined calls, labels and values.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs;
use std::time::Instant;

use fixtures::pprof::{self, Plain, Row, difference};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Selection, Variant, build, matrix};
use inspector::memory::LiveMemory;
use inspector::process::Process;
use inspector::profile::mappings;
use inspector::runtime::buckets::{
    self, BucketsError, Profilers, Sampling, Tables, TicksPerSecond, allocs_profile, block_profile,
    heap_profile, mutex_profile, ticks_per_second,
};
use inspector::runtime::open::open;

fn cells(program: Program) -> Vec<Cell> {
    let all = matrix::cells(Selection::from_environment().unwrap());
    let only = std::env::var("GOPS_PROBE_CELL").unwrap_or_default();
    let cells: Vec<Cell> =
        all.into_iter().filter(|cell| cell.program == program && cell.to_string().contains(&only)).collect();
    build::build(&cells, 2, &|_, _| ()).unwrap();
    cells
}

/// A running fixture and our view of it.
struct Target {
    cell: Cell,
    fixture: Fixture,
    files: tempfile::TempDir,
    compared: usize,
    of_the_writer: usize,
}

impl Target {
    fn start(cell: Cell, environment: &[(&str, &str)]) -> Self {
        let fixture = Fixture::spawn(&cell, &[], environment).unwrap();
        Target { cell, fixture, files: tempfile::tempdir().unwrap(), compared: 0, of_the_writer: 0 }
    }

    fn order(&mut self, command: &str) {
        self.fixture.order(command).unwrap();
    }

    /// What the process writes.
    fn theirs(&mut self, kind: &str) -> Plain {
        let path = self.files.path().join(kind);
        self.order(&format!("write {kind} {}", path.display()));
        pprof::parse(&fs::read(&path).unwrap()).unwrap()
    }

    /// What we read; `None` where a variable that it takes is not found, which some builds have none of beyond doubt.
    fn ours(&self, kind: &str) -> Option<Plain> {
        let process = Process::pin(self.fixture.pid().to_string().parse().unwrap()).unwrap();
        let (view, _) = open(&process).unwrap();
        let memory = LiveMemory::new(process.pid().as_raw());
        let tables = Tables::locate(&view);
        let mapped = mappings::of(&process).unwrap();
        let profile = match kind {
            "heap" | "allocs" => {
                let buckets = buckets::read_memory(&tables, &memory).unwrap();
                assert!(buckets.consistent, "{}", self.cell);
                let make = if kind == "heap" { heap_profile } else { allocs_profile };
                make(&tables, &buckets, mapped)
            }
            "block" => block_profile(&tables, &buckets::read_block(&tables, &memory).unwrap(), mapped),
            _ => {
                let buckets = match buckets::read_mutex(&tables, &memory) {
                    // Its values depend on the rate, and are not guessed.
                    Err(BucketsError::NotFound("runtime.mutexprofilerate")) if self.cell.minor() < 20 => {
                        assert_ne!(self.cell.variant, Variant::Stripped, "{}", self.cell);
                        return None;
                    }
                    other => other.unwrap(),
                };
                assert!(matches!(buckets.ticks, TicksPerSecond::Runtime(_)), "{}", self.cell);
                mutex_profile(&tables, &buckets, mapped)
            }
        };
        Some(Plain::from(&profile))
    }

    /// Compares, and returns our rows. `excuse` names rows that may differ, by their cause.
    fn compare(&mut self, kind: &str, excuse: impl Fn(&Row) -> bool) -> Option<Vec<Row>> {
        // What the writer allocates the first time it has not in its table yet.
        self.theirs(kind);
        self.theirs(kind);
        let Some(ours) = self.ours(kind) else {
            say(&format!("profiles: {}: {kind} cannot be told", self.cell));
            return None;
        };
        let theirs = self.theirs(kind);
        let cell = self.cell;
        let (only_ours, only_theirs) = difference(&ours.rows, &theirs.rows);
        for row in only_ours.iter().chain(&only_theirs) {
            let side = if only_ours.contains(row) { "we" } else { "the process" };
            assert!(
                excuse(row),
                "{cell} {kind}: only {side} has {row:#?}\nours: {only_ours:#?}\ntheirs: {only_theirs:#?}"
            );
        }
        self.of_the_writer += only_theirs.len();
        self.compared += ours.rows.len() - only_ours.len();
        assert_eq!(ours.sample_types, theirs.sample_types, "{cell} {kind}");
        assert_eq!(ours.period, theirs.period, "{cell} {kind}");
        if !theirs.default_sample_type.is_empty() {
            assert_eq!(ours.default_sample_type, theirs.default_sample_type, "{cell} {kind}");
        }
        assert_eq!(ours.mappings, theirs.mappings, "{cell} {kind}");
        Some(ours.rows)
    }

    fn end(mut self, rate: &str) -> (usize, usize) {
        self.fixture.assert_untouched().unwrap();
        say(&format!(
            "profiles: {} at rate {rate}: {} rows equal, {} of the writer",
            self.cell, self.compared, self.of_the_writer
        ));
        (self.compared, self.of_the_writer)
    }
}

/// The writer makes room for one row more each time it is called.
fn of_the_writer(row: &Row) -> bool {
    row.passes("runtime/pprof.")
}

fn never(_: &Row) -> bool {
    false
}

/// Rows that pass through a function of the fixture.
fn through(rows: &[Row], function: &str) -> usize {
    rows.iter().filter(|row| row.passes(&format!("example.com/fixtures/profiled.{function}"))).count()
}

fn check_memory(cell: Cell, rate: &str) -> (usize, usize) {
    let environment: &[(&str, &str)] = if rate == "default" { &[] } else { &[("RATE", rate)] };
    let mut target = Target::start(cell, environment);
    target.order("allocate 10");
    target.order("gc");
    target.order("free");
    target.order("allocate 2");
    target.order("gc");
    for kind in ["heap", "allocs"] {
        let rows = target.compare(kind, of_the_writer).unwrap();
        if rate != "1" {
            continue;
        }
        for site in [
            "leaf",
            "middle",
            "outer",
            "closures",
            "recovered",
            "(*Base).Grow",
            "generics",
            "strange",
            "root",
            "recurse",
            "spiral",
            "instance[",
        ] {
            assert!(through(&rows, site) > 0, "{cell}: nothing through {site}");
        }
        let depth = |row: &Row| row.stack.iter().map(|place| place.lines.len()).sum::<usize>();
        let deepest = rows.iter().map(depth).max().unwrap();
        let expected = if cell.minor() >= 23 { 120 } else { 25 };
        assert!(deepest >= expected, "{cell}: {deepest}");
        assert!(rows.iter().any(|row| row.values[0] > 0 && row.values[2] == 0), "{cell}: all is in use");
    }
    target.end(rate)
}

fn total(kind: &str, results: impl IntoIterator<Item = (usize, usize)>) {
    let (mut cells, mut rows, mut writer) = (0, 0, 0);
    for (compared, of_the_writer) in results {
        cells += 1;
        rows += compared;
        writer += of_the_writer;
    }
    say(&format!("profiles: {kind}: {cells} cells, {rows} rows equal, {writer} of the writer"));
}

#[test]
fn memory_at_the_default_rate() {
    total("memory, default", cells(Program::Profiles).into_iter().map(|cell| check_memory(cell, "default")));
}

#[test]
fn memory_at_rate_one() {
    total("memory, 1", cells(Program::Profiles).into_iter().map(|cell| check_memory(cell, "1")));
}

/// Before the first collection everything counted is published, so that what the command itself allocates between the
/// two readings shows: it runs below the loop that serves commands, which nothing else does.
#[test]
fn memory_before_the_first_collection() {
    let before = |cell: Cell| {
        let mut target = Target::start(cell, &[("GOGC", "off")]);
        target.order("allocate 3");
        target.compare("heap", |row| row.passes("example.com/fixtures/proto.Serve"));
        target.end("default, before the first collection")
    };
    total("memory, before collections", cells(Program::Profiles).into_iter().map(before));
}

#[test]
fn blocking_and_contention() {
    let contention = |cell: Cell| {
        let mut target = Target::start(cell, &[]);
        // All events, and one in five locks.
        let fraction = if cell.minor() < 20 { 5 } else { 1 };
        target.order(&format!("rates 1 {fraction}"));
        target.order("contend");
        // Blocking of more than 20 µs, as the runtime counts what is shorter.
        target.order(&format!("rates 20000 {fraction}"));
        target.order("contend");
        if cell.minor() >= 20 {
            target.order("rates 0 0");
        }
        let rows = target.compare("block", never).unwrap();
        for site in ["blocking", "deep", "twisted", "receive", "contended"] {
            assert!(through(&rows, site) > 0, "{cell}: nothing through {site}");
        }
        let Some(rows) = target.compare("mutex", never) else { return target.end("1 and 20 µs") };
        for site in ["plain", "deferred", "inlined"] {
            assert!(through(&rows, site) > 0, "{cell}: nothing through {site}");
        }
        if cell.minor() < 20 {
            // The rate of now scales what was counted before.
            target.order("rates 0 3");
            target.compare("mutex", never);
            target.order("rates 0 0");
            let rows = target.compare("mutex", never).unwrap();
            assert!(rows.iter().all(|row| row.values == [0, 0]), "{cell}");
        }
        target.end("1 and 20 µs")
    };
    total("block and mutex", cells(Program::Profiles).into_iter().map(contention));
}

#[test]
fn ticks_before_the_process_counts_them() {
    for cell in cells(Program::Profiles) {
        let mut target = Target::start(cell, &[]);
        let ticks = |target: &Target| {
            let process = Process::pin(target.fixture.pid().to_string().parse().unwrap()).unwrap();
            let (view, _) = open(&process).unwrap();
            ticks_per_second(&Tables::locate(&view), &LiveMemory::new(process.pid().as_raw())).unwrap()
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        let before = ticks(&target);
        target.theirs("block");
        let after = ticks(&target);
        assert!(matches!(after, TicksPerSecond::Runtime(_)), "{cell}: {after:?}");
        match before {
            TicksPerSecond::Calibrated(_) => assert!(cell.minor() < 22, "{cell}: {before:?}"),
            TicksPerSecond::SinceStart(_) => assert!(cell.minor() >= 22, "{cell}: {before:?}"),
            _ => panic!("{cell}: {before:?}"),
        }
        let off = (before.value() - after.value()).abs();
        assert!(off < after.value() / 1000, "{cell}: {before:?} {after:?}");
        target.fixture.assert_untouched().unwrap();
    }
}

fn profilers(fixture: &Fixture) -> Profilers {
    let process = Process::pin(fixture.pid().to_string().parse().unwrap()).unwrap();
    let (view, _) = open(&process).unwrap();
    Profilers::read(&Tables::locate(&view), &LiveMemory::new(process.pid().as_raw()))
}

#[test]
fn whether_a_process_samples() {
    for cell in cells(Program::Profiles) {
        // Where the recipe of a variable is refused it is unknown, and never guessed.
        let is = |found: Sampling, expected: Sampling| {
            found == expected || (found == Sampling::Unknown && cell.variant != Variant::Stripped)
        };
        let mut target = Target::start(cell, &[]);
        let found = profilers(&target.fixture);
        assert!(is(found.memory, Sampling::On { rate: 512 << 10 }), "{cell}: {found:?}");
        assert!(is(found.block, Sampling::Off) && is(found.mutex, Sampling::Off), "{cell}: {found:?}");
        target.order("rates 1 7");
        let found = profilers(&target.fixture);
        assert!(is(found.block, Sampling::On { rate: 1 }), "{cell}: {found:?}");
        assert!(is(found.mutex, Sampling::On { rate: 7 }), "{cell}: {found:?}");
        target.fixture.assert_untouched().unwrap();
        let mut target = Target::start(cell, &[("RATE", "0")]);
        assert!(is(profilers(&target.fixture).memory, Sampling::Off), "{cell}");
        target.order("allocate 1");
        target.order("gc");
        target.compare("heap", never);
        target.fixture.assert_untouched().unwrap();
    }
    for cell in cells(Program::Unprofiled) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        assert_eq!(profilers(&fixture).memory, Sampling::NotLinked, "{cell}");
        fixture.assert_untouched().unwrap();
        let mut fixture = Fixture::spawn(&cell, &[], &[("RATE", "1000")]).unwrap();
        assert_eq!(profilers(&fixture).memory, Sampling::On { rate: 1000 }, "{cell}");
        fixture.assert_untouched().unwrap();
    }
}

/// How long ten thousand rows take, and that they are right too.
#[test]
fn ten_thousand_rows() {
    let cell = Cell::new("1.27.4", Variant::Stripped, Program::Profiles);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    let mut target = Target::start(cell, &[("RATE", "1")]);
    target.order("many 4");
    target.order("allocate 1");
    target.order("gc");
    let rows = target.compare("heap", of_the_writer).unwrap();
    assert!(rows.len() > 10_000, "{}", rows.len());
    let process = Process::pin(target.fixture.pid().to_string().parse().unwrap()).unwrap();
    let (view, _) = open(&process).unwrap();
    let begun = Instant::now();
    let memory = LiveMemory::new(process.pid().as_raw());
    let tables = Tables::locate(&view);
    let located = begun.elapsed();
    let buckets = buckets::read_memory(&tables, &memory).unwrap();
    let read = begun.elapsed() - located;
    let mapped = mappings::of(&process).unwrap();
    let profile = heap_profile(&tables, &buckets, mapped);
    let named = begun.elapsed() - located - read;
    say(&format!(
        "profiles: {} rows: located in {located:?}, read in {read:?} by {:?}, named in {named:?}",
        profile.samples.len(),
        memory.cost()
    ));
    target.fixture.assert_untouched().unwrap();
}
