//! Profiles read from outside are what the process itself writes at the same instant: every row of `heap`, `allocs`,
//! `block` and `mutex`, with names, files, lines, addresses, inlined calls, labels and values.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use fixtures::matrix::NEWEST;
use fixtures::pprof::{self, Plain, Row, difference};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, build};
use inspector::memory::Memory as _;
use inspector::profile::mappings;
use inspector::runtime::buckets::{
    self, ContentionBuckets, Profilers, Sampling, Tables, TicksPerSecond, allocs_profile, block_profile,
    heap_profile, mutex_profile, ticks_per_second,
};
use inspector::runtime::open::open;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running fixture and our view of it.
struct Target {
    cell: Cell,
    fixture: Fixture,
    files: tempfile::TempDir,
    compared: usize,
    calibrated: usize,
    of_the_writer: usize,
    of_others: usize,
}

/// The cells of stripped programs.
fn stripped() -> impl Iterator<Item = Cell> {
    let cells = build::selected(Program::Profiles).unwrap();
    cells.into_iter().filter(|cell| cell.variant == Variant::Stripped)
}

/// Whether the number of ticks was found; in a usual build it always is.
fn has_ticks(tables: &Tables<'_>, cell: Cell) -> bool {
    let found = tables.located().at("runtime.ticks").is_some();
    assert!(found || cell.variant != Variant::Stripped, "{cell}");
    found
}

/// Takes out rows that differ by the error of two calibrations, and says how many. On a busy machine that of the process
/// itself is off by several per cent.
fn forgive_calibration(ours: &mut Vec<Row>, theirs: &mut Vec<Row>) -> usize {
    let close = |a: &Row, b: &Row| {
        (&a.stack, &a.labels, a.values[0]) == (&b.stack, &b.labels, b.values[0])
            && (a.values[1] - b.values[1]).abs() <= b.values[1] / 5
    };
    let before = ours.len();
    ours.retain(|row| match theirs.iter().position(|other| close(row, other)) {
        Some(index) => {
            theirs.remove(index);
            false
        }
        None => true,
    });
    before - ours.len()
}

fn one_name_for_all_instances(rows: &mut [Row]) {
    for line in rows.iter_mut().flat_map(|row| &mut row.stack).flat_map(|place| &mut place.lines) {
        if let (Some(open), Some(close)) = (line.find('['), line.rfind(']')) {
            line.replace_range(open..=close, "[...]");
        }
    }
    rows.sort();
}

