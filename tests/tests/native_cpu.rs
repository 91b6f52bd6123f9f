//! Samples of programs in C, C++ and Rust, and of C below Go: against `perf`, which looks at the same process at the same time, and
//! against what the programs are made to do.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fixtures::native::{Build, Perf, PerfFrame, Source, Symbols};
use fixtures::{Fixture, matrix};
use inspector::capture::cpu::mode::{CaptureOptions, Loader, Mode};
use inspector::capture::cpu::profile::profile;
use inspector::capture::cpu::session::{Captured, capture};
use inspector::process::Process;
use inspector::profile::Profile;

const RATE: u32 = 499;
const SECONDS: u32 = 10;

/// Captures share the CPUs: one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn say(what: &str) {
    // Not captured, so that it is seen where all is well.
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn start(build: Build, arguments: &[&str]) -> Fixture {
    let mut command = Command::new(build.program().unwrap());
    command.args(arguments);
    Fixture::start(command).unwrap()
}

fn options(seconds: u32, mode: Option<Mode>) -> CaptureOptions {
    CaptureOptions {
        rate: RATE,
        duration: Duration::from_secs(seconds.into()),
        whole_system: false,
        children: false,
        by_thread: false,
        kernel_frames: false,
        mode,
        loader: Loader::default(),
    }
}

fn sample(pid: u32, options: &CaptureOptions, mut watch: impl FnMut()) -> (Captured, Profile) {
    let process = Process::pin(pid.try_into().unwrap()).unwrap();
    let mut watch = || {
        watch();
        ControlFlow::Continue(())
    };
    let mut captured = capture(&[process], options, &mut watch).unwrap();
    let profile = profile(&mut captured, &|_| None);
    assert_eq!(captured.counts.lost, 0);
    (captured, profile)
}

/// Stacks by names of functions, the innermost first, and their counts.
type Stacks = HashMap<Vec<String>, u64>;

/// A function as both sides call it: demanglers differ in parameters, and which of several names of a place in a library is shown
/// is a matter of taste.
fn token(symbol: &str, file: &str) -> String {
    if !matches!(file, "program" | "libcalls.so") {
        return file.to_owned();
    }
    let symbol = symbol.replace("(anonymous namespace)", "<anonymous>");
    if symbol.contains("std::") {
        return "std::".to_owned();
    }
    if symbol.starts_with("_R")
        || (symbol.contains("::") && !symbol.contains("shapes") && !symbol.contains("<anonymous>"))
    {
        return "::".to_owned();
    }
    let symbol = symbol.split('(').next().unwrap_or_default();
    symbol.rsplit(' ').next().unwrap_or_default().to_owned()
}

fn ours(profile: &Profile) -> Stacks {
    let mut stacks = Stacks::new();
    for sample in &profile.samples {
        let tokens = sample.stack.iter().map(|&location| {
            let location = &profile.locations[location];
            let file = location.mapping.map_or("", |m| &profile.mappings[m].file);
            let symbol = location.lines.last().map_or("", |line| &profile.functions[line.function].name);
            token(symbol, file.rsplit('/').next().unwrap_or_default())
        });
        *stacks.entry(tokens.collect()).or_default() += u64::try_from(sample.values[0]).unwrap();
    }
    stacks
}

fn perfs(stacks: HashMap<Vec<PerfFrame>, u64>) -> Stacks {
    let mut all = Stacks::new();
    for (stack, count) in stacks {
        *all.entry(stack.iter().map(|f| token(&f.symbol, &f.file)).collect()).or_default() += count;
    }
    all
}

fn total(stacks: &Stacks) -> u64 {
    stacks.values().sum()
}

/// The share of samples in which a function was the innermost.
fn own_share(stacks: &Stacks, name: &str) -> f64 {
    let own: u64 = stacks.iter().filter(|(s, _)| s.first().is_some_and(|f| f == name)).map(|(_, n)| n).sum();
    own as f64 / total(stacks) as f64
}

/// By how much shares may differ: three points, or what as few samples cannot tell (four standard deviations).
fn tolerance(share: f64, counts: &[u64]) -> f64 {
    let variance: f64 = counts.iter().map(|&n| share * (1.0 - share) / n as f64).sum();
    (4.0 * variance.sqrt()).max(0.03)
}

