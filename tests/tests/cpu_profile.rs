//! CPU profiles of programs whose shares of the time are known, against what the programs measure of themselves and what the
//! kernel accounts to them.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST, newest_of};
use fixtures::pprof::{self, Row};
use fixtures::repetition::{Repetitions, full, say};
use fixtures::{Cell, Fixture, Program, Variant, binary, build, cpu_time, machine};
use serde_json::{Value, json};

/// Whose `go tool pprof` reads what we write.
const READERS: [&str; 3] = [newest_of(18), newest_of(23), NEWEST];

/// How much is sampled: as users do it in full, else as many samples in less time.
fn effort() -> (&'static str, &'static str) {
    if full() { ("30s", "99") } else { ("2s", "1999") }
}

fn newest(variant: Variant) -> Cell {
    let cell = Cell::new(NEWEST, variant, Program::Hot);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    cell
}

fn begun(cell: &Cell, works: &[&str]) -> Fixture {
    let mut fixture = Fixture::spawn(cell, &[], &[]).unwrap();
    works.iter().for_each(|work| fixture.order(&format!("begin {work}")).unwrap());
    fixture
}

fn end(mut fixture: Fixture) {
    fixture.order("end").unwrap();
    fixture.assert_untouched().unwrap();
}

/// A profile of ours, and what its command said of it.
struct Profiled {
    said: Value,
    rows: Vec<Row>,
}

/// Runs `pprof-cpu`; the file stays in `folder`.
fn profiled(folder: &Path, arguments: &[&str]) -> Profiled {
    let path = folder.join("ours");
    let mut command = Command::new(binary().unwrap());
    command.args(["pprof-cpu", "--json", "-o"]).arg(&path).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    let said = serde_json::from_slice(&output.stdout).unwrap();
    Profiled { said, rows: pprof::parse(&fs::read(&path).unwrap()).unwrap().rows }
}

impl Profiled {
    fn number(&self, name: &str) -> u64 {
        self.said["sampling"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.said))
    }

    /// At least 99 of 100 stacks are whole, and nothing was lost.
    fn assert_whole(&self, what: &dyn std::fmt::Display) {
        let (user, rooted) = (self.number("user"), self.number("rooted"));
        assert!(user > 0 && rooted * 100 >= user * 99, "{what}: {rooted} of {user} are whole: {}", self.said);
        assert_eq!((self.number("lost"), &self.said["sampling"]["mode"]), (0, &"bpf".into()), "{what}");
        assert_eq!(self.number("samples"), sum(&self.rows, |_| true).cast_unsigned(), "{what}");
    }
}

fn sum(rows: &[Row], of: impl Fn(&Row) -> bool) -> i64 {
    rows.iter().filter(|row| of(row)).map(|row| row.values[0]).sum()
}

const HOT: [(&str, f64); 3] = [("main.fifty", 0.5), ("main.thirty", 0.3), ("main.twenty", 0.2)];

/// The three shares of the samples that `of` lets through, and how many those are.
fn shares(rows: &[Row], of: impl Fn(&Row) -> bool) -> ([f64; 3], i64) {
    let all = sum(rows, |row| of(row) && HOT.iter().any(|(name, _)| row.passes(name)));
    (HOT.map(|(name, _)| sum(rows, |row| of(row) && row.passes(name)) as f64 / all as f64), all)
}

fn unlabelled(row: &Row) -> bool {
    row.passes("main.shares")
}

fn labelled(row: &Row) -> bool {
    row.passes("main.labelled")
}

/// The three shares by the values of the label.
fn label_shares(rows: &[Row]) -> ([f64; 3], i64) {
    let has = |row: &Row, part: &str| row.labels.iter().any(|label| *label == format!("part={part}"));
    let parts = ["fifty", "thirty", "twenty"];
    let all = sum(rows, |row| parts.iter().any(|part| has(row, part)));
    (parts.map(|part| sum(rows, |row| has(row, part)) as f64 / all as f64), all)
}

