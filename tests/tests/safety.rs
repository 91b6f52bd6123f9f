//! The target is sacred: whatever happens to it or to us while we look at it, it goes on as if nobody had.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Variant, binary, build, native, probe};
use inspector::process::Process;
use inspector::runtime::open::open;
use inspector::runtime::snapshot::{self, Frames, Pause, Snapshot, SnapshotOptions};
use inspector::stop::{StopOutcome, Stopped};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Dumps of a busy server in full.
const DUMPS: usize = 1000;
/// gops-probe processes killed in full.
const KILLS: usize = 200;

fn cell(program: Program) -> Cell {
    let cell = Cell::new(NEWEST, Variant::Stripped, program);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    cell
}

fn server() -> Fixture {
    Fixture::spawn(&cell(Program::HttpServer), &[], &[]).unwrap()
}

/// A server and a client that keeps it busy with eight requests at a time.
fn busy() -> (Fixture, Fixture) {
    let mut server = server();
    let address = server.command("address").unwrap();
    let address = address.strip_prefix("address ").unwrap();
    let client = Fixture::spawn(&cell(Program::HttpServer), &["-client", address], &[]).unwrap();
    (server, client)
}

/// Checks that no request failed so far; returns how many were answered.
fn served(server: &mut Fixture, client: &mut Fixture) -> u64 {
    let mut done = 0;
    for fixture in [server, client] {
        let counts = fixture.command("counts").unwrap();
        let words: Vec<&str> = counts.split(' ').collect();
        assert_eq!(words[2], "0", "{counts}");
        done = words[1].parse().unwrap();
    }
    done
}