impl Target {
    fn start(cell: Cell, environment: &[(&str, &str)]) -> Self {
        let fixture = Fixture::spawn(&cell, &[], environment).unwrap();
        Target {
            cell,
            fixture,
            files: tempfile::tempdir().unwrap(),
            compared: 0,
            calibrated: 0,
            of_the_writer: 0,
            of_others: 0,
        }
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

    /// What we read, and whether with the program's own number of ticks in a second, if it depends on that.
    fn ours(&self, kind: &str) -> (Plain, bool) {
        let process = self.fixture.pinned().unwrap();
        let (view, _) = open(&process).unwrap();
        let memory = process.memory();
        let tables = Tables::locate(&view);
        let mapped = mappings::of(&process).unwrap();
        let mut exact = true;
        let profile = match kind {
            "heap" | "allocs" => {
                let buckets = buckets::read_memory(&tables, &memory).unwrap();
                assert!(buckets.consistent, "{}", self.cell);
                let make = if kind == "heap" { heap_profile } else { allocs_profile };
                make(&tables, &buckets, mapped)
            }
            _ => {
                let (read, make): (fn(&_, &_) -> _, fn(&_, &_, _) -> _) = match kind {
                    "block" => (|t, m| buckets::read_block(t, m), block_profile),
                    _ => (|t, m| buckets::read_mutex(t, m), mutex_profile),
                };
                let buckets: ContentionBuckets = read(&tables, &memory).unwrap();
                exact = matches!(buckets.ticks, TicksPerSecond::Runtime(_));
                assert_eq!(exact, has_ticks(&tables, self.cell), "{}", self.cell);
                make(&tables, &buckets, mapped)
            }
        };
        (Plain::from(&profile), exact)
    }

    /// Compares, and returns our rows. `excuse` names rows that may differ, by their cause.
    fn compare(&mut self, kind: &str, excuse: impl Fn(&Row) -> bool) -> Vec<Row> {
        // What the writer allocates the first time it has not in its table yet.
        self.theirs(kind);
        self.theirs(kind);
        let (mut ours, exact) = self.ours(kind);
        let mut theirs = self.theirs(kind);
        let cell = self.cell;
        if cell.toolchain == "1.21.0" {
            // Until Go 1.21.6 all instances of a generic function had the name of the first one that was written.
            one_name_for_all_instances(&mut ours.rows);
            one_name_for_all_instances(&mut theirs.rows);
        }
        let (mut only_ours, mut only_theirs) = difference(&ours.rows, &theirs.rows);
        if !exact {
            self.calibrated += forgive_calibration(&mut only_ours, &mut only_theirs);
        }
        if kind == "heap" || kind == "allocs" {
            self.of_later(kind, &mut only_theirs);
        }
        if let Some(row) = only_ours.iter().chain(&only_theirs).find(|row| !excuse(row)) {
            let side = if only_ours.contains(row) { "we have" } else { "the process has" };
            let (ours, theirs) = (only_ours.len(), only_theirs.len());
            panic!("{cell} {kind}: {ours} of our rows, {theirs} of its rows; only {side} {row:#?}");
        }
        self.compared += ours.rows.len() - only_ours.len();
        assert_eq!(ours.sample_types, theirs.sample_types, "{cell} {kind}");
        assert_eq!(ours.period, theirs.period, "{cell} {kind}");
        if !theirs.default_sample_type.is_empty() {
            assert_eq!(ours.default_sample_type, theirs.default_sample_type, "{cell} {kind}");
        }
        assert_eq!(ours.mappings, theirs.mappings, "{cell} {kind}");
        ours.rows
    }

    /// Takes out rows that came to be after our reading: the writer makes room for more rows each time, at times the
    /// runtime starts a thread. They count nothing yet, and our next reading has them.
    fn of_later(&mut self, kind: &str, rows: &mut Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        let (mut later, _) = self.ours(kind);
        if self.cell.toolchain == "1.21.0" {
            one_name_for_all_instances(&mut later.rows);
        }
        let of_the_writer = |row: &Row| row.passes("runtime/pprof.");
        rows.retain(|row| {
            let is_new = row.values.iter().all(|value| *value == 0) && later.rows.contains(row);
            match (is_new, of_the_writer(row)) {
                (true, true) => self.of_the_writer += 1,
                (true, false) => self.of_others += 1,
                (false, _) => {}
            }
            !is_new
        });
    }

    fn end(mut self, rate: &str) -> (usize, usize) {
        self.fixture.assert_untouched().unwrap();
        say(&format!(
            "profiles: {} at rate {rate}: {} rows equal ({} with calibrated ticks); newer ones: {} of the writer, {} others",
            self.cell, self.compared, self.calibrated, self.of_the_writer, self.of_others
        ));
        (self.compared, self.of_the_writer + self.of_others)
    }
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
        let rows = target.compare(kind, never);
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
    let (mut cells, mut rows, mut newer) = (0, 0, 0);
    for (compared, later) in results {
        cells += 1;
        rows += compared;
        newer += later;
    }
    say(&format!("profiles: {kind}: {cells} cells, {rows} rows equal, {newer} newer than our reading"));
}

#[test]
fn memory_at_the_default_rate() {
    total(
        "memory, default",
        build::selected(Program::Profiles).unwrap().into_iter().map(|cell| check_memory(cell, "default")),
    );
}

#[test]
fn memory_at_rate_one() {
    total(
        "memory, 1",
        build::selected(Program::Profiles).unwrap().into_iter().map(|cell| check_memory(cell, "1")),
    );
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
    total("memory, before collections", build::selected(Program::Profiles).unwrap().into_iter().map(before));
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
        let rows = target.compare("block", never);
        for site in ["blocking", "deep", "twisted", "receive", "contended"] {
            assert!(through(&rows, site) > 0, "{cell}: nothing through {site}");
        }
        let rows = target.compare("mutex", never);
        for site in ["plain", "deferred", "inlined"] {
            assert!(through(&rows, site) > 0, "{cell}: nothing through {site}");
        }
        if cell.minor() < 20 {
            // The rate of now scales what was counted before.
            target.order("rates 0 3");
            target.compare("mutex", never);
            target.order("rates 0 0");
            let rows = target.compare("mutex", never);
            assert!(rows.iter().all(|row| row.values == [0, 0]), "{cell}");
        }
        target.end("1 and 20 µs")
    };
    total("block and mutex", build::selected(Program::Profiles).unwrap().into_iter().map(contention));
}

