//! Each fixture program does what tests rely on.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::{Duration, Instant};

use fixtures::{Cell, Dump, Fixture, Program, build, compare};

/// Builds of a program in the selection that `GOPS_PROBE_MATRIX` names.
fn ready(program: Program) -> Vec<Cell> {
    let cells = build::selected(program).unwrap();
    assert!(!cells.is_empty());
    cells
}

#[test]
fn cgo_is_parked_on_both_sides_of_the_border() {
    for cell in ready(Program::Cgo) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let first = Dump::parse(&fixture.dump().unwrap());
        let second = Dump::parse(&fixture.dump().unwrap());
        assert!(compare(&first, &second, &first, fixture.dumper()).accepted(), "{cell}");
        let inside = first.goroutines.iter().filter(|goroutine| goroutine.text.contains("_Cfunc_block"));
        assert!(inside.count() >= 8, "{cell}");
        let callbacks = first.goroutines.iter().filter(|goroutine| goroutine.text.contains("main.goPark"));
        assert!(callbacks.count() >= 8, "{cell}");
        assert!(fixture.command("start c 2").unwrap().starts_with("ok "));
        fixture.ping().unwrap();
        fixture.order("stop").unwrap();
        fixture.assert_untouched().unwrap();
    }
}

/// Whether a function of a dump is one that a list allows, where `*` stands for any ending.
fn allowed(list: &[&str], function: &str) -> bool {
    list.iter().any(|name| match name.strip_suffix('*') {
        Some(start) => function.starts_with(start),
        None => *name == function,
    })
}

#[test]
fn running_goroutines_stay_in_known_functions() {
    for cell in ready(Program::Running) {
        let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let list = fixture.command("list").unwrap();
        for situation in list.strip_prefix("list ").unwrap().split(',') {
            let known = fixture.command(&format!("known {situation}")).unwrap();
            let known: Vec<&str> = known.rsplit(' ').next().unwrap().split(',').collect();
            assert!(fixture.command(&format!("edges {situation}")).unwrap().starts_with("edges "));
            let started = fixture.command(&format!("start {situation} 2")).unwrap();
            assert_eq!(started.strip_prefix("ok ").unwrap().split(',').count(), 2);
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(200) {
                let dump = Dump::parse(&fixture.dump().unwrap());
                for goroutine in &dump.goroutines {
                    let frames = goroutine.frames();
                    if !goroutine.text.contains(known[1]) {
                        continue;
                    }
                    // Told its number, and is waiting for the next step.
                    let telling = |name: &str| name.contains("/proto.") || name.starts_with("runtime.");
                    for frame in frames.iter().filter(|frame| !frame.creator && !telling(&frame.function)) {
                        assert!(allowed(&known, &frame.function), "{cell}: {situation}\n{}", goroutine.text);
                    }
                }
            }
            fixture.order("stop").unwrap();
        }
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn churn_churns_and_answers() {
    for cell in ready(Program::Churn) {
        let mut fixture = Fixture::spawn(&cell, &["-workers", "500"], &[]).unwrap();
        let turns = |fixture: &mut Fixture| -> u64 {
            fixture.command("counts").unwrap().split(' ').nth(1).unwrap().parse().unwrap()
        };
        let before = turns(&mut fixture);
        for _ in 0..20 {
            fixture.ping().unwrap();
            assert!(Dump::parse(&fixture.dump().unwrap()).goroutines.len() > 100);
        }
        while turns(&mut fixture) < before + 500 {
            fixture.ping().unwrap();
        }
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn parked_tells_durations_and_stalls() {
    for cell in [ready(Program::Parked), ready(Program::Agent)].concat() {
        let arguments = ["-n", "2000", "-stack", "8192", "-wakeups", "1000", "-alloc", "10"];
        // The agent writes its port file below the configuration folder.
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        let mut fixture = Fixture::spawn(&cell, &arguments, &[("GOPS_CONFIG_DIR", folder)]).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(fixture.pid()).unwrap());
        fixture.order("reset").unwrap();
        nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        assert!(fixture.assert_untouched().unwrap_err().to_string().contains("State"));
        nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
        let stall = fixture.command("stall").unwrap();
        let longest: u64 = stall.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(longest > 30_000_000, "{cell}: {stall}");
        for question in ["stack", "goroutine 0", "goroutine 1", "goroutine 2"] {
            let answer = fixture.command(question).unwrap();
            let mut words = answer.split(' ').skip(1).map(|word| word.parse::<u64>().unwrap());
            assert!(words.next().unwrap() > 0 && words.next().unwrap() > 100, "{cell}: {answer}");
        }
        if cell.program == Program::Agent {
            assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        }
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn requests_are_served_and_counted() {
    for cell in ready(Program::HttpServer) {
        let mut server = Fixture::spawn(&cell, &[], &[]).unwrap();
        let address = server.command("address").unwrap();
        let address = address.strip_prefix("address ").unwrap();
        let mut client = Fixture::spawn(&cell, &["-client", address], &[]).unwrap();
        loop {
            let counts = client.command("counts").unwrap();
            let counts: Vec<&str> = counts.split(' ').collect();
            assert_eq!(counts[2], "0", "{counts:?}");
            if counts[1].parse::<u64>().unwrap() > 100 {
                break;
            }
        }
        client.assert_untouched().unwrap();
        server.assert_untouched().unwrap();
    }
}