fn number(fixture: &mut Fixture, question: &str) -> u64 {
    fixture.command(question).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

fn pid(fixture: &Fixture) -> Pid {
    Pid::from_raw(i32::try_from(fixture.pid()).unwrap())
}

const DEFAULT: Pause = Pause::AtMost(Duration::from_millis(20));
const MODES: [Pause; 3] = [DEFAULT, Pause::AtMost(Duration::from_micros(200)), Pause::No];

/// Attaches, dumps, detaches.
fn dump(fixture: &Fixture, pause: Pause) -> Snapshot {
    let process = fixture.pinned().unwrap();
    let (view, _) = open(&process).unwrap();
    snapshot::take(&process, &view, &SnapshotOptions { pause, system: false, goid: None }).unwrap()
}

/// Dumps in all modes, one after the other, until it is told to stop; returns how often.
fn dump_until(stop: &AtomicBool, target: u32) -> usize {
    let process = Process::pin(target.to_string().parse().unwrap()).unwrap();
    let (view, _) = open(&process).unwrap();
    let mut dumps = 0;
    while !stop.load(Ordering::Relaxed) {
        let pause = MODES[dumps % 3];
        snapshot::take(&process, &view, &SnapshotOptions { pause, system: false, goid: None }).unwrap();
        dumps += 1;
    }
    dumps
}

/// How many goroutines have frames, and how many are proven.
fn counted(snapshot: &Snapshot) -> (usize, usize) {
    let slots = snapshot.slots.iter().filter(|slot| matches!(slot.frames, Frames::Walked(_)));
    (slots.clone().count(), slots.filter(|slot| slot.confirmed).count())
}

/// The states of all threads, and whether one is traced.
fn states(pid: u32) -> (String, bool) {
    let (mut states, mut traced) = (String::new(), false);
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        states.extend(field("State:").and_then(|state| state.chars().next()));
        traced |= field("TracerPid:").is_some_and(|tracer| tracer != "0");
    }
    (states, traced)
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_busy_server_serves_on_while_it_is_dumped() {
    let (mut server, mut client) = busy();
    let before = served(&mut server, &mut client);
    let mut repetitions = Repetitions::new("safety", "attach, dump, detach on a busy server", DUMPS);
    let mut longest = Duration::ZERO;
    while repetitions.another() {
        let mode = MODES[usize::try_from(repetitions.random(3)).unwrap()];
        let snapshot = dump(&server, mode);
        assert!(counted(&snapshot).0 > 8, "seed {}", repetitions.seed());
        longest = longest.max(snapshot.stopped);
        server.assert_untouched().unwrap();
    }
    let requests = served(&mut server, &mut client) - before;
    repetitions.report(&json!({
        "requests": requests, "failed_requests": 0, "longest_stop_us": longest.as_micros() as u64,
    }));
    assert!(requests > 0);
}

#[test]
fn killed_at_any_moment_we_leave_nothing_behind() {
    let (mut server, mut client) = busy();
    let before = served(&mut server, &mut client);
    let start = || {
        let mut command = Command::new(binary().unwrap());
        command.args(["stack", &server.pid().to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let begun = Instant::now();
    start().wait().unwrap();
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let mut repetitions = Repetitions::new("safety", "gops-probe killed by SIGKILL", KILLS);
    let mut in_time = 0;
    let mut moments = Vec::new();
    while repetitions.another() {
        let mut ours = {
            let mut command = Command::new(binary().unwrap());
            command.args(["stack", &server.pid().to_string()]);
            if repetitions.random(4) == 0 {
                command.arg("--no-pause");
            }
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        if repetitions.random(2) == 0 {
            // In the stop itself: as soon as the target says that it is traced.
            let begun = Instant::now();
            while !states(server.pid()).1 && begun.elapsed() < Duration::from_micros(2 * whole) {}
            moments.push(states(server.pid()).1);
        } else {
            std::thread::sleep(Duration::from_micros(repetitions.random(whole + whole / 8)));
        }
        in_time += usize::from(ours.try_wait().unwrap().is_none());
        ours.kill().unwrap();
        ours.wait().unwrap();
        server.assert_untouched().unwrap();
    }
    let requests = served(&mut server, &mut client) - before;
    repetitions.report(&json!({
        "killed_before_the_end": in_time, "seen_tracing": moments.iter().filter(|&&m| m).count(),
        "requests": requests, "failed_requests": 0,
    }));
    assert!(in_time * 3 > repetitions.done() && requests > 0);
}

#[test]
fn a_stopped_target_is_dumped_and_stays_stopped() {
    let mut server = server();
    let reference = counted(&dump(&server, DEFAULT)).0;
    for mode in MODES {
        kill(pid(&server), Signal::SIGSTOP).unwrap();
        let all_stopped = |states: &str| states.chars().all(|state| state == 'T');
        wait_until("it does not stop", || all_stopped(&states(server.pid()).0));
        for _ in 0..3 {
            let snapshot = dump(&server, mode);
            let (walked, confirmed) = counted(&snapshot);
            assert!(
                walked + 2 >= reference && confirmed == walked,
                "{mode:?}: {walked} of {reference}, {confirmed}"
            );
            // A thread that was let go reports its stop again on its own.
            wait_until("it does not stay stopped", || {
                states(server.pid()) == ("T".repeat(states(server.pid()).0.len()), false)
            });
            std::thread::sleep(Duration::from_millis(5));
            let (states, traced) = states(server.pid());
            assert!(all_stopped(&states) && !traced, "{mode:?}: {states}, traced: {traced}");
        }
        kill(pid(&server), Signal::SIGCONT).unwrap();
        server.assert_untouched().unwrap();
    }
}

/// A cgroup of version 2 of our own, removed when dropped.
struct Cgroup {
    root: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    fn new() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let root = root.ok_or("no cgroup2 is mounted")?;
        let path = root.join(format!("gops-probe-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let cgroup = Self { root, path };
        if cgroup.path.join("cgroup.freeze").exists() { Ok(cgroup) } else { Err("no freezer".to_owned()) }
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    fn is_frozen(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.freeze"), "0");
        for pid in fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_frozen_target_is_dumped_and_stays_frozen() {
    let cgroup = match Cgroup::new() {
        Ok(cgroup) => cgroup,
        Err(why) => {
            say(&format!("NOT TESTED: a target frozen by its cgroup: {why}"));
            return;
        }
    };
    let mut server = server();
    let reference = counted(&dump(&server, DEFAULT)).0;
    Cgroup::write(&cgroup.path.join("cgroup.procs"), &server.pid().to_string());
    Cgroup::write(&cgroup.path.join("cgroup.freeze"), "1");
    wait_until("it does not freeze", || cgroup.is_frozen());
    for mode in MODES {
        let (walked, confirmed) = counted(&dump(&server, mode));
        assert!(
            walked + 2 >= reference && confirmed == walked,
            "{mode:?}: {walked} of {reference}, {confirmed}"
        );
        wait_until("it does not stay frozen", || cgroup.is_frozen());
        assert!(!states(server.pid()).1, "{mode:?}: it is traced");
    }
    Cgroup::write(&cgroup.path.join("cgroup.freeze"), "0");
    server.assert_untouched().unwrap();
}

#[test]
fn two_at_once_take_turns() {
    let mut server = server();
    let pid = server.pid().to_string();
    let mut repetitions = Repetitions::new("safety", "two gops-probes at once", 100);
    while repetitions.another() {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let output = probe(&["stack", &pid]).unwrap();
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{}: {stderr}", output.status);
                    assert!(output.stdout.starts_with(b"goroutine "));
                });
            }
        });
        server.assert_untouched().unwrap();
    }
    repetitions.report(&json!({}));
}

#[test]
fn another_tracer_is_named_and_reading_works() {
    let mut server = server();
    let (ready, is_ready) = channel();
    let (end, ended) = channel::<()>();
    let target = server.pid();
    let tracer = std::thread::spawn(move || {
        for task in fs::read_dir(format!("/proc/{target}/task")).unwrap().flatten() {
            let tid = task.file_name().to_str().unwrap().parse().unwrap();
            ptrace::seize(Pid::from_raw(tid), ptrace::Options::empty()).unwrap();
        }
        ready.send(()).unwrap();
        // The kernel lets go what a thread traces when the thread ends.
        let _ = ended.recv();
    });
    is_ready.recv().unwrap();
    let output = probe(&["stack", &target.to_string()]).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains(&std::process::id().to_string()), "{stderr}");
    assert!(stderr.contains("--no-pause"), "{stderr}");
    let output = probe(&["stack", "--no-pause", &target.to_string()]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 7)), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("main.main()") && text.contains("[chan receive"), "{text}");
    drop(end);
    tracer.join().unwrap();
    server.assert_untouched().unwrap();
}

#[test]
fn a_target_may_end_while_it_is_dumped() {
    let parked = cell(Program::Parked);
    let mut repetitions = Repetitions::new("safety", "the target ends during a dump", 100);
    let mut exits = std::collections::BTreeMap::new();
    while repetitions.another() {
        let fixture = Fixture::spawn(&parked, &["-n", "3000"], &[]).unwrap();
        let mut command = Command::new(binary().unwrap());
        let arguments: &[&str] =
            if repetitions.random(3) == 0 { &["stack", "--no-pause"] } else { &["stack"] };
        command.args(arguments).arg(fixture.pid().to_string());
        let ours = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(repetitions.random(40_000)));
        drop(fixture);
        let output = ours.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{:?}, seed {}: {stderr}", output.status, repetitions.seed());
        *exits.entry(format!("exit {}", code.unwrap_or(-1))).or_insert(0) += 1;
    }
    repetitions.report(&json!(exits));
}

