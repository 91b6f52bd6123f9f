//! A Go release that there are no tables for yet: what is answered by the tables of the minor release beside it and by
//! what is in memory is what the release's own tables say; everything else is refused.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixtures::matrix::{NEWEST, NEWEST_OF_EACH_MINOR};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build};

/// Of which the tables are withheld, in programs without symbols.
const RELEASES: [&str; 2] = [NEWEST_OF_EACH_MINOR[NEWEST_OF_EACH_MINOR.len() - 2], NEWEST];
const PROGRAMS: [Program; 2] = [Program::States, Program::Profiles];

/// `PID` stands for the process, `FILE` for a file that the answer is in.
const QUESTIONS: [&[&str]; 13] = [
    &["version", "PID"],
    &["stack", "PID"],
    &["stack", "--no-pause", "PID"],
    &["pprof-goroutine", "--format", "text", "-o", "FILE", "PID"],
    &["stats", "PID"],
    &["memstats", "PID"],
    &["heap", "PID"],
    &["pprof-heap", "--format", "text", "-o", "FILE", "PID"],
    &["pprof-allocs", "--format", "text", "-o", "FILE", "PID"],
    &["pprof-block", "--format", "text", "-o", "FILE", "PID"],
    &["pprof-mutex", "--format", "text", "-o", "FILE", "PID"],
    &["gc", "PID"],
    &["setgc", "PID", "100"],
];

/// The runtime's own goroutines may do something between two answers.
const TRIES: usize = 6;

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// What was answered.
    Right(String),
    /// Exit code 6, and why.
    Refused(String),
    /// Exit code 1: the profiler is off.
    Off,
}

fn ask(fixture: &Fixture, question: &[&str], without: Option<u32>, file: &Path) -> Answer {
    let pid = fixture.pid().to_string();
    let arguments = question.iter().map(|argument| match *argument {
        "PID" => pid.as_str().into(),
        "FILE" => file.as_os_str().to_owned(),
        other => other.into(),
    });
    let mut command = Command::new(binary().unwrap());
    command.args(arguments);
    command.env("GOPS_PROBE_WITHOUT_TABLES", without.map_or_else(String::new, |minor| minor.to_string()));
    let _ = fs::remove_file(file);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    match status.code() {
        Some(0) if question.contains(&"FILE") => Answer::Right(fs::read_to_string(file).unwrap()),
        Some(0) => Answer::Right(String::from_utf8(stdout).unwrap()),
        Some(1) if stderr.contains("profiler") && stderr.contains("is off") => Answer::Off,
        Some(6) => {
            assert!(stdout.is_empty() && !file.exists(), "{question:?} is refused and answered");
            Answer::Refused(stderr)
        }
        other => panic!("{question:?} ends with {other:?}: {stderr}"),
    }
}

/// Whether two answers are the same but for when they were given. Where the number of ticks in a second is measured and not
/// read, times are the same to a hundredth.
fn same(a: &Answer, b: &Answer) -> bool {
    let (Answer::Right(a), Answer::Right(b)) = (a, b) else { return a == b };
    let lines = |text: &str| -> Vec<String> {
        let timed = |line: &&str| line.starts_with("Time: ") || line.starts_with("Note: times are ticks");
        text.lines().filter(|line| !timed(line)).map(str::to_owned).collect()
    };
    let measured = a.contains("Note: times are ticks") || b.contains("Note: times are ticks");
    let close = |a: &str, b: &str| {
        let number = |word: &str| {
            let at = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = word.split_at(at);
            Some((number.parse::<f64>().ok()?, unit.to_owned()))
        };
        let near = |(a, b): (f64, f64)| (a - b).abs() <= a.abs() / 100.0;
        match (number(a), number(b)) {
            (Some((a, a_unit)), Some((b, b_unit))) => measured && a_unit == b_unit && near((a, b)),
            _ => false,
        }
    };
    let (a, b) = (lines(a), lines(b));
    let words = |a: &str, b: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (a.split_whitespace().collect(), b.split_whitespace().collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || close(a, b))
    };
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || words(a, b))
}

/// Whether an answer says that it leaves labels out.
fn leaves_labels_out(fixture: &Fixture, question: &[&str], minor: u32) -> bool {
    if question[0] != "stack" {
        return false;
    }
    let pid = fixture.pid().to_string();
    let mut command = Command::new(binary().unwrap());
    command.args(question.iter().map(|argument| if *argument == "PID" { pid.as_str() } else { argument }));
    command.env("GOPS_PROBE_WITHOUT_TABLES", minor.to_string());
    let stderr = String::from_utf8(command.output().unwrap().stderr).unwrap();
    stderr.contains("labels are left out of headers")
}