fn compare(what: &str, found: &Stacks, expected: &Stacks, functions: &[(&str, f64)]) {
    let (found_total, expected_total) = (total(found), total(expected));
    for (name, _) in functions {
        let (a, b) = (own_share(found, name), own_share(expected, name));
        let limit = tolerance(b, &[found_total, expected_total]);
        say(&format!(
            "{what}: {name}: {:.1} % of {found_total} here, {:.1} % of {expected_total} by perf",
            100.0 * a,
            100.0 * b
        ));
        assert!((a - b).abs() <= limit, "{what}: {name}: {a:.3}, but {b:.3} by perf (±{limit:.3})");
    }
    // What is rare may be seen by one of them only.
    let frequent = |stacks: &Stacks| {
        let least = total(stacks) / 50;
        let mut all: Vec<Vec<String>> =
            stacks.iter().filter(|(_, n)| **n > least).map(|(s, _)| s.clone()).collect();
        all.sort();
        all
    };
    let (found, expected) = (frequent(found), frequent(expected));
    assert!(!expected.is_empty());
    assert_eq!(found, expected, "{what}: the chains of callers");
}

fn check(build: Build, arguments: &[&str], functions: &[(&str, f64)]) -> Profile {
    let _turn = turn();
    let what = format!("{build:?} {arguments:?}");
    let mut fixture = start(build, arguments);
    let perf = Perf::start(fixture.pid(), RATE, SECONDS);
    let (captured, profile) = sample(fixture.pid(), &options(SECONDS, None), || ());
    fixture.assert_untouched().unwrap();
    let quality = captured.collected.quality();
    let found = ours(&profile);
    let count = total(&found);
    say(&format!("{what}: {quality:?}"));
    assert!(count > 500, "{what}: {count} samples");
    for (name, share) in functions {
        let own = own_share(&found, name);
        assert!(
            (own - share).abs() <= 0.02 + tolerance(*share, &[count]),
            "{what}: {name}: {own:.3}, not {share}"
        );
    }
    assert!(quality.rooted * 100 >= quality.user * 99, "{what}: {quality:?}");
    let ends = ["_start", "clone3", "__clone3", "clone", "__clone"];
    let mut ended = 0;
    for sample in &profile.samples {
        let lines = sample.stack.iter().filter_map(|&l| profile.locations[l].lines.last());
        let names: Vec<&str> = lines.map(|line| profile.functions[line.function].name.as_str()).collect();
        if names.last().is_some_and(|last| ends.contains(last)) {
            ended += sample.values[0];
        } else {
            say(&format!("{what}: not whole: {} of {names:?}", sample.values[0]));
        }
    }
    assert!(ended.unsigned_abs() * 100 >= count * 99, "{what}: {ended} of {count} end where threads begin");
    match perf {
        Some(perf) => compare(&what, &found, &perfs(perf.stacks().unwrap()), functions),
        None => say(&format!("{what}: NOT TESTED against perf: it does not run here")),
    }
    profile
}

const CALLS: [(&str, f64); 5] = [
    ("spin_plain", 0.3),
    ("spin_deep", 0.2),
    ("library_spin", 0.2),
    ("spin_compare", 0.1),
    ("spin_handler", 0.2),
];

const OBJECTS: [(&str, f64); 5] = [
    ("shapes::Circle::exact", 0.4),
    ("shapes::Holder<int>::spin", 0.3),
    ("<anonymous>::spin_caught", 0.1),
    ("<anonymous>::spin_called", 0.1),
    ("library_spin", 0.1),
];

const TRAITS: [(&str, f64); 3] = [("spin_area", 0.5), ("spin_closure", 0.3), ("spin_deep", 0.2)];

fn inside(source: Source, pointers: bool) -> Build {
    Build { source, pointers, symbols: Symbols::Inside }
}

/// Whether some place has these functions, what was inlined first.
fn has_inlined(profile: &Profile, names: [&str; 2]) -> bool {
    profile.locations.iter().any(|location| {
        let found: Vec<&str> =
            location.lines.iter().map(|line| profile.functions[line.function].name.as_str()).collect();
        found == names
    })
}

