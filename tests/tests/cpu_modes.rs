//! CPU samples without BPF: by perf events, and by stops of single threads. The program computes in functions whose
//! shares of the time are known.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST, QUICK};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Process as Spawned, Program, Variant, build, cpu_time, machine};
use inspector::capture::cpu::collect::Collected;
use inspector::capture::cpu::known::SampledProgram;
use inspector::capture::cpu::mode::{CaptureOptions, Loader, Mode};
use inspector::capture::cpu::perf::{self, Perf, Scope};
use inspector::capture::cpu::session::{Captured, capture};
use inspector::capture::cpu::source::{Event, Source as _};
use inspector::native::Files;
use inspector::process::Process;

/// Nobody, who may do nothing.
const NOBODY: u32 = 65534;

fn cell(toolchain: &'static str) -> Cell {
    let cell = Cell::new(toolchain, Variant::Stripped, Program::Hot);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    cell
}

fn start(toolchain: &'static str, work: &str) -> Fixture {
    let mut fixture = Fixture::spawn(&cell(toolchain), &[], &[]).unwrap();
    fixture.order(&format!("begin {work}")).unwrap();
    fixture
}

fn options(mode: Option<Mode>, rate: u32, duration: Duration) -> CaptureOptions {
    CaptureOptions {
        rate,
        duration,
        whole_system: false,
        children: false,
        by_thread: false,
        kernel_frames: false,
        mode,
        loader: Loader::default(),
    }
}

