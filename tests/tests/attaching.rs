//! Attaching to a process of a program that was looked into before says what attaching to one of a new program says.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use fixtures::matrix::{Cell, Program, Selection, cells};
use fixtures::{Fixture, build};
use inspector::runtime::memstats::Sources;
use inspector::runtime::view::View;
use inspector::runtime::{known, open};

fn attach(fixture: &Fixture) -> View {
    let process = fixture.pinned().unwrap();
    open::open(&process).unwrap().0
}

/// What was found: how many goroutines and threads confirm it may differ from moment to moment.
fn found(view: &View) -> String {
    let evidence: Vec<_> = view.evidence.iter().map(|e| (e.of.clone(), e.found.clone())).collect();
    let places = [view.allgs.len, view.allgs.ptr].map(|at| at.0);
    let threads = (view.allm.map(|at| at.0), view.m.alllink, view.sigreturn, view.wrapper_id);
    let names = ["runtime.mheap_", "runtime.sched", "runtime.work", "runtime.mbuckets"];
    let located = names.map(|name| view.locate(&[name]).at(name).map(|at| at.0));
    let release = (view.version.clone(), view.fitting.clone(), view.layout, view.code);
    let size = view.table.size("runtime.mheap");
    format!("{:#?}", (evidence, places, threads, located, release, &view.unknown, size))
}

#[test]
fn a_known_program_is_as_a_new_one() {
    let selected = cells(Selection::from_environment().unwrap());
    let states: Vec<Cell> = selected.into_iter().filter(|cell| cell.program == Program::States).collect();
    build::build(&states, 2, &|_, _| ()).unwrap();
    for cell in states {
        let mut first = Fixture::spawn(&cell, &[], &[]).unwrap();
        let mut second = Fixture::spawn(&cell, &[], &[]).unwrap();
        known::forget();
        // What an answer needs besides is looked for in one of them only.
        let _ = Sources::find(&attach(&first));
        let of_known = attach(&second);
        let again = attach(&first);
        known::forget();
        let (of_new, new_again) = (attach(&second), attach(&first));
        assert_eq!(found(&of_known), found(&of_new), "{cell}");
        assert_eq!(found(&again), found(&new_again), "{cell}");
        for fixture in [&mut first, &mut second] {
            fixture.assert_untouched().unwrap();
        }
    }
}
