//! The dump of every cell of the build matrix, from outside, against the target's own.
//!
//! `GOPS_PROBE_MATRIX` selects how much: `quick` (the default), `spread` or `full`. Results are
//! recorded; `fixtures table` makes `docs/matrix.md` of them.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::record::{Record, append};
use fixtures::{
    Cell, Comparison, Dump, Fixture, Program, Result, Selection, Variant, build, compare, matrix, quit, stack,
};

/// How often a comparison is made again where only the passing of a minute can be the difference.
const ATTEMPTS: usize = 3;

/// One way to look at a target, and what it is compared with.
struct Check {
    name: &'static str,
    /// Of `stack`.
    options: &'static [&'static str],
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
        options: &[],
        environment: &[],
        prepare: &["gc"],
        oracle: Oracle::Stack,
        applies: |_| true,
    },
    Check {
        name: "stack --no-pause",
        options: &["--no-pause"],
        environment: &[],
        prepare: &["gc"],
        oracle: Oracle::Stack,
        applies: |_| true,
    },
    Check {
        name: "stack --all against SIGQUIT",
        options: &["--all"],
        environment: &[("GOTRACEBACK", "system")],
        prepare: &[],
        oracle: Oracle::Quit,
        // Go leaves SIGQUIT to the program that loads a shared object.
        applies: |cell| cell.variant != Variant::CShared,
    },
    Check {
        name: "goroutines that never ran",
        options: &[],
        environment: &[],
        prepare: &["neverrun 20"],
        oracle: Oracle::Stack,
        applies: |cell| cell.program == Program::States && cell.variant == Variant::Stripped,
    },
    Check {
        name: "ancestors",
        options: &[],
        environment: &[("GODEBUG", "tracebackancestors=5")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| cell.program == Program::States && cell.variant == Variant::Stripped,
    },
    Check {
        name: "labels on",
        options: &[],
        environment: &[("GODEBUG", "tracebacklabels=1")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| {
            cell.program == Program::States && cell.variant == Variant::Stripped && cell.minor() >= 26
        },
    },
    Check {
        name: "labels off",
        options: &[],
        environment: &[("GODEBUG", "tracebacklabels=0")],
        prepare: &[],
        oracle: Oracle::Stack,
        applies: |cell| {
            cell.program == Program::States && cell.variant == Variant::Stripped && cell.minor() >= 27
        },
    },
];

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
                let found = stack(fixture.pid(), check.options)?;
                let after = Dump::parse(&fixture.dump()?);
                fixture.assert_untouched()?;
                compare(&before, &found, &after, fixture.dumper())
            }
            Oracle::Quit => {
                let first = stack(fixture.pid(), check.options)?;
                let second = stack(fixture.pid(), check.options)?;
                fixture.assert_untraced()?;
                let comparison = quit::compare(&first, &second, &quit::parse(&fixture.quit_dump()?));
                return Ok(Record::of(cell, check.name, &comparison));
            }
        };
        if comparison.moved.is_empty() {
            break;
        }
    }
    Ok(Record::of(cell, check.name, &comparison))
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