/// What was captured; `None`, and a word about it, where the kernel denies it.
fn captured(fixture: &Fixture, options: &CaptureOptions) -> Option<Captured> {
    match capture(&[fixture.pinned().unwrap()], options, &mut || ControlFlow::Continue(())) {
        Ok(captured) => Some(captured),
        Err(error) if error.to_string().contains("denies") => {
            say(&format!("NOT TESTED: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// How many samples have each function of the package main as the innermost one of that package.
fn by_function(known: &mut [SampledProgram], collected: &Collected) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (key, count) in collected.samples() {
        let view = key.known.and_then(|index| known[index].runtimes.first().map(|runtime| &runtime.view));
        let names = key.places.iter().filter_map(|place| {
            let pc = if place.exact { place.pc } else { place.pc - 1 };
            let found = view?.modules.lookup(pc)?;
            Some(String::from_utf8_lossy(found.func.name()).into_owned())
        });
        let own = names.into_iter().find(|name| name.starts_with("main.")).unwrap_or_default();
        *counts.entry(own).or_default() += count;
    }
    counts
}

/// Checks the shares of the three functions, in points of a hundred.
fn check_shares(counts: &BTreeMap<String, u64>, tolerance: f64, what: &str) {
    let of = |name: &str| counts.get(&format!("main.{name}")).copied().unwrap_or_default() as f64;
    let all = of("fifty") + of("thirty") + of("twenty");
    for (name, expected) in [("fifty", 50.0), ("thirty", 30.0), ("twenty", 20.0)] {
        let share = of(name) * 100.0 / all;
        say(&format!("{what}: {name} {share:.1} of {all}"));
        // What so few samples cannot tell: four times the standard error.
        let chance = 4.0 * (expected * (100.0 - expected) / all).sqrt();
        let tolerance = tolerance.max(chance);
        assert!((share - expected).abs() <= tolerance, "{what}: {name} {share:.1}: {counts:?}");
    }
}

fn check_rooted(collected: &Collected, what: &str) {
    let quality = collected.quality();
    say(&format!("{what}: {quality:?}"));
    assert!(quality.rooted * 100 >= quality.user * 99, "{what}: {quality:?}");
}

#[test]
fn perf_has_the_shares() {
    let _alone = machine::alone();
    for toolchain in QUICK {
        let mut fixture = start(toolchain, "shares");
        let options = options(Some(Mode::Perf), 499, Duration::from_secs(5));
        if let Some(mut captured) = captured(&fixture, &options) {
            assert_eq!((captured.mode, captured.counts.lost), (Mode::Perf, 0));
            assert!(captured.counts.taken >= 500, "{:?}", captured.counts);
            check_shares(&by_function(&mut captured.known, &captured.collected), 3.0, toolchain);
            check_rooted(&captured.collected, toolchain);
            assert!(captured.notes.iter().any(|note| note.contains("goroutine")), "{:?}", captured.notes);
        }
        fixture.assert_untouched().unwrap();
    }
}

/// One loader after the other: of two that sample one process at the same time and rate, shares were off by four points.
#[test]
fn bpf_has_the_shares_whoever_loads_it() {
    let _alone = machine::alone();
    if Loader::ALL.len() == 1 {
        say("NOT TESTED: the second loader was not built in (--features libbpf)");
    }
    let mut fixture = start(NEWEST, "shares");
    let mut taken = Vec::new();
    for &loader in Loader::ALL {
        let what = format!("{loader:?}");
        let options = options(Some(Mode::Bpf), 999, Duration::from_secs(5));
        let Some(mut captured) = captured(&fixture, &CaptureOptions { loader, ..options }) else { break };
        assert_eq!((captured.mode, captured.counts.lost), (Mode::Bpf, 0), "{what}");
        check_shares(&by_function(&mut captured.known, &captured.collected), 3.0, &what);
        check_rooted(&captured.collected, &what);
        taken.push(captured.counts.taken);
    }
    say(&format!("samples by {:?}: {taken:?}", Loader::ALL));
    if let [first, second] = taken[..] {
        // Whatever else runs on the machine takes time from it.
        assert!(first >= 500 && first.abs_diff(second) * 4 <= first, "{taken:?}");
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn perf_of_single_threads_has_the_shares() {
    let _alone = machine::alone();
    let mut fixture = start(NEWEST, "shares 2");
    let options = perf::PerfOptions {
        rate: 499,
        whole_system: false,
        kernel_frames: false,
        follow: false,
        scope: Some(Scope::Threads),
    };
    let (collected, mut known) = by_perf(&fixture, options, Duration::from_secs(4));
    check_shares(&by_function(&mut known, &collected), 3.0, "threads");
    check_rooted(&collected, "threads");
    fixture.assert_untouched().unwrap();
}

/// Samples by events of threads, which the session takes only where others are denied.
fn by_perf(
    fixture: &Fixture,
    options: perf::PerfOptions,
    duration: Duration,
) -> (Collected, Vec<SampledProgram>) {
    let mut perf = Perf::open(options).unwrap();
    let mut known = vec![SampledProgram::open(&fixture.pinned().unwrap(), &Files::default(), &[]).unwrap()];
    let pid = known[0].pid;
    perf.add(pid, &[]).unwrap();
    let (mut collected, begun) = (Collected::default(), Instant::now());
    let mut last = None;
    while last != Some(Duration::ZERO) {
        let left = duration.saturating_sub(begun.elapsed()).min(Duration::from_millis(100));
        perf.poll(left, &mut |event| {
            if let Event::Sample(sample) = event {
                assert_eq!(sample.pid, pid);
                collected.add(&sample, Some((0, &mut known[0])), false);
            }
        })
        .unwrap();
        last = Some(left);
    }
    assert_eq!(perf.counts().lost, 0);
    (collected, known)
}

#[test]
fn ptrace_has_the_shares() {
    let _alone = machine::alone();
    for toolchain in QUICK {
        let mut fixture = start(toolchain, "shares");
        let options = options(Some(Mode::Ptrace), 99, Duration::from_secs(12));
        let mut captured = captured(&fixture, &options).unwrap();
        let pauses = captured.counts.pauses.unwrap();
        println!("{toolchain}: {:?} {:?} in {:?}", captured.counts, captured.notes, captured.took);
        assert_eq!(captured.mode, Mode::Ptrace);
        assert!(pauses.number > 0 && pauses.longest <= pauses.total, "{pauses:?}");
        // The last one may be longer than those before it.
        assert!((pauses.total - pauses.longest) * 100 <= captured.took, "{pauses:?}");
        // Where cores are scarce a stop takes longer, so that there are fewer, and not all that are counted give a
        // sample: six times the standard error of one half.
        let tolerance = f64::max(5.0, 300.0 / (pauses.number as f64).sqrt());
        check_shares(&by_function(&mut captured.known, &captured.collected), tolerance, toolchain);
        check_rooted(&captured.collected, toolchain);
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn ptrace_weighs_threads_by_their_time() {
    let _alone = machine::alone();
    // As many samples as the CPU time of the process makes, although threads wait for CPUs most of the time.
    let mut fixture = start(NEWEST, "shares 2");
    let (mut others, rate) = (start(NEWEST, "shares 2"), 99);
    let options = options(Some(Mode::Ptrace), rate, Duration::from_secs(5));
    let before = cpu_time(fixture.pid(), false).unwrap();
    let captured = captured(&fixture, &options).unwrap();
    let used = cpu_time(fixture.pid(), false).unwrap() - before;
    let sampled = captured.counts.taken as f64 / f64::from(rate);
    println!("{sampled:.2} s of {used:.2} s: {:?}", captured.counts);
    let stops = captured.counts.pauses.unwrap().number as f64;
    // What a look finds late counts for what it missed, which is little where looks are many.
    let tolerance = f64::max(0.25, 4.0 / stops.sqrt());
    assert!((sampled - used).abs() <= used * tolerance, "{sampled} s of {used} s, give or take {tolerance}");
    fixture.assert_untouched().unwrap();
    others.assert_untouched().unwrap();
}

#[test]
fn ptrace_knows_goroutines_and_labels() {
    let _alone = machine::alone();
    for toolchain in QUICK {
        let mut fixture = start(toolchain, "labelled");
        let options = options(Some(Mode::Ptrace), 99, Duration::from_secs(3));
        let captured = captured(&fixture, &options).unwrap();
        let (mut right, mut all) = (0, 0);
        for (key, count) in captured.collected.samples() {
            let view = &captured.known[0].runtimes[0].view;
            let names = key.places.iter().filter_map(|place| view.modules.lookup(place.pc));
            let parts = ["fifty", "thirty", "twenty"];
            let part = names.into_iter().find_map(|found| {
                let name = String::from_utf8_lossy(found.func.name()).into_owned();
                parts.into_iter().find(|part| name == format!("main.{part}"))
            });
            let Some(part) = part else { continue };
            assert!(key.goid.is_some_and(|goid| goid > 0), "{key:?}");
            let label = key.labels.iter().find(|(key, _)| key == b"part").map(|(_, value)| value.clone());
            all += count;
            right += if label.as_deref() == Some(part.as_bytes()) { count } else { 0 };
        }
        println!("{toolchain}: {right} of {all}");
        assert!(all >= 50 && right == all, "{toolchain}: {right} of {all}");
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn perf_sees_what_lives_shortly() {
    let _alone = machine::alone();
    let denied = |error: perf::Error| println!("NOT TESTED: {error}");
    for (work, function) in [("threads", "main.inThread"), ("children", "main.inChild")] {
        let mut fixture = start(NEWEST, work);
        let options =
            CaptureOptions { children: true, ..options(Some(Mode::Perf), 499, Duration::from_secs(4)) };
        let events = perf::PerfOptions {
            rate: 1,
            whole_system: true,
            kernel_frames: false,
            follow: false,
            scope: None,
        };
        match Perf::open(events) {
            Err(error) => denied(error),
            Ok(_) => {
                let mut captured = captured(&fixture, &options).unwrap();
                let counts = by_function(&mut captured.known, &captured.collected);
                println!("{work}: {counts:?} {:?}", captured.collected.quality());
                let seen = counts.get(function).copied().unwrap_or_default();
                let all: u64 = counts.values().sum();
                assert!(seen >= 50 && seen * 2 >= all, "{work}: {counts:?}");
            }
        }
        fixture.order("end").unwrap();
        fixture.assert_untouched().unwrap();
    }
}

/// Not a test of its own: what the tests below run in a process that is killed, or that may do nothing.
#[test]
fn helper() {
    let Ok(words) = std::env::var("GOPS_PROBE_CAPTURE") else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let mode = match words[1] {
        "bpf" => Some(Mode::Bpf),
        "perf" => Some(Mode::Perf),
        "ptrace" => Some(Mode::Ptrace),
        _ => None,
    };
    let process = Process::pin(words[0].parse().unwrap()).unwrap();
    let options = options(mode, 99, Duration::from_secs(words[2].parse().unwrap()));
    println!("begins");
    match capture(&[process], &options, &mut || ControlFlow::Continue(())) {
        Ok(mut captured) => {
            let counts = by_function(&mut captured.known, &captured.collected);
            println!("mode {}", captured.mode);
            println!("because {}", captured.because.join("; "));
            println!("seen {}", counts.get("main.fifty").copied().unwrap_or_default());
        }
        Err(error) => println!("error {error}"),
    }
}

fn helping(words: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper", "--nocapture"]).env("GOPS_PROBE_CAPTURE", words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn killed_in_the_middle() {
    let _alone = machine::alone();
    for mode in ["perf", "ptrace"] {
        let mut fixture = start(NEWEST, "shares 2");
        // At different moments, so that some of the kills come in a stop.
        for round in 0..20 {
            let mut helper = helping(&format!("{} {mode} 60", fixture.pid())).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(400) + Duration::from_micros(round * 1370));
            assert!(helper.try_wait().unwrap().is_none());
            helper.kill().unwrap();
            helper.wait().unwrap();
            fixture.assert_untouched().unwrap();
        }
        fixture.order("end").unwrap();
        fixture.assert_untouched().unwrap();
    }
}

#[test]
fn somebody_without_privileges() {
    let _alone = machine::alone();
    if !nix::unistd::geteuid().is_root() {
        println!("NOT TESTED: only root can become somebody else");
        return;
    }
    let mut command = Command::new(cell(NEWEST).path());
    command.uid(NOBODY).gid(NOBODY);
    Spawned::without_runtime_settings(&mut command);
    let mut fixture = match Fixture::start(command) {
        Ok(fixture) => fixture,
        Err(error) => {
            println!("NOT TESTED: others may not run what is here: {error}");
            return;
        }
    };
    fixture.order("begin shares").unwrap();
    let ask = |mode: &str| {
        let mut command = helping(&format!("{} {mode} 3", fixture.pid()));
        let Output { stdout, stderr, .. } = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        let text = String::from_utf8_lossy(&stdout).into_owned();
        println!("{mode}: {text}");
        assert!(text.contains("begins"), "{text}{}", String::from_utf8_lossy(&stderr));
        text
    };
    let line = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    };
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().parse::<i32>().ok()
    };
    let bpf_is_denied = number("unprivileged_bpf_disabled").is_some_and(|level| level > 0);
    let perf_is_denied = number("perf_event_paranoid").is_some_and(|level| level > 2);
    let best = ask("best");
    let seen: u64 = line(&best, "seen").parse().unwrap();
    assert!(seen >= 20, "{best}");
    if bpf_is_denied {
        let because = line(&best, "because");
        assert!(because.starts_with("bpf: ") && because.contains("CAP_BPF and CAP_PERFMON"), "{because}");
        assert_eq!(because.contains("perf: "), perf_is_denied, "{because}");
        assert_eq!(line(&best, "mode"), if perf_is_denied { "ptrace" } else { "perf" });
        assert!(line(&ask("bpf"), "error").contains("CAP_BPF and CAP_PERFMON"));
    }
    if perf_is_denied {
        assert!(line(&ask("perf"), "error").contains("kernel.perf_event_paranoid"));
    } else {
        assert_eq!(line(&ask("perf"), "mode"), "perf");
    }
    assert_eq!(line(&ask("ptrace"), "mode"), "ptrace");
    fixture.assert_untouched().unwrap();
}

#[test]
fn what_a_mode_cannot_do() {
    let _alone = machine::alone();
    let mut fixture = start(NEWEST, "shares");
    let whole =
        CaptureOptions { whole_system: true, ..options(Some(Mode::Ptrace), 99, Duration::from_secs(1)) };
    let error = capture(&[], &whole, &mut || ControlFlow::Continue(())).err().unwrap().to_string();
    assert!(error.contains("ptrace: ") && error.contains("name some"), "{error}");
    let fast = options(Some(Mode::Ptrace), 5000, Duration::from_millis(500));
    let captured = captured(&fixture, &fast).unwrap();
    assert_eq!(captured.rate, 100);
    assert!(
        captured.notes.iter().any(|note| note.contains("100 samples per second instead of")),
        "{:?}",
        captured.notes
    );
    fixture.assert_untouched().unwrap();
}