/// A dump without labels.
fn without_labels(answer: Answer) -> Answer {
    let line = |line: &str| match line.split_once("] {").filter(|_| line.starts_with("goroutine ")) {
        Some((head, _)) => format!("{head}]:\n"),
        None => format!("{line}\n"),
    };
    match answer {
        Answer::Right(text) => Answer::Right(text.lines().map(line).collect()),
        other => other,
    }
}

/// The answer without the tables, which is refused or that which the tables give before or after.
fn compared(fixture: &Fixture, question: &[&str], minor: u32, file: &Path) -> Answer {
    let mut wrong = String::new();
    let told = leaves_labels_out(fixture, question, minor);
    for _ in 0..TRIES {
        let ask = |without| {
            let answer = ask(fixture, question, without, file);
            if told { without_labels(answer) } else { answer }
        };
        let (before, without, after) = (ask(None), ask(Some(minor)), ask(None));
        assert!(!matches!(before, Answer::Refused(_)), "{question:?}: {before:?}");
        if matches!(without, Answer::Refused(_)) || same(&without, &before) || same(&without, &after) {
            return without;
        }
        wrong = format!("with tables {before:#?}\nwithout {without:#?}");
    }
    panic!("{question:?} is answered otherwise without the tables of 1.{minor}: {wrong}")
}

#[test]
fn what_is_not_known_is_refused() {
    // Only unpublished builds can be told to do without tables.
    if std::env::var_os("GOPS_PROBE_BIN").is_some() {
        say("untabled: skipped, as GOPS_PROBE_BIN may be a build that always has its tables");
        return;
    }
    let cells: Vec<Cell> = RELEASES
        .iter()
        .flat_map(|toolchain| PROGRAMS.map(|program| Cell::new(toolchain, Variant::Stripped, program)))
        .collect();
    build::build(&cells, 2, &|_, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answer");
    let mut rows: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    for cell in &cells {
        let mut fixture = Fixture::spawn(cell, &[], &[("GOGC", "off")]).unwrap();
        if cell.program == Program::Profiles {
            for order in ["rates 1 1", "contend", "allocate 3", "gc"] {
                fixture.order(order).unwrap();
            }
        }
        // The variable is heeded, or nothing is tested here.
        let (with, without) = (layout(&fixture, None), layout(&fixture, Some(cell.minor())));
        assert!(with.contains("this very release"), "{cell}: {with}");
        assert!(without.contains("neighbouring release"), "{cell}: {without}");
        for (number, question) in QUESTIONS.iter().enumerate() {
            let answer = compared(&fixture, question, cell.minor(), &file);
            // How many buckets such a program has, and whether they tell their form, depends on the machine.
            let few = cell.program == Program::States
                && question[0].starts_with("pprof-")
                && question[0] != "pprof-goroutine";
            let text = match &answer {
                _ if few => "compared only".to_owned(),
                Answer::Right(_) => "answered".to_owned(),
                Answer::Off => "is off".to_owned(),
                Answer::Refused(why) => {
                    assert!(
                        why.contains("1.")
                            || why.contains("profile buckets")
                            || why.contains("not known")
                            || why.contains("not found"),
                        "{why}"
                    );
                    "refused".to_owned()
                }
            };
            say(&format!("untabled: {cell} {question:?}: {text}"));
            let name = question.iter().filter(|word| !matches!(**word, "--format" | "text" | "-o" | "FILE"));
            let name: Vec<&str> = name.copied().collect();
            rows.entry((number, name.join(" "))).or_default().push(text);
        }
        fixture.assert_untouched().unwrap();
    }
    let page = page(&cells, &rows);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/untabled.md");
    if std::env::var_os("UPDATE_UNTABLED").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), page, "UPDATE_UNTABLED=1 writes it");
}

fn layout(fixture: &Fixture, without: Option<u32>) -> String {
    match ask(fixture, &["stack", "--json", "PID"], without, Path::new("/nonexistent/file")) {
        Answer::Right(text) => text,
        Answer::Refused(why) => panic!("{why}"),
        Answer::Off => panic!("{fixture:?}"),
    }
}

fn page(cells: &[Cell], rows: &BTreeMap<(usize, String), Vec<String>>) -> String {
    let mut page = String::from(
        "# Releases without tables\n\nWritten by the test `untabled` with `UPDATE_UNTABLED=1`. The tables of a minor \
         release are taken away, as if it had\ncome out today. Stripped programs of it are then asked with the tables of \
         the minor beside it, and what is answered is\ncompared with what the release's own tables say: the same text, \
         or exit code 6.\n\n| question |",
    );
    for cell in cells {
        let _ = write!(page, " go{}, `{}` |", cell.toolchain, cell.program);
    }
    let _ = write!(page, "\n|---|{}\n", "---|".repeat(cells.len()));
    for ((_, name), answers) in rows {
        let _ = writeln!(page, "| `{name}` | {} |", answers.join(" | "));
    }
    page
}