#[test]
fn c_without_frame_pointers() {
    let profile = check(inside(Source::Calls, false), &[], &CALLS);
    assert!(has_inlined(&profile, ["inlined", "plain"]), "{:#?}", profile.functions);
    assert!(has_inlined(&profile, ["mix", "spin_plain"]));
    // Functions, files and lines of the program are all there; those of the C library depend on the machine.
    let program = profile.mappings.iter().find(|m| m.symbolized && m.file.ends_with("/libcalls.so"));
    assert!(program.is_some(), "{:#?}", profile.mappings);
    let mut lines = profile.locations.iter().flat_map(|l| &l.lines);
    let plain = lines.find(|line| profile.functions[line.function].name == "spin_plain").unwrap();
    assert!(profile.functions[plain.function].file.ends_with("calls.c") && plain.line > 0);
}

#[test]
fn c_with_frame_pointers() {
    check(inside(Source::Calls, true), &[], &CALLS);
}

#[test]
fn c_in_a_thread() {
    check(inside(Source::Calls, false), &["thread"], &CALLS);
}

#[test]
fn c_with_its_symbols_in_a_file_of_their_own() {
    for symbols in [Symbols::Apart, Symbols::ApartByChecksum] {
        let profile = check(Build { source: Source::Calls, pointers: false, symbols }, &[], &CALLS);
        assert!(has_inlined(&profile, ["inlined", "plain"]));
    }
}

#[test]
fn cpp_without_frame_pointers() {
    check(inside(Source::Objects, false), &[], &OBJECTS);
}

#[test]
fn cpp_with_frame_pointers() {
    check(inside(Source::Objects, true), &[], &OBJECTS);
}

#[test]
fn rust_without_frame_pointers() {
    check(inside(Source::Traits, false), &[], &TRAITS);
}

#[test]
fn rust_with_frame_pointers_in_a_thread() {
    check(inside(Source::Traits, true), &["thread"], &TRAITS);
}

/// Functions of a sample, the innermost first; of what is inlined all.
fn names<'p>(profile: &'p Profile, stack: &[usize]) -> Vec<&'p str> {
    let lines = stack.iter().flat_map(|&l| &profile.locations[l].lines);
    lines.map(|line| profile.functions[line.function].name.as_str()).collect()
}

