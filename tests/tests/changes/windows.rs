//! Profilers that are switched on for a time.

use fixtures::matrix::{NEWEST, newest_of};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::repetition::say;
use fixtures::{Repetitions, Variant, binary};
use inspector::change::ChangeOptions;
use inspector::change::sampling::{self, Opened, Profiler};
use inspector::change::verified::VerifiedRuntime;
use inspector::process::Process;
use inspector::runtime::buckets::{Tables, read_memory};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::kills::{Victim, kill_at_random, random_instant, slay};
use super::{ChangedFixture, FEW, PATIENCE, STATE_VARIABLE, never, tried, with_candidates};

/// What a window needs, in a process that is not gops-probe itself.
fn options(interrupted: &dyn Fn() -> bool) -> ChangeOptions<'_> {
    ChangeOptions { timeout: PATIENCE, dry_run: false, interrupted, guard: binary().unwrap() }
}

/// The rates of the process: of the heap's and of the mutexes' profile.
fn rates(target: &mut ChangedFixture) -> (u64, u64) {
    let said = target.fixture.command("rates").unwrap();
    let (heap, mutex) = said.split_once(' ').unwrap();
    (heap.parse().unwrap(), mutex.parse().unwrap())
}

fn block_rate(subject: &VerifiedRuntime<'_>) -> u64 {
    sampling::rate(subject, Profiler::Block).unwrap()
}

/// A site that allocates a known number of bytes is found in the profile with about that number.
#[test]
fn what_a_window_sees() {
    const SIZE: u64 = 4096;
    for version in FEW {
        for rate in [sampling::DEFAULT_HEAP_RATE, 64 << 10] {
            let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
            // Two thousand samples: their number varies by two percent.
            let count = 2000 * rate / SIZE;
            let process = target.pinned();
            let subject = VerifiedRuntime::verify(&process).unwrap();
            let mut child = target.child("heap", rate, 60_000).spawn().unwrap();
            while rates(&mut target).0 == 0 {
                assert!(child.try_wait().unwrap().is_none());
            }
            target.fixture.order(&format!("allocate {count} {SIZE}")).unwrap();
            slay(Pid::from_raw(i32::try_from(child.id()).unwrap()));
            child.wait().unwrap();
            target.wait_for_guards();
            assert_eq!(rates(&mut target), (0, 0));
            let memory = process.memory();
            let tables = Tables::locate(&subject.view);
            let buckets = read_memory(&tables, &memory).unwrap().buckets;
            let in_allocate = |pc: u64| {
                let place = subject.view.modules.lookup(pc - 1);
                place.is_some_and(|place| place.func.name() == b"main.allocate")
            };
            let of_it =
                buckets.iter().filter(|b| b.size == SIZE && b.stack.iter().any(|&pc| in_allocate(pc)));
            let sampled: u64 = of_it.map(|bucket| bucket.counted.allocs).sum();
            // As the profile is scaled.
            let scale = 1.0 / (1.0 - (-(SIZE as f64) / rate as f64).exp());
            let ratio = sampled as f64 * scale / count as f64;
            say(&format!(
                "changes: {}: rate {rate}: {sampled} samples, {ratio:.3} of what was allocated",
                target.name
            ));
            assert!(sampled >= 1000 && (0.9..1.1).contains(&ratio), "{version} {rate}: {sampled} {ratio}");
            target.assert_sound();
        }
    }
}

/// The journals of this process go to the folder of the test that runs: see [`ChangedFixture::child`].
const CHILD: &str = "GOPS_PROBE_TEST_WINDOW";

/// Not a test by itself: opens a window on a process and has it open until it is killed, in a process of its own.
#[test]
#[ignore = "it is what other tests start"]
fn window_in_a_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let process = Process::pin(words[0].parse().unwrap()).unwrap();
    let subject = VerifiedRuntime::verify(&process).unwrap();
    let profiler = match words[1] {
        "heap" => Profiler::Heap,
        "block" => Profiler::Block,
        _ => Profiler::Mutex,
    };
    let time = Duration::from_millis(words[3].parse().unwrap());
    let Opened::Enabled(window) =
        sampling::open(&subject, profiler, words[2].parse().unwrap(), time, &options(&never)).unwrap()
    else {
        panic!("it was on already");
    };
    window.wait(time, &never).unwrap();
    let closed = window.close().unwrap();
    assert!(closed.restored.iter().all(|word| word.written && word.value == 0), "{closed:?}");
}

