//! gops-probe is stopped itself, or has to wait: nothing that it holds or has changed waits with it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST, QUICK};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Variant, binary, build};
use inspector::change::verified::VerifiedRuntime;
use inspector::stop::Stopped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Only ends hung tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// The oldest release, the newest, and one between.
const FEW: [&str; 3] = QUICK;

fn start(
    version: &'static str,
    program: Program,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Fixture {
    let cell = Cell::new(version, Variant::Stripped, program);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, arguments, environment).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for the end of a process, without letting it go on where it is stopped.
fn end_of(child: &mut Child) -> std::process::ExitStatus {
    let mut status = None;
    wait_until("it does not end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The longest time that the target's own clock has stood still since it was reset, in milliseconds.
fn stall(target: &mut Fixture) -> u64 {
    let said = target.command("stall").unwrap();
    said.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// Not a test of its own: holds a target, and is stopped meanwhile.
#[test]
fn holder_that_is_stopped() {
    let Ok(target) = std::env::var("GOPS_PROBE_HOLD") else { return };
    let _held = Stopped::all_threads(target.parse().unwrap(), Duration::from_millis(20)).unwrap();
    nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
}

#[test]
fn threads_go_on_when_who_holds_them_is_stopped() {
    let mut target = start(NEWEST, Program::Parked, &["-n", "100"], &[]);
    let mut repetitions = Repetitions::new("safety", "who holds all threads is stopped", 60);
    let mut longest = 0;
    while repetitions.another() {
        target.order("reset").unwrap();
        let mut holder = Command::new(std::env::current_exe().unwrap());
        holder.args(["--exact", "holder_that_is_stopped"]).env("GOPS_PROBE_HOLD", target.pid().to_string());
        let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(end_of(&mut holder).signal(), Some(libc::SIGKILL), "seed {}", repetitions.seed());
        longest = longest.max(stall(&mut target));
        // It was held until then.
        assert!(stall(&mut target) >= 400);
        target.assert_untouched().unwrap();
    }
    repetitions.report(&json!({ "longest_stall_of_the_target_ms": longest }));
}

#[test]
fn a_command_that_is_stopped_at_any_moment_holds_nothing() {
    let mut target = start(NEWEST, Program::Parked, &["-n", "20000", "-wakeups", "2000"], &[]);
    let pid = target.pid().to_string();
    let command = |name: &str| {
        let mut command = Command::new(binary().unwrap());
        command.args([name, &pid]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let is_traced = |pid: u32| inspector::stop::is_traced(i32::try_from(pid).unwrap());
    let mut repetitions = Repetitions::new("safety", "gops-probe stopped by SIGSTOP", 100);
    let (mut held, mut killed) = (0, 0);
    target.order("reset").unwrap();
    while repetitions.another() {
        let mut ours = command(["stack", "memstats"][usize::try_from(repetitions.random(2)).unwrap()]);
        // In the stop itself: as soon as the target says that it is traced.
        while !is_traced(target.pid()) && ours.try_wait().unwrap().is_none() {}
        std::thread::sleep(Duration::from_micros(repetitions.random(2000)));
        if ours.try_wait().unwrap().is_some() {
            continue;
        }
        signal(&ours, Signal::SIGSTOP);
        held += usize::from(is_traced(target.pid()));
        wait_until("it is held", || !is_traced(target.pid()));
        signal(&ours, Signal::SIGCONT);
        let ended = end_of(&mut ours).signal() == Some(libc::SIGKILL);
        killed += usize::from(ended);
        // Somebody else says why, and only then.
        let mut said = String::new();
        ours.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said.matches("and did not go on: it was stopped").count(), usize::from(ended), "{said}");
        target.assert_untouched().unwrap();
    }
    let longest = stall(&mut target);
    repetitions.report(&json!({
        "stopped_while_tracing": held, "ended": killed, "longest_stall_of_the_target_ms": longest,
    }));
}

/// A process in which something is changed, and where the journals of that are.
struct Changed {
    fixture: Fixture,
    state: tempfile::TempDir,
}

impl Changed {
    fn start(version: &'static str, environment: &[(&str, &str)]) -> Self {
        let fixture = start(version, Program::Collector, &[], environment);
        Changed { fixture, state: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().unwrap());
        command.args(arguments).arg(self.fixture.pid().to_string());
        command.env("GOPS_PROBE_STATE_DIR", self.state.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn mutex_rate(&mut self) -> u64 {
        let said = self.fixture.command("rates").unwrap();
        said.split_once(' ').unwrap().1.parse().unwrap()
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.state.path()).unwrap().count()
    }

    /// The guards of this process.
    fn guards(&self) -> Vec<Pid> {
        let pid = self.fixture.pid().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let guards = entries.filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            let is_guard =
                words.get(1) == Some(&&b"guard-of-change"[..]) && words.get(2) == Some(&pid.as_bytes());
            entry.file_name().to_str()?.parse().ok().filter(|_| is_guard).map(Pid::from_raw)
        });
        guards.collect()
    }

    /// Nothing is left of a change, and the process is as it should be.
    fn assert_sound(&mut self) {
        wait_until("a guard stays", || self.guards().is_empty());
        assert_eq!(self.journals(), 0);
        let said = self.fixture.command("check").unwrap();
        assert!(said.starts_with("sound "), "{said}");
        self.fixture.assert_untouched().unwrap();
    }
}

#[test]
fn a_window_ends_though_gops_probe_is_stopped() {
    for version in FEW {
        let mut changed = Changed::start(version, &[]);
        let mut ours =
            changed.command(&["pprof-mutex", "--enable", "--duration", "300ms", "-o", "/dev/null"]);
        let ours = ours.spawn().unwrap();
        wait_until("it is not switched on", || changed.mutex_rate() != 0);
        signal(&ours, Signal::SIGSTOP);
        wait_until("it stays on", || changed.mutex_rate() == 0);
        // What the program sets from now on is its own.
        signal(&ours, Signal::SIGCONT);
        let output = ours.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stderr.contains("its guard switched the profiler off"),
            "{stderr}"
        );
        assert_eq!(changed.mutex_rate(), 0);
        changed.assert_sound();
    }
}

#[test]
fn a_later_command_ends_a_window_whose_guard_is_stopped_too() {
    let mut changed = Changed::start(NEWEST, &[]);
    let mut ours = changed.command(&["pprof-mutex", "--enable", "--duration", "300ms", "-o", "/dev/null"]);
    let ours = ours.spawn().unwrap();
    wait_until("it is not switched on", || changed.mutex_rate() != 0);
    signal(&ours, Signal::SIGSTOP);
    let guards = changed.guards();
    assert_eq!(guards.len(), 1);
    for &guard in &guards {
        kill(guard, Signal::SIGSTOP).unwrap();
    }
    // It cannot be told before from one that is at work.
    wait_until("it stays on", || {
        assert!(changed.command(&["version", "--via", "probe"]).output().unwrap().status.success());
        changed.mutex_rate() == 0
    });
    for &guard in &guards {
        kill(guard, Signal::SIGCONT).unwrap();
    }
    signal(&ours, Signal::SIGCONT);
    let output = ours.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // The guard may be the first to look, and find nothing left to be done.
    let said = ["somebody else has switched it off", "its guard switched the profiler off"];
    assert!(output.status.success() && said.iter().any(|said| stderr.contains(said)), "{stderr}");
    assert_eq!(changed.mutex_rate(), 0);
    changed.assert_sound();
}

#[test]
fn gogc_is_off_again_though_gops_probe_is_stopped() {
    let mut changed = Changed::start(NEWEST, &[("GOGC", "off")]);
    let process = changed.fixture.pinned().unwrap();
    let subject = VerifiedRuntime::verify(&process).unwrap();
    let is_off = || subject.gc_percent().unwrap() < 0;
    let mut repetitions = Repetitions::new("changes", "gc with GOGC=off stopped by SIGSTOP", 40);
    let (mut on, mut without_us, mut killed, mut left) = (0, 0, 0, 0);
    // In most runs GOGC is on for a millisecond or two, and one that was never met shows nothing: it goes on until one was.
    let given_up = Instant::now() + PATIENCE;
    while repetitions.another() || (without_us == 0 && Instant::now() < given_up) {
        let mut ours = changed.command(&["gc", "--via", "probe", "--timeout", "300ms"]);
        let mut ours = ours.spawn().unwrap();
        while (0..100).all(|_| is_off()) && ours.try_wait().unwrap().is_none() {}
        if is_off() && ours.try_wait().unwrap().is_some() {
            continue;
        }
        signal(&ours, Signal::SIGSTOP);
        on += usize::from(!is_off());
        wait_until("GOGC stays on", is_off);
        signal(&ours, Signal::SIGCONT);
        let output = ours.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        without_us += usize::from(stderr.contains("was put back without it"));
        // It was stopped while it held the threads, or while it waited for the kernel, which counts as waiting too long: its own
        // watch ends it then, and nothing is tidied up either.
        let ended =
            output.status.signal() == Some(libc::SIGKILL) || stderr.contains("no answer within 300ms");
        killed += usize::from(ended);
        let is_end = ended || matches!(output.status.code(), Some(0 | 1));
        assert!(is_end, "seed {}: {:?} {stderr}", repetitions.seed(), output.status);
        assert!(is_off());
        // Ended before there was a guard, or when it had gone, it leaves its journal to the next command.
        wait_until("a guard stays", || changed.guards().is_empty());
        if ended && changed.journals() > 0 {
            left += 1;
            assert!(changed.command(&["gc", "--via", "probe"]).output().unwrap().status.success());
        }
        changed.assert_sound();
    }
    repetitions.report(&json!({
        "stopped_while_on": on, "put_back_by_the_guard": without_us, "ended": killed, "left_to_the_next_run": left,
    }));
    if without_us == 0 {
        // GOGC was off again each time, which is what counts; who did it is told by the other tests of the guard.
        say("NOT MET: gops-probe was never stopped in the moment in which GOGC is on");
    }
}

#[test]
fn changes_wait_for_their_turn() {
    let mut changed = Changed::start(NEWEST, &[]);
    let stop = AtomicBool::new(false);
    let dumps = AtomicUsize::new(0);
    let mut repetitions = Repetitions::new("changes", "setgc beside loops of stack", 220);
    std::thread::scope(|scope| {
        let (stop, dumps) = (&stop, &dumps);
        for _ in 0..3 {
            let mut stack = changed.command(&["stack"]);
            stack.stdout(Stdio::null()).stderr(Stdio::null());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    dumps.fetch_add(usize::from(stack.status().unwrap().success()), Ordering::Relaxed);
                }
            });
        }
        // Each ends in success, or it is known at the end of the loops which one did not.
        let mut failed = None;
        while failed.is_none() && repetitions.another() {
            let percent = (100 + repetitions.random(100)).to_string();
            let pid = changed.fixture.pid().to_string();
            let mut setgc = Command::new(binary().unwrap());
            setgc.args(["setgc", "--via", "probe", &pid, &percent]);
            let output = setgc.env("GOPS_PROBE_STATE_DIR", changed.state.path()).output().unwrap();
            failed = (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
    assert!(dumps.load(Ordering::Relaxed) > 0);
    repetitions.report(&json!({ "dumps_meanwhile": dumps.into_inner() }));
    changed.assert_sound();
}