#[test]
fn whoever_takes_the_samples() {
    let _turn = turn();
    let mut fixture = start(inside(Source::Calls, false), &["thread"]);
    for mode in [Mode::Bpf, Mode::Perf, Mode::Ptrace] {
        // On a machine that has much else to do, stops are few, and one stands for several samples.
        let rounds = if mode == Mode::Ptrace { 20 } else { 1 };
        let (mut user, mut was_seen) = (0, false);
        for _ in 0..rounds {
            let (captured, profile) = sample(fixture.pid(), &options(3, Some(mode)), || ());
            let quality = captured.collected.quality();
            say(&format!("{mode}: {quality:?}"));
            // A thread that is stopped may be in the system call that answers its parent.
            assert!(quality.rooted * 100 >= quality.user * 99, "{mode}: {quality:?}");
            user += quality.user;
            was_seen |= profile.samples.iter().map(|s| names(&profile, &s.stack)).any(|names| {
                names.starts_with(&["mix", "spin_handler", "handler", "__restore_rt"])
                    && names.contains(&"interrupted")
            });
            if was_seen && user > 50 {
                break;
            }
        }
        assert!(was_seen && user > 50, "{mode}: {user} samples");
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn a_library_that_is_loaded_later() {
    let _turn = turn();
    let build = inside(Source::Calls, false);
    let library = build.program().unwrap().with_file_name("libextra.so");
    let mut fixture = start(build, &["later", library.to_str().unwrap()]);
    let (begun, mut asked) = (Instant::now(), false);
    let (captured, profile) = sample(fixture.pid(), &options(6, None), || {
        if begun.elapsed() > Duration::from_secs(2) && !asked {
            asked = true;
            fixture.order("load").unwrap();
        }
    });
    fixture.assert_untouched().unwrap();
    let quality = captured.collected.quality();
    assert!(quality.rooted * 100 >= quality.user * 99, "{quality:?}");
    let mapping = profile.mappings.iter().position(|m| m.file.ends_with("/libextra.so")).unwrap();
    assert!(!profile.mappings[mapping].build_id.is_empty() && profile.mappings[mapping].symbolized);
    let of_library: Vec<_> = profile
        .samples
        .iter()
        .filter(|s| s.stack.first().is_some_and(|&l| profile.locations[l].mapping == Some(mapping)))
        .collect();
    assert!(of_library.iter().map(|s| s.values[0]).sum::<i64>() > 50);
    for sample in of_library {
        let names = names(&profile, &sample.stack);
        assert!(names.contains(&"library_spin") && names.contains(&"later"), "{names:?}");
    }
}

#[test]
fn code_that_no_file_has() {
    let _turn = turn();
    let mut fixture = start(inside(Source::Calls, false), &["compiled"]);
    let (captured, profile) = sample(fixture.pid(), &options(3, None), || ());
    fixture.assert_untouched().unwrap();
    let quality = captured.collected.quality();
    assert!(quality.user > 100 && quality.rooted * 100 >= quality.user * 99, "{quality:?}");
    let nameless = |&location: &usize| profile.locations[location].lines.is_empty();
    let compiled: i64 = profile
        .samples
        .iter()
        .filter(|s| s.stack.first().is_some_and(nameless))
        .filter(|s| names(&profile, &s.stack).starts_with(&["calls", "compiled", "main"]))
        .map(|s| s.values[0])
        .sum();
    assert!(compiled.unsigned_abs() * 100 >= quality.user * 95, "{compiled} of {quality:?}");
}

/// Where a goroutine called C, all of both is there: the functions of C, the runtime's way there, the functions of Go.
#[test]
fn c_called_by_go() {
    let _turn = turn();
    for toolchain in matrix::QUICK {
        let program = matrix::build_root().join("native").join(format!("hot-{toolchain}"));
        let mut build = Command::new("go");
        build.current_dir(matrix::source_root()).args(["build", "-buildvcs=false", "-o"]).arg(&program);
        build.arg("./cmd/hot").env_remove("GOFLAGS").envs([
            ("GOTOOLCHAIN", format!("go{toolchain}").as_str()),
            ("CGO_ENABLED", "1"),
            ("GOWORK", "off"),
        ]);
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut fixture = Fixture::start(Command::new(&program)).unwrap();
        fixture.order("begin c").unwrap();
        let (captured, profile) = sample(fixture.pid(), &options(3, None), || ());
        fixture.order("end").unwrap();
        fixture.assert_untouched().unwrap();
        let quality = captured.collected.quality();
        // The runtime's own profile does not have asmcgocall either, which is on the thread's stack.
        let wanted = [
            "in_c",
            "call_c",
            "_cgo_*",
            "runtime.cgocall",
            "main._Cfunc_call_c",
            "main.callsC",
            "main.begin.func1",
        ];
        let (mut in_c, mut whole) = (0, 0);
        let mut others: HashMap<Vec<&str>, i64> = HashMap::new();
        for sample in &profile.samples {
            let names = names(&profile, &sample.stack);
            if names.first() != Some(&"in_c") {
                continue;
            }
            in_c += sample.values[0];
            let fits = |(name, wanted): (&&str, &&str)| match wanted.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == wanted,
            };
            if names.len() == wanted.len() && names.iter().zip(&wanted).all(fits) {
                whole += sample.values[0];
            } else {
                *others.entry(names).or_default() += sample.values[0];
            }
        }
        say(&format!("go{toolchain}: {whole} of {in_c} whole; {quality:?}"));
        assert!(in_c > 100, "go{toolchain}: {in_c} samples of C; {quality:?}");
        assert!(whole * 100 >= in_c * 99, "go{toolchain}: {whole} of {in_c}; others: {others:#?}");
        assert!(quality.rooted * 100 >= quality.user * 99, "go{toolchain}: {quality:?}");
    }
}