impl ChangedFixture {
    /// A process that opens a window for so long.
    fn child(&self, profiler: &str, rate: u64, for_ms: u64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "windows::window_in_a_child", "--ignored"]);
        command.env(CHILD, format!("{} {profiler} {rate} {for_ms}", self.fixture.pid()));
        command.env(STATE_VARIABLE, self.state.path()).env("GOPS_PROBE_BIN", binary().unwrap());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

#[test]
fn windows_of_profilers() {
    for version in tried(&with_candidates()) {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        // The linker dropped the profiler of the heap.
        assert_eq!(rates(&mut target), (0, 0), "{version}");
        for (profiler, rate, expected) in [
            ("heap", 524_288, (524_288, 0)),
            ("heap", 4096, (4096, 0)),
            ("mutex", 5, (0, 5)),
            ("block", 20_000, (0, 0)),
        ] {
            let mut child = target.child(profiler, rate, 300).spawn().unwrap();
            let deadline = Instant::now() + PATIENCE;
            let process = target.pinned();
            let subject = VerifiedRuntime::verify(&process).unwrap();
            let is_on = |target: &mut ChangedFixture| match profiler {
                "block" => block_rate(&subject) == rate,
                _ => rates(target) == expected,
            };
            while !is_on(&mut target) {
                assert!(
                    Instant::now() < deadline && child.try_wait().unwrap().is_none(),
                    "{version} {profiler}"
                );
            }
            assert_eq!(target.journals(), 1);
            assert!(child.wait().unwrap().success(), "{version} {profiler} {rate}");
            assert_eq!((rates(&mut target), block_rate(&subject)), ((0, 0), 0), "{version} {profiler}");
        }
        // A rate of the program's own is left alone.
        target.fixture.order("heaprate 1000").unwrap();
        assert!(!target.child("heap", 524_288, 10).status().unwrap().success());
        assert_eq!(rates(&mut target), (1000, 0));
        target.fixture.order("heaprate 0").unwrap();
        // And one that it sets meanwhile.
        let mut child = target.child("heap", 524_288, 400).spawn().unwrap();
        while rates(&mut target).0 == 0 {
            assert!(child.try_wait().unwrap().is_none());
        }
        target.fixture.order("heaprate 2000").unwrap();
        child.wait().unwrap();
        assert_eq!(rates(&mut target), (2000, 0));
        target.wait_for_guards();
        assert_eq!(target.journals(), 0);
        target.assert_sound();
    }
}