#[test]
fn ticks_before_the_process_counts_them() {
    for cell in build::selected(Program::Profiles).unwrap() {
        let mut target = Target::start(cell, &[]);
        let ticks = |target: &Target| {
            let process = target.fixture.pinned().unwrap();
            let (view, _) = open(&process).unwrap();
            ticks_per_second(&Tables::locate(&view), &process.memory()).unwrap()
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        let before = ticks(&target);
        target.theirs("block");
        let after = ticks(&target);
        let fits = match (before, after) {
            (TicksPerSecond::Calibrated(_), TicksPerSecond::Calibrated(_)) => {
                cell.variant != Variant::Stripped
            }
            (TicksPerSecond::Calibrated(_), TicksPerSecond::Runtime(_)) => cell.minor() < 22,
            (TicksPerSecond::SinceStart(_), TicksPerSecond::Runtime(_)) => cell.minor() >= 22,
            _ => false,
        };
        assert!(fits, "{cell}: {before:?} {after:?}");
        let off = (before.value() - after.value()).abs();
        // The process calibrates as we do, and is interrupted by others meanwhile.
        let tolerated = if cell.minor() < 22 { 5 } else { 100 };
        assert!(off < after.value() / tolerated, "{cell}: {before:?} {after:?}");
        target.fixture.assert_untouched().unwrap();
    }
}

fn profilers(fixture: &Fixture) -> Profilers {
    let process = fixture.pinned().unwrap();
    let (view, _) = open(&process).unwrap();
    Profilers::read(&Tables::locate(&view), &process.memory())
}

#[test]
fn whether_a_process_samples() {
    for cell in build::selected(Program::Profiles).unwrap() {
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
    for cell in build::selected(Program::Unprofiled).unwrap() {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        assert_eq!(profilers(&fixture).memory, Sampling::NotLinked, "{cell}");
        fixture.assert_untouched().unwrap();
        let mut fixture = Fixture::spawn(&cell, &[], &[("RATE", "1000")]).unwrap();
        assert_eq!(profilers(&fixture).memory, Sampling::On { rate: 1000 }, "{cell}");
        fixture.assert_untouched().unwrap();
    }
}

/// While collections publish all the time, a reading is of one moment between them: nothing is freed that was not
/// allocated, and readings that follow one another only grow.
#[test]
fn memory_while_collections_are_at_work() {
    // A busy machine may let the process do little between two readings.
    let (wanted, at_most) = (20, 400);
    for cell in stripped() {
        // A collection whenever a twentieth more is in use.
        let mut target = Target::start(cell, &[("RATE", "1"), ("GOGC", "5")]);
        target.order("allocate 2");
        target.order("gc");
        target.fixture.send("allocate 30").unwrap();
        let process = target.fixture.pinned().unwrap();
        let (view, _) = open(&process).unwrap();
        let tables = Tables::locate(&view);
        let memory = process.memory();
        let (mut last, mut readings, mut consistent, mut changed) = (0, 0, 0, 0);
        while readings < at_most && (consistent < wanted || changed < 5) {
            readings += 1;
            let found = buckets::read_memory(&tables, &memory).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
            if !found.consistent {
                continue;
            }
            consistent += 1;
            for bucket in &found.buckets {
                let counts = bucket.published;
                assert!(counts.frees <= counts.allocs, "{cell}: {bucket:?}");
                assert_eq!(counts.alloc_bytes, counts.allocs * bucket.size, "{cell}: {bucket:?}");
                assert_eq!(counts.free_bytes, counts.frees * bucket.size, "{cell}: {bucket:?}");
            }
            let allocated: u64 = found.buckets.iter().map(|bucket| bucket.published.allocs).sum();
            assert!(allocated >= last, "{cell}: {allocated} after {last}");
            changed += usize::from(allocated > last);
            last = allocated;
        }
        say(&format!(
            "profiles: {cell}: {consistent} of {readings} readings under load are consistent, {changed} new"
        ));
        assert!(consistent >= wanted && consistent >= readings / 2, "{cell}: {consistent}");
        assert!(changed > 1, "{cell}: nothing went on");
        assert_eq!(target.fixture.line("allocate").unwrap(), "ok");
        target.fixture.assert_untouched().unwrap();
    }
}

/// What a collection publishes it moves from bucket to bucket. Who is stopped in the midst of that has an object counted twice, or
/// not at all, however often the table is read: it must not be called consistent.
#[test]
fn memory_of_a_process_that_is_stopped_while_it_publishes() {
    let stops = 40;
    for cell in stripped() {
        let mut target = Target::start(cell, &[("RATE", "1"), ("GOGC", "5")]);
        target.order("many 4");
        target.order("allocate 1");
        target.order("gc");
        let process = target.fixture.pinned().unwrap();
        let pid = process.pid();
        let (view, _) = open(&process).unwrap();
        let tables = Tables::locate(&view);
        let memory = process.memory();
        let mut last: HashMap<(u64, Vec<u64>), u64> = HashMap::new();
        let mut consistent = 0;
        for stop in 0..stops {
            target.fixture.send("allocate 1").unwrap();
            target.fixture.send("gc").unwrap();
            assert_eq!(target.fixture.line("allocate").unwrap(), "ok");
            // Each of them a little later.
            std::thread::sleep(std::time::Duration::from_micros(100 * stop));
            let found = stopped(pid.into(), || buckets::read_memory(&tables, &memory).unwrap());
            assert_eq!(target.fixture.line("gc").unwrap(), "ok");
            if !found.consistent {
                continue;
            }
            consistent += 1;
            for bucket in found.buckets {
                let counts = bucket.published;
                assert!(counts.frees <= counts.allocs, "{cell}: {counts:?}");
                let before = last.insert((bucket.size, bucket.stack), counts.allocs).unwrap_or_default();
                assert!(counts.allocs >= before, "{cell}: {before} were allocated before, now {counts:?}");
            }
        }
        say(&format!("profiles: {cell}: {consistent} of {stops} readings in a stop are consistent"));
        assert!(consistent > stops / 4, "{cell}: {consistent}");
        target.fixture.assert_untouched().unwrap();
    }
}

/// What is answered while the process stands still by a signal.
fn stopped<T>(pid: Pid, answer: impl FnOnce() -> T) -> T {
    kill(pid, Signal::SIGSTOP).unwrap();
    let status = format!("/proc/{pid}/status");
    while !fs::read_to_string(&status).unwrap().contains("State:\tT") {
        std::thread::yield_now();
    }
    let answer = answer();
    kill(pid, Signal::SIGCONT).unwrap();
    answer
}

/// How long ten thousand rows take, and that they are right too.
#[test]
fn ten_thousand_rows() {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Profiles);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    let mut target = Target::start(cell, &[("RATE", "1")]);
    target.order("many 4");
    target.order("allocate 1");
    target.order("gc");
    let rows = target.compare("heap", never);
    assert!(rows.len() > 10_000, "{}", rows.len());
    let process = target.fixture.pinned().unwrap();
    let (view, _) = open(&process).unwrap();
    let begun = Instant::now();
    let memory = process.memory();
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
