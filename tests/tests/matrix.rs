//! The dump of every cell of the build matrix, from outside, against the target's own.
//!
//! `GOPS_PROBE_MATRIX` selects how much: `quick` (the default), `spread` or `full`. Results are
//! recorded; `fixtures table` makes `docs/matrix.md` of them.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::record::{Record, append};
use fixtures::{
    Cell, Comparison, Dump, Fixture, Program, Result, Selection, Variant, build, compare, matrix, probe,
};

/// How often a comparison is made again where only the passing of a minute can be the difference.
const ATTEMPTS: usize = 3;

/// One way to look at a target, and what it is compared with.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Commands to the target before it is looked at.
    prepare: &'static [&'static str],
    oracle: Oracle,
    applies: fn(&Cell) -> bool,
}

enum Oracle {
    /// `runtime.Stack`, before and after.
    Stack,
    /// What the target says when it gets SIGQUIT, which ends it.
    Quit,
}

const CHECKS: &[Check] = &[
    Check {
        name: "stack",
        arguments: &["stack"],
        environment: &[],
        prepare: &["gc"],
        oracle: Oracle::Stack,
        applies: |_| true,
    },
    Check {
        name: "stack --no-pause",
        arguments: &["stack", "--no-pause"],
        environment: &[],
        prepare: &["gc"],
        oracle: Oracle::Stack,
        applies: |_| true,
    },
    Check {
        name: "stack --all against SIGQUIT",
        arguments: &["stack", "--all"],
        environment: &[("GOTRACEBACK", "system")],
        prepare: &[],
        oracle: Oracle::Quit,
        // Go leaves SIGQUIT to the program that loads a shared object.
        applies: |cell| cell.variant != Variant::CShared,
    },
    Check {
        name: "goroutines that never ran",
        arguments: &["stack"],
        environment: &[],
        prepare: &["neverrun 20"],
        oracle: Oracle::Stack,
        applies: |cell| cell.program == Program::States && cell.variant == Variant::Stripped,
    },
    Check {
        name: "ancestors",
        arguments: &["stack"],
        environment: &[("GODEBUG", "tracebackancestors=5")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| cell.program == Program::States && cell.variant == Variant::Stripped,
    },
    Check {
        name: "labels on",
        arguments: &["stack"],
        environment: &[("GODEBUG", "tracebacklabels=1")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| {
            cell.program == Program::States && cell.variant == Variant::Stripped && cell.minor() >= 26
        },
    },
    Check {
        name: "labels off",
        arguments: &["stack"],
        environment: &[("GODEBUG", "tracebacklabels=0")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| {
            cell.program == Program::States && cell.variant == Variant::Stripped && cell.minor() >= 27
        },
    },
];

/// The dump from outside, or what went wrong.
fn look(fixture: &Fixture, check: &Check) -> Result<std::result::Result<Dump, String>> {
    let pid = fixture.pid().to_string();
    let mut arguments = check.arguments.to_vec();
    arguments.push(&pid);
    let output = probe(&arguments)?;
    if output.status.success() {
        return Ok(Ok(Dump::parse(&String::from_utf8_lossy(&output.stdout))));
    }
    Ok(Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
}

fn run(cell: Cell, check: &Check) -> Result<Record> {
    let mut fixture = Fixture::spawn(&cell, &[], check.environment)?;
    for command in check.prepare {
        fixture.order(command)?;
    }
    let mut comparison = Comparison::default();
    for _ in 0..ATTEMPTS {
        comparison = match check.oracle {
            Oracle::Stack => {
                let before = Dump::parse(&fixture.dump()?);
                let found = match look(&fixture, check)? {
                    Ok(found) => found,
                    Err(problem) => return Ok(Record::failed(cell, check.name, problem)),
                };
                let after = Dump::parse(&fixture.dump()?);
                fixture.assert_untouched()?;
                compare(&before, &found, &after, fixture.dumper())
            }
            Oracle::Quit => {
                let found = match look(&fixture, check)? {
                    Ok(found) => found,
                    Err(problem) => return Ok(Record::failed(cell, check.name, problem)),
                };
                fixture.assert_untraced()?;
                let own = Dump::parse(&fixture.quit_dump()?);
                return Ok(Record::of(cell, check.name, &against_quit(&own, &found)));
            }
        };
        if comparison.moved.is_empty() {
            break;
        }
    }
    Ok(Record::of(cell, check.name, &comparison))
}

/// Compares with what a fatal signal prints.
fn against_quit(own: &Dump, found: &Dump) -> Comparison {
    let mut own = own.clone();
    if own.goroutines.is_empty() {
        return compare(&own, found, &own, 0);
    }
    // Which thread takes the signal is the kernel's choice. Where it had nothing to run, its scheduler
    // comes first in the text, else its goroutine, out of its place.
    let taker = own.goroutines.remove(0);
    if taker.id != 0 {
        let place = found.goroutines.iter().position(|goroutine| goroutine.id == taker.id);
        own.goroutines.insert(place.unwrap_or(0).min(own.goroutines.len()), taker);
    }
    compare(&own, found, &own, 0)
}

#[test]
fn every_cell_says_from_outside_what_it_says_itself() {
    let selection = Selection::from_environment().unwrap();
    let all = matrix::cells(Selection::Full).into_iter().filter(of_this_test).count();
    let cells: Vec<Cell> = matrix::cells(selection).into_iter().filter(of_this_test).collect();
    println!("{selection:?}: {} of {all} cells; the others did not run", cells.len());
    build::build(&cells, 2, &|_, _| ()).unwrap();
    let mut failures = Vec::new();
    for &cell in &cells {
        let checks = CHECKS.iter().filter(|check| (check.applies)(&cell));
        let records: Vec<Record> = checks
            .map(|check| {
                run(cell, check).unwrap_or_else(|error| Record::failed(cell, check.name, error.to_string()))
            })
            .collect();
        append(&records).unwrap();
        for record in records {
            let verdict = if record.passed { "same" } else { "DIFFERENT" };
            println!(
                "{cell}: {}: {verdict}: {} equal, {} moved, {} different",
                record.check, record.equal, record.moved, record.different
            );
            if !record.passed {
                failures.push(format!("{cell}: {}: {}", record.check, record.problem));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
}

/// The programs that can be still, so that every goroutine can be compared.
fn of_this_test(cell: &Cell) -> bool {
    matches!(cell.program, Program::States | Program::Cgo)
}
