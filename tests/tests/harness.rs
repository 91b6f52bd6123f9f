//! The harness itself, on real fixtures: a target compared with its own dumps is always the same.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::{Cell, Dump, Fixture, Program, Selection, Variant, build, compare, matrix};

/// Fixtures of the quick selection; building them again costs nothing.
fn ready(variants: &[Variant], program: Program) -> Vec<Cell> {
    let cells: Vec<Cell> = matrix::cells(Selection::Quick)
        .into_iter()
        .filter(|cell| {
            cell.program == program && (cell.variant == Variant::Stripped || variants.contains(&cell.variant))
        })
        .collect();
    build::build(&cells, 2, &|_, _| ()).unwrap();
    cells
}

#[test]
fn a_parked_target_says_the_same_twice() {
    for cell in ready(&Variant::ALL, Program::States) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        fixture.order("gc").unwrap();
        let first = Dump::parse(&fixture.dump().unwrap());
        let second = Dump::parse(&fixture.dump().unwrap());
        let comparison = compare(&first, &second, &first, fixture.dumper());
        assert!(comparison.accepted(), "{cell}: {comparison:#?}");
        assert!(comparison.moved.is_empty(), "{cell}: {comparison:#?}");
        assert!(comparison.equal > 100, "{cell}: {}", comparison.equal);
        assert!(first.goroutine(fixture.dumper()).is_some());
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn goroutines_can_be_kept_from_running() {
    for cell in ready(&[], Program::States) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        fixture.order("neverrun 10").unwrap();
        for _ in 0..3 {
            fixture.ping().unwrap();
            let dump = Dump::parse(&fixture.dump().unwrap());
            let waiting = dump.goroutines.iter().filter(|goroutine| goroutine.header.status == "runnable");
            assert_eq!(waiting.count(), 10, "{cell}");
        }
        fixture.order("release").unwrap();
        fixture.order("spin 2").unwrap();
        fixture.order("unspin").unwrap();
        fixture.assert_untouched().unwrap();
    }
}