#[test]
fn a_target_may_execute_another_program_while_it_is_dumped() {
    let mut server = server();
    let mut repetitions = Repetitions::new("safety", "the target calls exec during a dump", 100);
    let mut exits = std::collections::BTreeMap::new();
    while repetitions.another() {
        let mut command = Command::new(binary().unwrap());
        let arguments: &[&str] =
            if repetitions.random(3) == 0 { &["stack", "--no-pause"] } else { &["stack"] };
        command.args(arguments).arg(server.pid().to_string());
        let ours = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(repetitions.random(20_000)));
        assert!(server.command("exec").unwrap().starts_with("dumper "));
        assert!(server.line("exec").unwrap().starts_with("ready "));
        let output = ours.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        // The new program is Go too, so it may be the one that was looked at.
        assert!(matches!(code, Some(0 | 3)), "{:?}, seed {}: {stderr}", output.status, repetitions.seed());
        *exits.entry(format!("exit {}", code.unwrap_or(-1))).or_insert(0) += 1;
        server.assert_untouched().unwrap();
    }
    repetitions.report(&json!(exits));
}

#[test]
fn a_target_of_many_threads_may_execute_another_program_while_they_are_seized() {
    let build =
        native::Build { source: native::Source::Successor, pointers: true, symbols: native::Symbols::Inside };
    let mut target = Fixture::start(Command::new(build.program().unwrap())).unwrap();
    let mut repetitions = Repetitions::new("safety", "exec while threads are seized", 8000);
    let stop = AtomicBool::new(false);
    let (stopped, mut failed) = (AtomicU64::new(0), 0u64);
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        let (pid, stop, stopped, failed) = (pid(&target), &stop, &stopped, &mut failed);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match Stopped::all_threads(pid.as_raw(), Duration::from_millis(500)) {
                    Ok(_) => {
                        stopped.fetch_add(1, Ordering::Relaxed);
                    }
                    // Threads that end just now cannot be seized; whoever asks for a dump tries again.
                    Err(_) => *failed += 1,
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let mut answers = || -> fixtures::Result<()> {
            // In some runs few stops succeed, and one without any shows nothing: it goes on until there is one.
            let given_up = Instant::now() + Duration::from_secs(60);
            let wanted = || stopped.load(Ordering::Relaxed) == 0 && Instant::now() < given_up;
            while repetitions.another() || wanted() {
                std::thread::sleep(Duration::from_micros(repetitions.random(2000)));
                let begun = Instant::now();
                target.command("exec")?;
                target.line("exec")?;
                longest = longest.max(begun.elapsed());
            }
            Ok(())
        };
        let answers = answers();
        stop.store(true, Ordering::Relaxed);
        answers.unwrap();
    });
    let stopped = stopped.into_inner();
    assert!(stopped > 0);
    let longest = longest.as_millis();
    repetitions.report(&json!({ "stops": stopped, "failed": failed, "longest_exec_ms": longest }));
    target.assert_untouched().unwrap();
}