/// Three points, and what chance does to so few samples: where there are as many as users have, that is next to nothing.
fn assert_near(what: &str, (ours, n): ([f64; 3], i64), (expected, m): ([f64; 3], i64)) {
    for (ours, expected) in ours.into_iter().zip(expected) {
        let deviation = |count: i64| {
            if count == i64::MAX { 0.0 } else { (expected * (1.0 - expected) / count as f64).sqrt() }
        };
        // The program's own samples come with the kernel's ticks, several of one moment.
        let times = if m == i64::MAX { 3.0 } else { 6.0 };
        let chance = times * deviation(n).hypot(deviation(m)) - 0.03;
        let allowed = 0.03 + chance.max(0.0);
        assert!(
            (ours - expected).abs() <= allowed,
            "{what}: {ours:.3} of {n}, not {expected:.3} of {m} ±{allowed:.3}"
        );
    }
}

/// Samples without an end to chance: shares that are known.
const KNOWN: ([f64; 3], i64) = ([0.5, 0.3, 0.2], i64::MAX);

#[test]
fn shares_are_those_of_the_program() {
    let _alone = machine::alone();
    let (duration, rate) = effort();
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    let (mut of_cells, mut samples, mut whole, mut furthest) = (0, 0, 0, 0f64);
    for cell in build::selected(Program::Hot).unwrap() {
        let mut fixture = begun(&cell, &["shares", "labelled"]);
        fixture.order("profile").unwrap();
        let ours = profiled(folder.path(), &[&fixture.pid().to_string(), "-d", duration, "-r", rate]);
        fixture.order(&format!("write {}", theirs.display())).unwrap();
        ours.assert_whole(&cell);
        let theirs = pprof::parse(&fs::read(&theirs).unwrap()).unwrap().rows;
        let what = |what: &str| format!("{cell}: {what}");
        for (kind, ours, theirs) in [
            ("functions", shares(&ours.rows, unlabelled), shares(&theirs, unlabelled)),
            ("functions with labels", shares(&ours.rows, labelled), shares(&theirs, labelled)),
            ("labels", label_shares(&ours.rows), label_shares(&theirs)),
        ] {
            assert!(ours.1 > 500, "{}: {} samples", what(kind), ours.1);
            assert_near(&what(kind), ours, KNOWN);
            assert_near(&what(&format!("{kind}, as the program itself says")), ours, theirs);
            let off = ours.0.iter().zip(KNOWN.0).map(|(ours, known)| (ours - known).abs());
            furthest = off.fold(furthest, f64::max);
        }
        // Whoever has the label has it from the function that sets it. Once in some hundred thousand samples another one
        // had it, in Go 1.19 while its own profiler ran.
        let strange = |row: &&Row| row.labels.iter().any(|l| l.starts_with("part=")) && unlabelled(row);
        let strangers: Vec<&Row> = ours.rows.iter().filter(strange).collect();
        if !strangers.is_empty() {
            say(&format!("{cell}: labels of somebody else: {strangers:#?}"));
        }
        let of_them: i64 = strangers.iter().map(|row| row.values[0]).sum();
        assert!(of_them * 1000 <= ours.number("samples").cast_signed(), "{cell}: {of_them}");
        // Each of both has one goroutine.
        for of in [unlabelled, labelled] {
            let numbered = |row: &Row| row.labels.iter().any(|label| label.starts_with("goroutine="));
            let strays = sum(&ours.rows, |row| of(row) && !numbered(row));
            assert!(strays * 1000 <= sum(&ours.rows, of), "{cell}: {strays} without a goroutine");
        }
        for reader in READERS {
            let top = pprof::tool(reader, "-top", &folder.path().join("ours")).unwrap();
            assert!(top.contains("Type: cpu") && top.contains("main.fifty"), "{cell}, {reader}: {top}");
        }
        (of_cells, samples, whole) =
            (of_cells + 1, samples + ours.number("user"), whole + ours.number("rooted"));
        end(fixture);
    }
    say(&format!(
        "cpu profiles: {of_cells} cells, {whole} of {samples} stacks whole, no share further off than {:.1} points",
        furthest * 100.0
    ));
}

#[test]
fn calls_of_c_keep_their_goroutine() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    for cell in build::selected(Program::Hot).unwrap().into_iter().filter(|cell| cell.variant == Variant::Cgo)
    {
        let fixture = begun(&cell, &["c"]);
        let ours = profiled(folder.path(), &[&fixture.pid().to_string(), "-d", "1s", "-r", "499"]);
        ours.assert_whole(&cell);
        let calls = |row: &Row| row.passes("main.callsC") && row.passes("main.begin.func1");
        let all = sum(&ours.rows, |_| true);
        let found = sum(&ours.rows, calls);
        // Long calls lose their P to another thread, and the scheduler works for that.
        assert!(found * 100 >= all * 75, "{cell}: {found} of {all}: {:#?}", ours.rows);
        let numbered = |row: &Row| row.labels.iter().any(|label| label.starts_with("goroutine="));
        let strays = sum(&ours.rows, |row| calls(row) && !numbered(row));
        assert!(strays * 100 <= found, "{cell}: {strays} of {found} without a goroutine");
        end(fixture);
    }
}

