//! The harness itself, on real fixtures: a target compared with its own dumps is always the same.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::dump::Goroutine;
use fixtures::{Cell, Dump, Fixture, Program, Selection, Variant, build, compare, matrix};

/// Fixtures of the selection that `GOPS_PROBE_MATRIX` names; building them again costs nothing.
fn ready(variants: &[Variant], program: Program) -> Vec<Cell> {
    let cells: Vec<Cell> = matrix::cells(Selection::from_environment().unwrap())
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
        // On a busy machine the runtime may preempt the one goroutine that runs between its last safe moment and its
        // dump, and then the others have run: that is another target, not a wrong answer.
        let tries = (0..5).filter(|_| are_kept_from_running(&cell)).take(1).count();
        assert_eq!(tries, 1, "{cell}: they ran each time");
    }
}

fn are_kept_from_running(cell: &Cell) -> bool {
    const GOROUTINES: usize = 10;
    let mut fixture = Fixture::spawn(cell, &[], &[]).unwrap();
    fixture.order(&format!("neverrun {GOROUTINES}")).unwrap();
    let kept = (0..3).all(|_| {
        fixture.ping().unwrap();
        let dump = Dump::parse(&fixture.dump().unwrap());
        let waiting = dump.goroutines.iter().filter(|goroutine| goroutine.header.status == "runnable");
        waiting.count() == GOROUTINES
    });
    fixture.order("release").unwrap();
    fixture.order("spin 2").unwrap();
    fixture.order("unspin").unwrap();
    fixture.assert_untouched().unwrap();
    kept
}

#[test]
fn a_fatal_signal_names_the_same_calls() {
    let calls = |goroutine: &Goroutine| -> Vec<(String, u32)> {
        let frames = goroutine.frames().into_iter();
        // A fatal signal shows the runtime's own frames too.
        let frames = frames.filter(|frame| !frame.function.starts_with("runtime."));
        frames.map(|frame| (frame.function, frame.line)).collect()
    };
    for cell in ready(&[], Program::States) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let asked = Dump::parse(&fixture.dump().unwrap());
        let quit = Dump::parse(&fixture.quit_dump().unwrap());
        for goroutine in asked.goroutines.iter().filter(|goroutine| goroutine.id != fixture.dumper()) {
            let other = quit.goroutine(goroutine.id).unwrap_or_else(|| panic!("{cell}: {goroutine:?}"));
            assert_eq!(other.header, goroutine.header, "{cell}");
            // Frames that are left out are not the same ones where the runtime's own count as well.
            if !other.text.contains("elided") {
                // In the same order, with wrappers between them.
                let mut rest = calls(other).into_iter();
                let found = calls(goroutine).iter().all(|call| rest.any(|other| other == *call));
                assert!(found, "{cell}: {}\n{}", goroutine.text, other.text);
            }
        }
        assert!(fixture.assert_untouched().is_err());
    }
}