#[test]
fn signals_that_come_while_it_is_stopped_are_not_lost() {
    let mut server = server();
    let mut repetitions = Repetitions::new("safety", "a signal at a time, while dumps go on", 4000);
    let stop = AtomicBool::new(false);
    let mut dumps = 0;
    std::thread::scope(|scope| {
        let target = server.pid();
        let (stop, dumps) = (&stop, &mut dumps);
        scope.spawn(move || *dumps = dump_until(stop, target));
        // The runtime's own signal, in between.
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                kill(Pid::from_raw(i32::try_from(target).unwrap()), Signal::SIGURG).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let mut expected = number(&mut server, "signals");
        let mut failure = None;
        while failure.is_none() && repetitions.another() {
            // The kernel keeps one of a kind waiting, so the next comes when this one has arrived.
            kill(pid(&server), Signal::SIGUSR1).unwrap();
            expected += 1;
            let begun = Instant::now();
            while number(&mut server, "signals") != expected {
                if begun.elapsed() > Duration::from_secs(10) {
                    failure = Some(format!("signal {expected} is lost"));
                    break;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failure, None);
    });
    repetitions.report(&json!({ "dumps_meanwhile": dumps, "lost": 0 }));
    server.assert_untouched().unwrap();
}

#[test]
fn signals_to_each_thread_are_not_lost() {
    let (mut server, mut client) = busy();
    let mut repetitions = Repetitions::new("safety", "a system call on each thread, while dumps go on", 4000);
    let stop = AtomicBool::new(false);
    let mut dumps = 0;
    std::thread::scope(|scope| {
        let target = server.pid();
        let (stop, dumps) = (&stop, &mut dumps);
        scope.spawn(move || *dumps = dump_until(stop, target));
        let mut answers = Ok(());
        while answers.is_ok() && repetitions.another() {
            // The runtime waits for each thread to have had its signal, and never ends where one is lost.
            answers = server.order("everywhere");
        }
        stop.store(true, Ordering::Relaxed);
        answers.unwrap();
    });
    repetitions.report(&json!({ "dumps_meanwhile": dumps, "lost": 0 }));
    served(&mut server, &mut client);
    server.assert_untouched().unwrap();
}

/// Not a test of its own: holds a target most of the time, in a process that is killed.
#[test]
fn holder() {
    let Ok(target) = std::env::var("GOPS_PROBE_HOLD") else { return };
    let target = target.parse().unwrap();
    loop {
        let stopped = Stopped::all_threads(target, Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(1));
        drop(stopped);
    }
}

#[test]
fn signals_are_not_lost_when_who_holds_it_is_killed() {
    let (mut server, mut client) = busy();
    let mut repetitions = Repetitions::new("safety", "tracer killed amid system calls on each thread", 1000);
    let stop = AtomicBool::new(false);
    let mut calls = 0u64;
    std::thread::scope(|scope| {
        let target = server.pid().to_string();
        let (stop, calls, server) = (&stop, &mut calls, &mut server);
        let caller = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                server.order("everywhere")?;
                *calls += 1;
            }
            Ok::<_, fixtures::Error>(())
        });
        while repetitions.another() && !caller.is_finished() {
            let mut holder = Command::new(std::env::current_exe().unwrap());
            holder.args(["--exact", "holder"]).env("GOPS_PROBE_HOLD", &target);
            let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(5_000 + repetitions.random(20_000)));
            holder.kill().unwrap();
            holder.wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        caller.join().unwrap().unwrap();
    });
    repetitions.report(&json!({ "calls": calls, "lost": 0 }));
    served(&mut server, &mut client);
    server.assert_untouched().unwrap();
}