#[test]
fn what_is_short_is_not_lost() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    for (cell, work, function, options) in [
        (newest(Variant::Stripped), "threads", "main.inThread", [].as_slice()),
        (newest(Variant::Stripped), "children", "main.inChild", &["--children"]),
        (newest(Variant::Cgo), "children", "main.inChild", &["--children"]),
    ] {
        let children = work == "children";
        let fixture = begun(&cell, &[work]);
        let pid = fixture.pid().to_string();
        let (start, before) = (Instant::now(), cpu_time(fixture.pid(), children).unwrap());
        let ours = profiled(
            folder.path(),
            &[&[pid.as_str(), "-d", "3s", "-r", "499", "--threads"], options].concat(),
        );
        let (took, after) = (start.elapsed().as_secs_f64(), cpu_time(fixture.pid(), children).unwrap());
        // Both are of a work that goes on evenly, for different times.
        let accounted = (after - before) / took;
        let seconds = ours.number("duration_ns") as f64 / 1e9;
        let ours_of = |of: &dyn Fn(&Row) -> bool| sum(&ours.rows, of) as f64 / 499.0 / seconds;
        let own = format!("pid={pid}");
        let (found, named) =
            (ours_of(&|row| !children || !row.labels.contains(&own)), ours_of(&|row| row.passes(function)));
        say(&format!(
            "cpu profiles: {cell}, {work}: the kernel accounts {accounted:.3} s/s, {found:.3} sampled, {named:.3} \
                      of them in {function}"
        ));
        assert!((found - accounted).abs() <= 0.1 * accounted + 0.02, "{cell}: {found} of {accounted}");
        // The rest is the beginning and the end of a process, longer where a loader is part of it.
        let least = if cell.variant == Variant::Cgo { 0.6 } else { 0.75 };
        assert!(named >= least * found, "{cell}: {named} of {found}");
        assert_eq!(ours.number("lost"), 0);
        let threads = |row: &Row| row.labels.iter().find(|label| label.starts_with("thread=")).cloned();
        let mut seen: Vec<String> =
            ours.rows.iter().filter(|r| r.passes(function)).filter_map(threads).collect();
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 20, "{cell}: {seen:?}");
        end(fixture);
    }
}

