//! `stack --all` says what the runtime itself says under `GOTRACEBACK=system`, byte for byte: the dump of a signal
//! that kills the process is the oracle.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::dump::Goroutine;
use fixtures::repetition::say;
use fixtures::{Cell, Comparison, Fixture, Program, Selection, Variant, build, matrix, quit, stack};

fn ready(programs: &[Program]) -> Vec<Cell> {
    let selection = Selection::from_environment().unwrap();
    let cells: Vec<Cell> =
        matrix::cells(selection).into_iter().filter(|cell| programs.contains(&cell.program)).collect();
    // Loaded as a library, the runtime leaves SIGQUIT to the C program, which has no such dump.
    let cells: Vec<Cell> = cells.into_iter().filter(|cell| cell.variant != Variant::CShared).collect();
    build::build(&cells, 2, &|_, _| ()).unwrap();
    cells
}

/// Two dumps of ours, then the runtime's own.
fn compare(cell: &Cell, level: &str, options: &[&str]) -> Comparison {
    const TRIES: usize = 3;
    for last in (0..TRIES).rev() {
        let mut fixture = Fixture::spawn(cell, &[], &[("GOTRACEBACK", level)]).unwrap();
        if cell.program == Program::States {
            fixture.order("gc").unwrap();
        }
        let first = stack(fixture.pid(), options).unwrap();
        fixture.assert_untouched().unwrap();
        // The last thing that the program does, so that nothing moves until the signal.
        let second = stack(fixture.pid(), options).unwrap();
        let text = fixture.quit_dump().unwrap();
        let quit = quit::parse(&text);
        // Once in some hundred times the runtime ends before it has written most of its dump: then there is nothing to
        // compare with, and another process is asked.
        if last == 0 || quit.goroutines.len() * 2 > second.goroutines.len() {
            return quit::compare(&first, &second, &quit);
        }
        say(&format!("{cell}: the runtime's own dump was cut off:\n{text}"));
    }
    unreachable!("the last try returns")
}

#[test]
fn all_is_what_gotraceback_system_prints() {
    let mut compared = 0;
    for cell in ready(&[Program::States, Program::Cgo]) {
        let comparison = compare(&cell, "system", &["--all"]);
        assert!(comparison.accepted(), "{cell}: {comparison:#?}");
        assert!(comparison.moved.len() <= 5, "{cell}: {comparison:#?}");
        println!("{cell}: {} of {} identical", comparison.equal, comparison.total());
        compared += comparison.equal;
    }
    assert!(compared > 500, "{compared}");
}

/// Only Go 1.18 heeds a lower level than the system's when a signal kills it.
#[test]
fn the_default_is_what_gotraceback_all_prints() {
    for cell in ready(&[Program::States, Program::Cgo]).iter().filter(|cell| cell.minor() == 18) {
        let mut comparison = compare(cell, "all", &[]);
        // The goroutine of the thread that got the signal is printed with everything.
        if comparison.different.len() == 1 && comparison.different[0].expected.contains(" fp=0x") {
            comparison.different.clear();
        }
        assert!(comparison.accepted(), "{cell}: {comparison:#?}");
    }
}

/// A goroutine that runs has its real frames with us, where the runtime has none.
#[test]
fn running_goroutines_have_frames() {
    for cell in ready(&[Program::States]).iter().filter(|cell| cell.variant == Variant::Stripped) {
        let mut fixture = Fixture::spawn(cell, &[], &[("GOTRACEBACK", "system")]).unwrap();
        fixture.order("spin 1").unwrap();
        let running = running(fixture.pid());
        assert!(!running.is_empty(), "{cell}");
        for goroutine in running {
            assert!(!goroutine.frames().is_empty(), "{cell}: {}", goroutine.text);
            assert!(goroutine.text.contains(" fp=0x"), "{cell}: {}", goroutine.text);
        }
        fixture.order("unspin").unwrap();
        fixture.assert_untouched().unwrap();
    }
}

/// The goroutines that run in a process in which one always wants to. The runtime takes it off its thread for a moment each
/// 10 ms, and on a busy machine that moment may be long: then it is looked again, but not for ever.
fn running(pid: u32) -> Vec<Goroutine> {
    const LOOKS: usize = 200;
    for _ in 0..LOOKS {
        let mut goroutines = stack(pid, &["--all"]).unwrap().goroutines;
        goroutines.retain(|goroutine| goroutine.header.status == "running");
        if !goroutines.is_empty() {
            return goroutines;
        }
        std::thread::sleep(std::time::Duration::from_millis(7));
    }
    Vec::new()
}