#[test]
fn children_are_started_while_it_is_dumped() {
    let mut server = server();
    let mut repetitions = Repetitions::new("safety", "dumps of a target that starts children by vfork", 1000);
    let (mut ordered, mut started, mut overlapping) = (0, 0, 0);
    while repetitions.another() {
        if started == ordered {
            ordered += 20;
            server.order("fork 20").unwrap();
        }
        let mode = MODES[usize::try_from(repetitions.random(3)).unwrap()];
        assert!(counted(&dump(&server, mode)).0 > 3);
        let now = number(&mut server, "forked");
        overlapping += usize::from(now != started);
        started = now;
    }
    wait_until("children are missing", || number(&mut server, "forked") == ordered);
    repetitions.report(&json!({ "children": ordered, "dumps_that_met_some": overlapping }));
    assert_eq!(server.command("counts").unwrap().split(' ').nth(2), Some("0"));
    server.assert_untouched().unwrap();
}

#[test]
fn one_that_is_late_in_passing_is_let_go_when_it_comes() {
    let build =
        native::Build { source: native::Source::Forker, pointers: true, symbols: native::Symbols::Inside };
    let mut command = Command::new(build.program().unwrap());
    command.arg("500");
    let mut target = Fixture::start(command).unwrap();
    // The first one that was started.
    let threads = inspector::stop::threads(pid(&target).as_raw()).unwrap();
    let forker = threads.iter().copied().find(|&tid| tid != pid(&target).as_raw()).unwrap();
    let mut late = 0;
    for _ in 0..4 {
        let passing =
            Stopped::one_in_passing(pid(&target).as_raw(), forker, Duration::from_millis(5)).unwrap();
        match passing {
            StopOutcome::Pending(mut thread) => {
                assert_eq!(thread.tid(), forker);
                late += 1;
                wait_until("the thread is let go", || thread.is_over());
            }
            // Between two forks. Else it is held until the end of this round.
            StopOutcome::Stopped(thread) => drop(thread),
        }
        target.assert_untouched().unwrap();
    }
    assert!(late > 0);
}

#[test]
fn nobody_waits_stopped_for_a_thread_that_is_late() {
    /// Far below the 200 ms for which the thread cannot stop.
    const HOLD: Duration = Duration::from_millis(20);
    let build =
        native::Build { source: native::Source::Forker, pointers: true, symbols: native::Symbols::Inside };
    let mut target = Fixture::start(Command::new(build.program().unwrap())).unwrap();
    let mut repetitions = Repetitions::new("safety", "stops of a target with a thread that is late", 200);
    let (mut late, mut ticks_meanwhile) = (0u64, 0);
    while repetitions.another() {
        std::thread::sleep(Duration::from_micros(repetitions.random(200_000)));
        let before = number(&mut target, "ticks");
        let begun = Instant::now();
        let stopped = Stopped::all_threads(pid(&target).as_raw(), HOLD).unwrap();
        let took = begun.elapsed();
        let (states, _) = states(target.pid());
        stopped.thaw();
        assert_eq!(states, "ttt", "seed {}", repetitions.seed());
        let ticks = number(&mut target, "ticks") - before;
        if took > 4 * HOLD {
            late += 1;
            ticks_meanwhile += ticks;
            assert!(ticks > 1, "seed {}: held for {took:?}", repetitions.seed());
        }
        target.assert_untouched().unwrap();
    }
    repetitions.report(&json!({ "late": late, "ticks_meanwhile": ticks_meanwhile }));
    assert!(late > 0);
}