#[test]
fn several_and_all() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    let mut fixtures: Vec<Fixture> =
        [Variant::Stripped, Variant::Cgo].map(|variant| begun(&newest(variant), &["shares"])).into();
    let pids: Vec<String> = fixtures.iter().map(|fixture| fixture.pid().to_string()).collect();
    let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let shell = busy.id().to_string();
    let several = [&pids[0], &pids[1], &shell];
    for arguments in [several.map(String::as_str).as_slice(), &["--system"]] {
        let ours = profiled(folder.path(), &[arguments, &["-d", "1500ms", "-r", "499"]].concat());
        for pid in &several {
            let of = sum(&ours.rows, |row| row.labels.contains(&format!("pid={pid}")));
            assert!(of > 100, "{arguments:?}: {of} of {pid}");
        }
        let hot = sum(&ours.rows, |row| row.passes("main.shares"));
        assert!(hot > 200, "{arguments:?}: {hot}");
        let asked = if arguments[0] == "--system" { &ours.said["machine"] } else { &ours.said["pids"][2] };
        assert!(*asked == true || *asked == busy.id(), "{}", ours.said);
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
    fixtures.drain(..).for_each(end);
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(binary().unwrap());
    command
        .arg("pprof-cpu")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until the kernel has a program of ours that samples, or until that is over.
fn until_sampling(child: &mut Child) {
    let start = Instant::now();
    while programs() == 0 && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many of our programs the kernel has.
fn programs() -> usize {
    let ours = |name: &str| matches!(name, "on_cpu" | "on_fork" | "on_exec");
    // A program may be gone between its number and its name.
    aya::programs::loaded_programs()
        .flatten()
        .filter(|program| program.name_as_str().is_some_and(ours))
        .count()
}

/// Whether the kernel has nothing of ours any more. It takes things down when all CPUs have passed a quiet moment.
fn assert_nothing_left(maps: usize, links: usize) {
    let count = || {
        let maps = aya::maps::loaded_maps().count();
        (programs(), maps, aya::programs::loaded_links().count())
    };
    let start = Instant::now();
    while count().0 > 0 || count().1 > maps || count().2 > links {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?} left, not {maps} maps and {links} links",
            count()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn interrupted_it_keeps_what_is_there() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let fixture = begun(&newest(Variant::Stripped), &["shares"]);
    let pid = fixture.pid().to_string();
    let mut child = start(&[&pid, "-d", "1h", "-o", path.to_str().unwrap()]);
    until_sampling(&mut child);
    std::thread::sleep(Duration::from_millis(1500));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("only: it was interrupted"), "{said}");
    let rows = pprof::parse(&fs::read(&path).unwrap()).unwrap().rows;
    assert!(sum(&rows, |row| row.passes("main.shares")) > 50, "{rows:#?}");
    end(fixture);

    // A process that ends meanwhile leaves what it did until then.
    let fixture = begun(&newest(Variant::Stripped), &["shares"]);
    let mut child = start(&[&fixture.pid().to_string(), "-d", "1h", "-o", path.to_str().unwrap()]);
    until_sampling(&mut child);
    std::thread::sleep(Duration::from_millis(1000));
    drop(fixture);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("the process ended"), "{}: {said}", output.status);
    let rows = pprof::parse(&fs::read(&path).unwrap()).unwrap().rows;
    assert!(sum(&rows, |row| row.passes("main.shares")) > 30, "{rows:#?}");
}

#[test]
fn killed_at_any_moment_it_leaves_nothing() {
    let _alone = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").to_str().unwrap().to_owned();
    let mut fixture = begun(&newest(Variant::Cgo), &["shares", "threads", "c"]);
    let pid = fixture.pid().to_string();
    // What the tests before have left is gone.
    assert_nothing_left(usize::MAX, usize::MAX);
    std::thread::sleep(Duration::from_secs(1));
    let (maps, links) = (aya::maps::loaded_maps().count(), aya::programs::loaded_links().count());
    let mut repetitions = Repetitions::new("cpu_profile", "SIGKILL while a CPU profile is taken", 100);
    let begin = || start(&[&pid, "-d", "300ms", "-r", "999", "--children", "-o", &path]);
    // As long as it takes, so that most are killed in the midst of it.
    let (mut whole, started) = (begin(), Instant::now());
    assert!(whole.wait().unwrap().success());
    let length = u64::try_from(started.elapsed().as_micros()).unwrap();
    let (mut sampling, mut ended) = (0, 0);
    while repetitions.another() {
        let mut child = begin();
        std::thread::sleep(Duration::from_micros(repetitions.random(length)));
        sampling += u64::from(programs() > 0);
        ended += u64::from(child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_nothing_left(maps, links);
        fixture.ping().unwrap();
        fixture.assert_untraced().unwrap();
    }
    repetitions.report(&json!({ "killed with programs loaded": sampling, "had ended before": ended }));
    end(fixture);
}

#[test]
fn what_cannot_be() {
    let _alone = machine::alone();
    let fixture = begun(&newest(Variant::Stripped), &[]);
    let pid = fixture.pid().to_string();
    let fails = |arguments: &[&str], code: i32, said: &str| {
        let output = start(arguments).wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    };
    fails(&[], 2, "TARGET");
    fails(&["--system", &pid], 2, "--system");
    fails(&[&pid, "-d", "0"], 2, "longer than 0");
    fails(&[&pid, "-r", "0"], 2, "1..=20000");
    fails(&[&pid, "127.0.0.1:1"], 2, "only its own process");
    fails(&[&pid, &pid, "--via", "agent"], 2, "only its own process");
    fails(&["4194304"], 3, "there is no process 4194304");
    fails(&[&pid, "-d", "100ms", "-o", "/dev/full"], 1, "/dev/full");
    // Nothing runs: that is an answer.
    let output = start(&[&pid, "-d", "300ms", "-f", "folded"]).wait_with_output().unwrap();
    assert!(output.status.success());
    end(fixture);
}