#[test]
fn killed_while_a_profiler_is_on() {
    for (version, profiler, rate) in [
        (newest_of(18), "heap", 524_288),
        (newest_of(24), "heap", 524_288),
        (NEWEST, "heap", 4096),
        (NEWEST, "mutex", 5),
    ] {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        target.fixture.order("busy 1").unwrap();
        for victim in [Victim::Us, Victim::Guard, Victim::Both] {
            let what = format!("{}: {profiler} at {rate} killed, {victim:?}", target.name);
            let mut repetitions = Repetitions::new("changes", what, 200);
            let (mut was_on, mut left_over) = (0, 0);
            while repetitions.another() {
                let mut child = target.child(profiler, rate, 60).spawn().unwrap();
                let window = Duration::from_millis(120);
                random_instant(&target, &mut repetitions, &mut child, window, window);
                let ours = Pid::from_raw(i32::try_from(child.id()).unwrap());
                was_on += usize::from(rates(&mut target) != (0, 0));
                let guards = target.guards();
                if !matches!(victim, Victim::Guard) {
                    slay(ours);
                }
                if !matches!(victim, Victim::Us) {
                    guards.into_iter().for_each(slay);
                }
                child.wait().unwrap();
                target.wait_for_guards();
                left_over += usize::from(target.has_left_over());
                if !matches!(victim, Victim::Both) {
                    assert_eq!(rates(&mut target), (0, 0), "{version}, seed {}", repetitions.seed());
                }
                target.look_again();
                assert_eq!(rates(&mut target), (0, 0), "{version}, seed {}", repetitions.seed());
            }
            repetitions.report(&json!({ "was_on": was_on, "left_to_the_next_run": left_over }));
        }
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

/// What `--enable` writes covers the window, also where somebody interrupts it, and has what was allocated in it.
#[test]
fn profiles_of_a_window() {
    const SIZE: u64 = 4096;
    const RATE: u64 = 64 << 10;
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        let count = 2000 * RATE / SIZE;
        let off = target.run(&["pprof-block", "PID"]);
        let said = String::from_utf8_lossy(&off.stderr);
        assert!(!off.status.success() && said.contains("--enable"), "{said}");
        let arguments =
            ["pprof-allocs", "--enable=64KiB", "--duration", "60s", "--format", "json", "-o", "-", "PID"];
        let mut command = target.command(&arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while rates(&mut target).0 != RATE {
            assert!(Instant::now() < deadline, "{version}");
        }
        target.fixture.order(&format!("allocate {count} {SIZE}")).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("what was there before is not in it"), "{stderr}");
        assert_eq!(rates(&mut target), (0, 0), "{version}");
        assert_eq!((target.journals(), target.guards().len()), (0, 0));
        let profile: Value = serde_json::from_slice(&output.stdout).unwrap();
        let function_of = |line: &Value| {
            let function = usize::try_from(line["function"].as_u64().unwrap()).unwrap();
            profile["functions"][function]["name"].as_str().unwrap().to_owned()
        };
        let passes = |sample: &Value| {
            let stack = sample["stack"].as_array().unwrap().iter();
            let locations =
                stack.map(|l| &profile["locations"][usize::try_from(l.as_u64().unwrap()).unwrap()]);
            locations
                .flat_map(|location| location["lines"].as_array().unwrap())
                .any(|line| function_of(line) == "main.allocate")
        };
        let samples = profile["samples"].as_array().unwrap().iter().filter(|sample| passes(sample));
        let bytes: i64 = samples.map(|sample| sample["values"][1].as_i64().unwrap()).sum();
        let ratio = bytes as f64 / (count * SIZE) as f64;
        say(&format!("changes: {}: --enable saw {ratio:.3} of what was allocated", target.name));
        assert!((0.9..1.1).contains(&ratio), "{version}: {ratio}");
        assert!(profile["duration_ns"].as_u64().unwrap() > 0 && profile["cost"]["bytes_written"] == 16);
        // A plain reading has nothing of it to show as its own any more, and the rate stays off.
        target.succeed(&["pprof-mutex", "--enable=2", "--duration", "50ms", "-o", "/dev/null", "PID"]);
        target.succeed(&["pprof-block", "--enable", "--duration", "50ms", "-o", "/dev/null", "PID"]);
        let process = target.pinned();
        assert_eq!(block_rate(&VerifiedRuntime::verify(&process).unwrap()), 0);
        assert_eq!(rates(&mut target), (0, 0), "{version}");
        target.assert_sound();
    }
}

#[test]
fn killed_while_a_profile_is_taken() {
    for (version, arguments) in [
        (newest_of(18), ["pprof-heap", "--enable", "--duration", "100ms", "-o", "/dev/null", "PID"]),
        (NEWEST, ["pprof-heap", "--enable=4KiB", "--duration", "100ms", "-o", "/dev/null", "PID"]),
        (newest_of(24), ["pprof-mutex", "--enable=5", "--duration", "100ms", "-o", "/dev/null", "PID"]),
    ] {
        for victim in [Victim::Us, Victim::Guard, Victim::Both] {
            let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
            kill_at_random(&mut target, &arguments, victim, |target, repetitions| {
                let seed = repetitions.seed();
                assert_eq!(rates(target), (0, 0), "{version}, seed {seed}");
            });
        }
    }
}
