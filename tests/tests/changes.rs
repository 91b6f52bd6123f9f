//! What changes a process: collections that are forced, GOGC and the memory limit, held against the process's own
//! runtime; killed and interrupted at any instant; on a process whose memory is not what it should be.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST, NEWEST_OF_EACH_MINOR, QUICK, candidates, newest_of};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Repetitions, Selection, Variant, binary, build};
use inspector::change::Options;
use inspector::change::sampling::{self, Opened, Profiler};
use inspector::change::subject::Subject;
use inspector::memory::{LiveMemory, Memory as _};
use inspector::process::Process;
use inspector::runtime::buckets::{Tables, read_memory};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The newest patch of each minor.
const VERSIONS: [&str; NEWEST_OF_EACH_MINOR.len()] = NEWEST_OF_EACH_MINOR;
/// The oldest release, the newest, and one between.
const FEW: [&str; 3] = QUICK;

/// What of these is tried: all, or three releases in daily work.
fn tried(all: &[&'static str]) -> Vec<&'static str> {
    if fixtures::repetition::full() {
        return all.to_vec();
    }
    Selection::from_environment().unwrap().releases(all)
}

/// The newest patch of each minor, and what comes before releases.
fn all_releases() -> Vec<&'static str> {
    VERSIONS.into_iter().chain(candidates()).collect()
}

const STATE_VARIABLE: &str = "GOPS_PROBE_STATE_DIR";
/// For about so long, something is changed by a collection with GOGC=off.
const CHANGED: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(20);

/// A process to be changed, and where the journals of it are.
struct Subjected {
    fixture: Fixture,
    state: tempfile::TempDir,
    name: String,
}

impl Subjected {
    fn start(version: &'static str, variant: Variant, environment: &[(&str, &str)]) -> Self {
        let cell = Cell::new(version, variant, Program::Collector);
        build::build(&[cell], 2, &|_, _| ()).unwrap();
        let fixture = Fixture::spawn(&cell, &[], environment).unwrap();
        let settings: Vec<String> =
            environment.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        let name = format!("{cell}{}", settings.concat());
        Self { fixture, state: tempfile::tempdir().unwrap(), name }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().unwrap());
        let pid = self.fixture.pid().to_string();
        let with_pid =
            arguments.iter().map(|&argument| if argument == "PID" { pid.as_str() } else { argument });
        command.args(with_pid).env(STATE_VARIABLE, self.state.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {arguments:?}: {stderr}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    fn number(&mut self, question: &str) -> u64 {
        self.fixture.command(question).unwrap().parse().unwrap()
    }

    /// Sets GOGC in the process, and says what it was.
    fn percent(&mut self, percent: i32) -> i32 {
        self.fixture.command(&format!("percent {percent}")).unwrap().parse().unwrap()
    }

    /// Everything that the process checks is as it should be, nobody holds it, and it answers.
    fn assert_sound(&mut self) {
        let said = self.fixture.command("check").unwrap();
        assert!(said.starts_with("sound "), "{}: {said}", self.name);
        self.fixture.assert_untouched().unwrap();
        assert_eq!(self.fixture.stderr_text(), "", "{}", self.name);
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.state.path()).unwrap().count()
    }

    /// Whether a journal says that there is something to put back.
    fn has_left_over(&self) -> bool {
        let lines =
            |path: &Path| fs::read(path).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count();
        fs::read_dir(self.state.path()).unwrap().any(|entry| lines(&entry.unwrap().path()) > 1)
    }

    /// The guards of this process.
    fn guards(&self) -> Vec<Pid> {
        let pid = self.fixture.pid().to_string();
        let is_guard = |path: &Path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            words.get(1) == Some(&&b"guard-of-change"[..]) && words.get(2) == Some(&pid.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let found = entries.filter(|path| is_guard(path));
        found.filter_map(|path| path.file_name()?.to_str()?.parse().ok().map(Pid::from_raw)).collect()
    }

    /// Waits until no guard is there any more.
    fn wait_for_guards(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.guards().is_empty() {
            assert!(Instant::now() < deadline, "{}: a guard stays", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Any command that looks at the process puts back what nobody could.
    fn look_again(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.succeed(&["version", "--via", "probe", "PID"]);
            if self.journals() == 0 {
                return;
            }
            // A guard that was being started when its principal was killed comes later, and finds nothing to do.
            assert!(Instant::now() < deadline, "{}: a journal stays", self.name);
            self.wait_for_guards();
        }
    }

    fn pinned(&self) -> Process {
        Process::pin(self.fixture.pid().to_string().parse().unwrap()).unwrap()
    }
}

/// Forces collections, each counted by the process itself.
fn collect(subjected: &mut Subjected, what: &str, count: usize) {
    let mut repetitions = Repetitions::new("changes", format!("{}: gc, {what}", subjected.name), count);
    let (mut stops, mut longest, mut took) = (0, 0, Vec::new());
    while repetitions.another() {
        let before = subjected.number("numgc");
        let said = subjected.json(&["gc", "--via", "probe", "--json", "PID"]);
        let after = subjected.number("numgc");
        assert!(after > before, "{}: {what}: {before} {after} {said}", subjected.name);
        let cycle = said["cycle"].as_u64().unwrap();
        assert!((before + 1..=after).contains(&cycle), "{}: {before} {after} {said}", subjected.name);
        assert!(said["swept"] == true && said["collected"] == true, "{said}");
        stops += said["stops"].as_u64().unwrap();
        longest = longest.max(said["stopped_us"].as_u64().unwrap());
        took.push(said["duration_us"].as_u64().unwrap());
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    repetitions.report(&json!({
        "collections": took.len(), "median_duration_us": median, "stops": stops, "longest_stop_us": longest,
    }));
    assert_eq!(subjected.journals(), 0, "{}", subjected.name);
    subjected.assert_sound();
}

#[test]
fn collections_of_an_idle_process() {
    for version in tried(&all_releases()) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        collect(&mut subjected, "idle", 20);
        assert_eq!(subjected.number("forced"), 0);
        // What it says without being asked for more is nothing, as gops.
        assert_eq!(subjected.succeed(&["gc", "PID"]), "");
    }
}

#[test]
fn collections_of_a_busy_process() {
    for version in tried(&VERSIONS) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        subjected.fixture.order("busy 3").unwrap();
        collect(&mut subjected, "busy", 200);
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

/// GOGC=off stays off, and the goal stays what it is with it.
#[test]
fn collections_where_gogc_is_off() {
    for version in tried(&VERSIONS) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[("GOGC", "off")]);
        let goal = |subjected: &mut Subjected| subjected.number("nextgc") >> 40;
        let off = goal(&mut subjected);
        collect(&mut subjected, "idle", 20);
        assert_eq!(goal(&mut subjected), off, "{version}");
        assert_eq!(subjected.percent(-1), -1, "{version}");
        subjected.fixture.order("busy 2").unwrap();
        collect(&mut subjected, "busy", 20);
        assert_eq!(subjected.percent(-1), -1, "{version}");
        assert_eq!(goal(&mut subjected), off, "{version}");
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

#[test]
fn collections_with_a_memory_limit() {
    for version in tried(&VERSIONS[1..]) {
        let environment = [("GOGC", "off"), ("GOMEMLIMIT", "96MiB")];
        let mut subjected = Subjected::start(version, Variant::Stripped, &environment);
        subjected.fixture.order("busy 2").unwrap();
        collect(&mut subjected, "busy", 50);
        assert_eq!(subjected.percent(-1), -1, "{version}");
        assert_eq!(subjected.number("limit -1"), 96 << 20);
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

#[test]
fn collections_of_position_independent_programs() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Pie, &[]);
        collect(&mut subjected, "idle", 50);
    }
}

#[test]
fn collections_on_one_processor() {
    let mut subjected = Subjected::start(NEWEST, Variant::Stripped, &[("GOMAXPROCS", "1")]);
    collect(&mut subjected, "idle", 20);
    subjected.fixture.order("busy 2").unwrap();
    collect(&mut subjected, "busy", 50);
    subjected.fixture.order("calm").unwrap();
}

#[test]
fn collections_while_threads_are_in_c() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Cgo, &[]);
        subjected.fixture.order("c 3").unwrap();
        collect(&mut subjected, "three threads in C", 100);
        subjected.fixture.order("c 0").unwrap();
    }
}

/// However a program is built, it is changed where its runtime is known beyond doubt, and refused elsewhere.
#[test]
fn ways_of_building() {
    let quick =
        matches!(Selection::from_environment(), Ok(Selection::Quick)) && !fixtures::repetition::full();
    if quick {
        say("NOT TESTED with the quick selection: changes of programs built in unusual ways");
    }
    for (variant, refusal) in [
        (Variant::Stripped, None),
        (Variant::NoSections, None),
        (Variant::NoBuildInfo, None),
        (Variant::CShared, None),
        (Variant::Plain, None),
        (Variant::V3, None),
        (Variant::Pgo, None),
        (Variant::NoOpt, None),
        (Variant::Race, Some("-race")),
    ] {
        let usual = [Variant::Stripped, Variant::NoSections, Variant::NoBuildInfo].contains(&variant);
        if quick && !usual {
            continue;
        }
        let mut cells = vec![Cell::new(NEWEST, variant, Program::States)];
        cells.extend(variant.derived_from().map(|variant| Cell { variant, ..cells[0] }));
        build::build(&cells, 2, &|_, _| ()).unwrap();
        let fixture = Fixture::spawn(&cells[0], &[], &[]).unwrap();
        let mut subjected =
            Subjected { fixture, state: tempfile::tempdir().unwrap(), name: cells[0].to_string() };
        match refusal {
            None => {
                let cycle = |subjected: &Subjected| {
                    subjected.json(&["gc", "--via", "probe", "--json", "PID"])["cycle"].as_u64().unwrap()
                };
                let before = cycle(&subjected);
                subjected.fixture.order("gc").unwrap();
                assert_eq!(cycle(&subjected), before + 3, "{variant}");
                let said = subjected.succeed(&["setgc", "--via", "probe", "PID", "90"]);
                assert_eq!(said, "New GC percent set to 90. Previous value was 100.\n");
            }
            Some(why) => {
                for arguments in
                    [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]]
                {
                    let output = subjected.run(arguments);
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.code() == Some(6) && stderr.contains(why), "{variant}: {stderr}");
                }
            }
        }
        subjected.fixture.assert_untouched().unwrap();
    }
}

/// What the process's own call makes of the same percentage, with no collection between the two.
fn compare_percent(subjected: &mut Subjected, percent: i32, before: i32) {
    let text = if percent < 0 { "off".to_owned() } else { percent.to_string() };
    for _ in 0..20 {
        subjected.percent(before);
        // So far below its goal that it does not begin a collection.
        subjected.fixture.order("gc").unwrap();
        let cycles = subjected.number("numgc");
        let said = subjected.succeed(&["setgc", "--via", "probe", "PID", &text]);
        assert_eq!(said, format!("New GC percent set to {percent}. Previous value was {before}.\n"));
        let ours = subjected.number("nextgc");
        assert_eq!(subjected.percent(percent), percent, "{}", subjected.name);
        let theirs = subjected.number("nextgc");
        if subjected.number("numgc") != cycles {
            continue;
        }
        // With GOGC=off the goal follows from what is mapped, which the questions themselves change.
        let equal = if percent < 0 { ours.abs_diff(theirs) < 1 << 20 } else { ours == theirs };
        assert!(equal, "{}: {percent}: {ours} {theirs}", subjected.name);
        return;
    }
    panic!("{}: there was a collection each time", subjected.name);
}

#[test]
fn percentages_have_the_effect_of_the_call() {
    for version in tried(&all_releases()) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        let mut before = 100;
        for percent in [50, 100, 300, 1000, -1, 40, 100, -1, 77] {
            compare_percent(&mut subjected, percent, before);
            before = percent;
        }
        // The pacer's own fields, after the call in the process and after ours.
        for percent in [-1, 250] {
            let fields = |subjected: &Subjected| {
                let process = subjected.pinned();
                let subject = Subject::verify(&process).unwrap();
                let names: &[&str] = if version == newest_of(18) {
                    &["gcPercent", "heapMinimum", "trigger", "heapGoal"]
                } else {
                    &["gcPercent", "heapMinimum", "gcPercentHeapGoal", "sweepDistMinTrigger", "runway"]
                };
                let read = |name: &&str| subject.read("runtime.gcController", name).unwrap();
                names.iter().map(read).collect::<Vec<u64>>()
            };
            subjected.percent(percent);
            let theirs = fields(&subjected);
            subjected.percent(60);
            let percent = if percent < 0 { "off".to_owned() } else { percent.to_string() };
            subjected.succeed(&["setgc", "PID", &percent]);
            assert_eq!(fields(&subjected), theirs, "{version} {percent}");
        }
        subjected.assert_sound();
        assert_eq!(subjected.journals(), 0);
    }
}

#[test]
fn percentages_of_a_busy_process() {
    for version in tried(&VERSIONS) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        subjected.fixture.order("busy 3").unwrap();
        let mut repetitions = Repetitions::new("changes", format!("{}: setgc, busy", subjected.name), 100);
        let mut before = 100;
        let (mut stops, mut stopped, mut longest) = (0, 0, 0);
        while repetitions.another() {
            let percent = 20 + i64::try_from(repetitions.random(400)).unwrap();
            let said = subjected.json(&["setgc", "--json", "PID", &percent.to_string()]);
            assert_eq!((&said["percent"], &said["previous_percent"]), (&percent.into(), &before.into()));
            before = percent;
            let (n, us) = (said["stops"].as_u64().unwrap(), said["stopped_us"].as_u64().unwrap());
            stops += n;
            stopped += us;
            longest = longest.max(us / n);
        }
        let done = repetitions.done() as u64;
        repetitions.report(&json!({
            "stops": stops, "mean_stopped_us": stopped / done.max(1), "longest_mean_stop_us": longest,
        }));
        assert_eq!(i64::from(subjected.percent(100)), before);
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

#[test]
fn memory_limits() {
    for version in tried(&all_releases()) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        if version == newest_of(18) {
            let output = subjected.run(&["setmemlimit", "PID", "1GiB"]);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(6) && stderr.contains("no memory limit"), "{stderr}");
            subjected.assert_sound();
            continue;
        }
        let none = i64::MAX as u64;
        let said = subjected.succeed(&["setmemlimit", "PID", "40MiB"]);
        assert_eq!(said, format!("New memory limit set to {}. Previous value was off.\n", 40 << 20));
        assert_eq!(subjected.number("limit -1"), 40 << 20);
        let (ours, cycles) = (subjected.number("nextgc"), subjected.number("numgc"));
        assert_eq!(subjected.number(&format!("limit {none}")), 40 << 20);
        subjected.number(&format!("limit {}", 40 << 20));
        let theirs = subjected.number("nextgc");
        assert_eq!(subjected.number("numgc"), cycles);
        assert!(ours.abs_diff(theirs) < 64 << 10, "{version}: {ours} {theirs}");
        let json = subjected.json(&["setmemlimit", "--json", "PID", "off"]);
        assert!(json.get("limit_bytes").is_none() && json["previous_limit_bytes"] == 40 << 20, "{json}");
        assert_eq!(subjected.number("limit -1"), none);
        // Below what can be had.
        let output = subjected.run(&["setmemlimit", "PID", "64KiB"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains("--force"), "{stderr}");
        assert_eq!(subjected.number("limit -1"), none);
        let output = subjected.run(&["setmemlimit", "PID", "64KiB", "--force"]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("warning:"));
        assert_eq!(subjected.number(&format!("limit {none}")), 64 << 10);
        subjected.assert_sound();
        assert_eq!(subjected.journals(), 0);
    }
}

#[test]
fn dry_runs_write_nothing() {
    let mut subjected = Subjected::start(NEWEST, Variant::Stripped, &[("GOGC", "off")]);
    let cycles = subjected.number("numgc");
    for arguments in [
        &["gc", "PID"][..],
        &["setgc", "PID", "50"],
        &["setmemlimit", "PID", "1GiB"],
        &["setgc", "PID", "off"],
    ] {
        let arguments = [arguments, &["--dry-run", "--json"]].concat();
        let said = subjected.json(&arguments);
        assert!(said["dry_run"] == true && !said["written"].as_array().unwrap().is_empty(), "{said}");
    }
    let stderr = String::from_utf8(subjected.run(&["gc", "--dry-run", "PID"]).stderr).unwrap();
    assert!(stderr.contains("would write: gcController.gcPercent"), "{stderr}");
    assert_eq!(subjected.percent(-1), -1);
    assert_eq!(subjected.number("limit -1"), i64::MAX as u64);
    assert_eq!((subjected.number("numgc"), subjected.journals()), (cycles, 0));
    subjected.assert_sound();
}

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Us,
    Guard,
    Both,
}

/// Waits for a random instant: half of the time of the whole run, half of it once there is something to put back.
fn random_instant(
    subjected: &Subjected,
    repetitions: &mut Repetitions,
    child: &mut Child,
    whole: Duration,
    changed: Duration,
) {
    if repetitions.random(2) == 0 {
        let whole = u64::try_from(whole.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(repetitions.random(whole)));
        return;
    }
    while subjected.journals() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let changed = u64::try_from(changed.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(repetitions.random(changed)));
}

fn slay(pid: Pid) {
    // Gone already, perhaps.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Starts a command again and again and kills it at a random instant; `check` looks at what is left.
fn kill_at_random(
    subjected: &mut Subjected,
    arguments: &[&str],
    victim: Victim,
    mut check: impl FnMut(&mut Subjected, &mut Repetitions),
) {
    let what = format!("{}: {} killed, {victim:?}", subjected.name, arguments[0]);
    let begun = Instant::now();
    subjected.succeed(arguments);
    let whole = begun.elapsed();
    let mut repetitions = Repetitions::new("changes", what, 200);
    let (mut killed, mut left_over) = (0, 0);
    while repetitions.another() {
        let mut child =
            subjected.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ours = Pid::from_raw(i32::try_from(child.id()).unwrap());
        random_instant(subjected, &mut repetitions, &mut child, whole, CHANGED);
        match victim {
            Victim::Us => slay(ours),
            Victim::Guard => subjected.guards().into_iter().for_each(slay),
            Victim::Both => {
                let guards = subjected.guards();
                slay(ours);
                guards.into_iter().for_each(slay);
            }
        }
        let status = child.wait().unwrap();
        killed += usize::from(!status.success());
        subjected.wait_for_guards();
        left_over += usize::from(subjected.has_left_over());
        if !matches!(victim, Victim::Both) {
            check(subjected, &mut repetitions);
        }
        subjected.look_again();
        check(subjected, &mut repetitions);
        subjected.fixture.assert_untraced().unwrap();
    }
    repetitions.report(&json!({ "killed": killed, "left_to_the_next_run": left_over }));
    subjected.assert_sound();
    subjected.succeed(&["gc", "--via", "probe", "PID"]);
    subjected.assert_sound();
}

/// The only collection that has something to put back.
#[test]
fn killed_while_gogc_is_off() {
    for version in FEW {
        for victim in [Victim::Us, Victim::Guard, Victim::Both] {
            let mut subjected = Subjected::start(version, Variant::Stripped, &[("GOGC", "off")]);
            let off = subjected.number("nextgc") >> 40;
            kill_at_random(
                &mut subjected,
                &["gc", "--via", "probe", "PID"],
                victim,
                |subjected, repetitions| {
                    let seed = repetitions.seed();
                    // Read without a call that would set it.
                    let process = subjected.pinned();
                    let percent = Subject::verify(&process).unwrap().gc_percent().unwrap();
                    assert_eq!(percent, -1, "{version}, seed {seed}");
                    assert_eq!(subjected.number("nextgc") >> 40, off, "{version}, seed {seed}");
                },
            );
            assert_eq!(subjected.percent(-1), -1);
        }
    }
}

#[test]
fn killed_while_the_process_is_busy() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        subjected.fixture.order("busy 2").unwrap();
        kill_at_random(&mut subjected, &["gc", "--via", "probe", "PID"], Victim::Us, |_, _| ());
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

/// Settings are the old ones or the new ones, and whole.
#[test]
fn killed_while_a_setting_changes() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        let arguments = ["setgc", "--via", "probe", "PID", "300"];
        kill_at_random(&mut subjected, &arguments, Victim::Us, |subjected, repetitions| {
            let seed = repetitions.seed();
            let (ours, cycles) = (subjected.number("nextgc"), subjected.number("numgc"));
            let process = subjected.pinned();
            let percent = Subject::verify(&process).unwrap().gc_percent().unwrap();
            assert!(percent == 50 || percent == 100 || percent == 300, "{version}, seed {seed}: {percent}");
            // While it sweeps, the call itself puts the goal higher for a moment.
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert_eq!(subjected.percent(percent), percent);
                let theirs = subjected.number("nextgc");
                if theirs == ours || subjected.number("numgc") != cycles {
                    break;
                }
                assert!(Instant::now() < deadline, "{version}, seed {seed}: {percent}: {ours}, not {theirs}");
                std::thread::sleep(Duration::from_millis(10));
            }
            subjected.percent(50);
        });
        if version == newest_of(18) {
            continue;
        }
        let arguments = ["setmemlimit", "PID", "1GiB"];
        kill_at_random(&mut subjected, &arguments, Victim::Us, |subjected, repetitions| {
            let before = subjected.number(&format!("limit {}", 2u64 << 30));
            let known = [i64::MAX as u64, 1 << 30, 2 << 30];
            assert!(known.contains(&before), "{version}, seed {}: {before}", repetitions.seed());
        });
    }
}

/// Ctrl-C puts everything back before it ends.
#[test]
fn interrupted() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[("GOGC", "off")]);
        let name = format!("{}: gc interrupted", subjected.name);
        let mut repetitions = Repetitions::new("changes", name, 100);
        let mut interrupted = 0;
        while repetitions.another() {
            let mut command = subjected.command(&["gc", "--via", "probe", "PID"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            random_instant(&subjected, &mut repetitions, &mut child, Duration::from_millis(120), CHANGED);
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT);
            let status = child.wait().unwrap();
            let by_us = status.code() == Some(130);
            interrupted += usize::from(by_us);
            // Before it has begun with anything, the signal ends it as any program.
            assert!(by_us || status.success() || status.code().is_none(), "{status}");
            assert_eq!((subjected.journals(), subjected.guards().len()), (0, 0), "{version}");
            assert_eq!(subjected.percent(-1), -1, "{version}, seed {}", repetitions.seed());
        }
        repetitions.report(&json!({ "interrupted": interrupted }));
        subjected.assert_sound();
    }
}

/// Two at once keep out of each other's way.
#[test]
fn several_at_once() {
    let mut subjected = Subjected::start(NEWEST, Variant::Stripped, &[("GOGC", "off")]);
    subjected.fixture.order("busy 1").unwrap();
    for _ in 0..3 {
        let commands = [&["gc", "PID"][..], &["gc", "PID"], &["setgc", "PID", "off"], &["gc", "PID"]];
        let children: Vec<Child> = commands
            .iter()
            .map(|arguments| {
                subjected.command(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // A stop that meets another's stop finds the process traced.
            let polite = stderr.contains("another gops-probe") || stderr.contains("is traced by");
            assert!(output.status.success() || polite, "{stderr}");
        }
        assert_eq!(subjected.percent(-1), -1);
    }
    subjected.fixture.order("calm").unwrap();
    subjected.assert_sound();
}

/// Words that a command would write, and what they hold.
fn words(subjected: &Subjected, subject: &Subject<'_>) -> Vec<(String, Vec<u8>)> {
    let memory = LiveMemory::new(i32::try_from(subjected.fixture.pid()).unwrap());
    let mut places = Vec::new();
    for field in ["gcPercent", "heapMinimum", "gcPercentHeapGoal", "sweepDistMinTrigger", "memoryLimit"] {
        places.push((field, subject.place("runtime.gcController", field).unwrap()));
    }
    places.push(("last_gc_nanotime", subject.place("runtime.memstats", "last_gc_nanotime").unwrap()));
    places.push(("MemProfileRate", subject.place("runtime.MemProfileRate", "").unwrap()));
    let read = |(name, (at, width)): (&str, (_, inspector::change::word::Width))| {
        (name.to_owned(), memory.bytes(at, width.bytes()).unwrap())
    };
    places.into_iter().map(read).collect()
}

/// The same, once the runtime has not changed them for a while: it may still collect what its start has left.
fn settled_words(subjected: &Subjected, subject: &Subject<'_>) -> Vec<(String, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = words(subjected, subject);
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = words(subjected, subject);
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "the runtime does not settle: {now:?}");
        before = now;
    }
}

fn poke(pid: u32, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(bytes, at).unwrap();
}

/// A runtime in which one thing does not fit the others is not written to.
#[test]
fn what_does_not_make_sense_is_refused() {
    let mut subjected = Subjected::start(NEWEST, Variant::Stripped, &[]);
    // So that there is something to contradict.
    subjected.succeed(&["gc", "PID"]);
    let pinned = subjected.pinned();
    let verified = Subject::verify(&pinned).unwrap();
    let before = settled_words(&subjected, &verified);
    let pid = subjected.fixture.pid();
    for (variable, field, wrong) in [
        ("runtime.forcegcperiod", "", 7u64),
        ("runtime.gcphase", "", 3),
        ("runtime.gomaxprocs", "", 4000),
        ("runtime.memstats", "numgc", 99),
        ("runtime.memstats", "enablegc", 0),
        ("runtime.memstats", "last_gc_unix", 1),
        ("runtime.work", "cycles", 77),
        ("runtime.mheap_", "sweepgen", 1001),
        ("runtime.sched", "npidle", 1 << 20),
        ("runtime.sched", "sysmonwait", 3),
        ("runtime.gcController", "heapMinimum", 12345),
        ("runtime.gcController", "gcPercentHeapGoal", 1),
        ("runtime.gcController", "heapMarked", 1 << 60),
        ("runtime.panicking", "", 1),
    ] {
        let process = subjected.pinned();
        let subject = Subject::verify(&process).unwrap();
        let (at, width) = subject.place(variable, field).unwrap();
        let bytes = width.bytes();
        let memory = LiveMemory::new(i32::try_from(pid).unwrap());
        // None of its threads must see the wrong value.
        let held = inspector::stop::Stopped::all_threads(i32::try_from(pid).unwrap(), PATIENCE).unwrap();
        let right = memory.bytes(at, bytes).unwrap();
        poke(pid, at.0, &wrong.to_le_bytes()[..bytes]);
        let answer = subject.check();
        poke(pid, at.0, &right);
        held.thaw();
        assert!(answer.is_err(), "{variable} {field}");
        subject.check().unwrap();
    }
    // Those that an idle process does not look at, from the command line.
    for (variable, field) in [("runtime.gcController", "heapMinimum"), ("runtime.memstats", "last_gc_unix")] {
        let process = subjected.pinned();
        let subject = Subject::verify(&process).unwrap();
        let ((at, _), right) =
            (subject.place(variable, field).unwrap(), subject.read(variable, field).unwrap());
        poke(pid, at.0, &(right + 8).to_le_bytes());
        let changed = words(&subjected, &subject);
        for arguments in [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]] {
            let output = subjected.run(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(6) && stderr.contains("nothing is written"), "{stderr}");
        }
        assert_eq!(words(&subjected, &subject), changed);
        poke(pid, at.0, &right.to_le_bytes());
    }
    assert_eq!(words(&subjected, &verified), before);
    subjected.assert_sound();
}

/// The list of threads and what the scheduler counts must agree: where they do not, however often they are read, the
/// profile of both says so.
#[test]
fn a_count_of_threads_that_is_contradicted() {
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        let pid = subjected.fixture.pid();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("threads.txt");
        let ask = |subjected: &Subjected| {
            let path = file.to_str().unwrap();
            let output = subjected.run(&["pprof-threadcreate", "--format", "text", "-o", path, "PID"]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), stderr, fs::read_to_string(&file).unwrap())
        };
        let (code, stderr, text) = ask(&subjected);
        assert!(code == Some(0) && !text.contains("doubtful"), "{version}: {stderr} {text}");
        {
            let process = subjected.pinned();
            let subject = Subject::verify(&process).unwrap();
            let (at, _) = subject.place("runtime.sched", "nmfreed").unwrap();
            let right = subject.read("runtime.sched", "nmfreed").unwrap();
            // As if so many had never ended: only their number in a crash and the most that there may be depend on it.
            poke(pid, at.0, &(right.wrapping_sub(100)).to_le_bytes());
            let (code, stderr, text) = ask(&subjected);
            poke(pid, at.0, &right.to_le_bytes());
            assert!(code == Some(7) && stderr.contains("threads are in the list"), "{version}: {stderr}");
            assert!(text.contains("doubtful"), "{version}: {text}");
        }
        assert_eq!(ask(&subjected).0, Some(0), "{version}");
        subjected.assert_sound();
    }
}

/// What does not run, or is held by somebody else.
#[test]
fn processes_that_cannot_do_it_are_left_alone() {
    let mut subjected = Subjected::start(newest_of(24), Variant::Stripped, &[]);
    let pinned = subjected.pinned();
    let verified = Subject::verify(&pinned).unwrap();
    let before = settled_words(&subjected, &verified);
    let pid = Pid::from_raw(i32::try_from(subjected.fixture.pid()).unwrap());
    let all = [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]];
    kill(pid, Signal::SIGSTOP).unwrap();
    for arguments in all {
        let output = subjected.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains("kill -CONT"), "{stderr}");
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let held = inspector::stop::Stopped::all_threads(pid.as_raw(), PATIENCE).unwrap();
    for arguments in all {
        let output = subjected.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(5) && stderr.contains("is traced by"), "{stderr}");
    }
    held.thaw();
    assert_eq!(words(&subjected, &verified), before);
    subjected.assert_sound();
}

/// A frozen cgroup, where such a group can be made.
#[test]
fn frozen_processes_are_left_alone() {
    let folder = Path::new("/sys/fs/cgroup").join(format!("gops-probe-test-{}", std::process::id()));
    if fs::create_dir(&folder).is_err() || !folder.join("cgroup.freeze").exists() {
        let _ = fs::remove_dir(&folder);
        say("NOT TESTED here: frozen processes (no cgroup can be made)");
        return;
    }
    let mut subjected = Subjected::start(newest_of(24), Variant::Stripped, &[]);
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    write("cgroup.procs", subjected.fixture.pid().to_string());
    write("cgroup.freeze", "1".to_owned());
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(folder.join("cgroup.events")).unwrap().contains("frozen 1") {
        assert!(Instant::now() < deadline);
    }
    let output = subjected.run(&["gc", "PID"]);
    write("cgroup.freeze", "0".to_owned());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("frozen"), "{stderr}");
    subjected.assert_sound();
    drop(subjected);
    let deadline = Instant::now() + PATIENCE;
    while fs::remove_dir(&folder).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a window needs, in a process that is not gops-probe itself.
fn options(interrupted: &dyn Fn() -> bool) -> Options<'_> {
    Options { timeout: PATIENCE, dry_run: false, interrupted, guard: binary().unwrap() }
}

fn never() -> bool {
    false
}

/// The rates of the process: of the heap's and of the mutexes' profile.
fn rates(subjected: &mut Subjected) -> (u64, u64) {
    let said = subjected.fixture.command("rates").unwrap();
    let (heap, mutex) = said.split_once(' ').unwrap();
    (heap.parse().unwrap(), mutex.parse().unwrap())
}

fn block_rate(subject: &Subject<'_>) -> u64 {
    sampling::rate(subject, Profiler::Block).unwrap()
}

/// A site that allocates a known number of bytes is found in the profile with about that number.
#[test]
fn what_a_window_sees() {
    const SIZE: u64 = 4096;
    for version in FEW {
        for rate in [sampling::DEFAULT_HEAP_RATE, 64 << 10] {
            let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
            // Two thousand samples: their number varies by two percent.
            let count = 2000 * rate / SIZE;
            let process = subjected.pinned();
            let subject = Subject::verify(&process).unwrap();
            let mut child = subjected.child("heap", rate, 60_000).spawn().unwrap();
            while rates(&mut subjected).0 == 0 {
                assert!(child.try_wait().unwrap().is_none());
            }
            subjected.fixture.order(&format!("allocate {count} {SIZE}")).unwrap();
            slay(Pid::from_raw(i32::try_from(child.id()).unwrap()));
            child.wait().unwrap();
            subjected.wait_for_guards();
            assert_eq!(rates(&mut subjected), (0, 0));
            let memory = LiveMemory::new(process.pid().as_raw());
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
                subjected.name
            ));
            assert!(sampled >= 1000 && (0.9..1.1).contains(&ratio), "{version} {rate}: {sampled} {ratio}");
            subjected.assert_sound();
        }
    }
}

/// The journals of this process go to the folder of the test that runs: see [`Subjected::child`].
const CHILD: &str = "GOPS_PROBE_TEST_WINDOW";

/// Not a test by itself: opens a window on a process and has it open until it is killed, in a process of its own.
#[test]
#[ignore = "it is what other tests start"]
fn window_in_a_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let process = Process::pin(words[0].parse().unwrap()).unwrap();
    let subject = Subject::verify(&process).unwrap();
    let profiler = match words[1] {
        "heap" => Profiler::Heap,
        "block" => Profiler::Block,
        _ => Profiler::Mutex,
    };
    let time = Duration::from_millis(words[3].parse().unwrap());
    let Opened::Window(window) =
        sampling::open(&subject, profiler, words[2].parse().unwrap(), time, &options(&never)).unwrap()
    else {
        panic!("it was on already");
    };
    window.wait(time, &never).unwrap();
    let closed = window.close().unwrap();
    assert!(closed.restored.iter().all(|word| word.written && word.value == 0), "{closed:?}");
}

impl Subjected {
    /// A process that opens a window for so long.
    fn child(&self, profiler: &str, rate: u64, for_ms: u64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "window_in_a_child", "--ignored"]);
        command.env(CHILD, format!("{} {profiler} {rate} {for_ms}", self.fixture.pid()));
        command.env(STATE_VARIABLE, self.state.path()).env("GOPS_PROBE_BIN", binary().unwrap());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

#[test]
fn windows_of_profilers() {
    for version in tried(&all_releases()) {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        // The linker dropped the profiler of the heap.
        assert_eq!(rates(&mut subjected), (0, 0), "{version}");
        for (profiler, rate, expected) in [
            ("heap", 524_288, (524_288, 0)),
            ("heap", 4096, (4096, 0)),
            ("mutex", 5, (0, 5)),
            ("block", 20_000, (0, 0)),
        ] {
            let mut child = subjected.child(profiler, rate, 300).spawn().unwrap();
            let deadline = Instant::now() + PATIENCE;
            let process = subjected.pinned();
            let subject = Subject::verify(&process).unwrap();
            let is_on = |subjected: &mut Subjected| match profiler {
                "block" => block_rate(&subject) == rate,
                _ => rates(subjected) == expected,
            };
            while !is_on(&mut subjected) {
                assert!(
                    Instant::now() < deadline && child.try_wait().unwrap().is_none(),
                    "{version} {profiler}"
                );
            }
            assert_eq!(subjected.journals(), 1);
            assert!(child.wait().unwrap().success(), "{version} {profiler} {rate}");
            assert_eq!((rates(&mut subjected), block_rate(&subject)), ((0, 0), 0), "{version} {profiler}");
        }
        // A rate of the program's own is left alone.
        subjected.fixture.order("heaprate 1000").unwrap();
        assert!(!subjected.child("heap", 524_288, 10).status().unwrap().success());
        assert_eq!(rates(&mut subjected), (1000, 0));
        subjected.fixture.order("heaprate 0").unwrap();
        // And one that it sets meanwhile.
        let mut child = subjected.child("heap", 524_288, 400).spawn().unwrap();
        while rates(&mut subjected).0 == 0 {
            assert!(child.try_wait().unwrap().is_none());
        }
        subjected.fixture.order("heaprate 2000").unwrap();
        child.wait().unwrap();
        assert_eq!(rates(&mut subjected), (2000, 0));
        subjected.wait_for_guards();
        assert_eq!(subjected.journals(), 0);
        subjected.assert_sound();
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
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        subjected.fixture.order("busy 1").unwrap();
        for victim in [Victim::Us, Victim::Guard, Victim::Both] {
            let what = format!("{}: {profiler} at {rate} killed, {victim:?}", subjected.name);
            let mut repetitions = Repetitions::new("changes", what, 200);
            let (mut was_on, mut left_over) = (0, 0);
            while repetitions.another() {
                let mut child = subjected.child(profiler, rate, 60).spawn().unwrap();
                let window = Duration::from_millis(120);
                random_instant(&subjected, &mut repetitions, &mut child, window, window);
                let ours = Pid::from_raw(i32::try_from(child.id()).unwrap());
                was_on += usize::from(rates(&mut subjected) != (0, 0));
                let guards = subjected.guards();
                if !matches!(victim, Victim::Guard) {
                    slay(ours);
                }
                if !matches!(victim, Victim::Us) {
                    guards.into_iter().for_each(slay);
                }
                child.wait().unwrap();
                subjected.wait_for_guards();
                left_over += usize::from(subjected.has_left_over());
                if !matches!(victim, Victim::Both) {
                    assert_eq!(rates(&mut subjected), (0, 0), "{version}, seed {}", repetitions.seed());
                }
                subjected.look_again();
                assert_eq!(rates(&mut subjected), (0, 0), "{version}, seed {}", repetitions.seed());
            }
            repetitions.report(&json!({ "was_on": was_on, "left_to_the_next_run": left_over }));
        }
        subjected.fixture.order("calm").unwrap();
        subjected.assert_sound();
    }
}

/// What `--enable` writes covers the window, also where somebody interrupts it, and has what was allocated in it.
#[test]
fn profiles_of_a_window() {
    const SIZE: u64 = 4096;
    const RATE: u64 = 64 << 10;
    for version in FEW {
        let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
        let count = 2000 * RATE / SIZE;
        let off = subjected.run(&["pprof-block", "PID"]);
        let said = String::from_utf8_lossy(&off.stderr);
        assert!(!off.status.success() && said.contains("--enable"), "{said}");
        let arguments =
            ["pprof-allocs", "--enable=64KiB", "--duration", "60s", "--format", "json", "-o", "-", "PID"];
        let mut command = subjected.command(&arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while rates(&mut subjected).0 != RATE {
            assert!(Instant::now() < deadline, "{version}");
        }
        subjected.fixture.order(&format!("allocate {count} {SIZE}")).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("what was there before is not in it"), "{stderr}");
        assert_eq!(rates(&mut subjected), (0, 0), "{version}");
        assert_eq!((subjected.journals(), subjected.guards().len()), (0, 0));
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
        say(&format!("changes: {}: --enable saw {ratio:.3} of what was allocated", subjected.name));
        assert!((0.9..1.1).contains(&ratio), "{version}: {ratio}");
        assert!(profile["duration_ns"].as_u64().unwrap() > 0 && profile["cost"]["bytes_written"] == 16);
        // A plain reading has nothing of it to show as its own any more, and the rate stays off.
        subjected.succeed(&["pprof-mutex", "--enable=2", "--duration", "50ms", "-o", "/dev/null", "PID"]);
        subjected.succeed(&["pprof-block", "--enable", "--duration", "50ms", "-o", "/dev/null", "PID"]);
        let process = subjected.pinned();
        assert_eq!(block_rate(&Subject::verify(&process).unwrap()), 0);
        assert_eq!(rates(&mut subjected), (0, 0), "{version}");
        subjected.assert_sound();
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
            let mut subjected = Subjected::start(version, Variant::Stripped, &[]);
            kill_at_random(&mut subjected, &arguments, victim, |subjected, repetitions| {
                let seed = repetitions.seed();
                assert_eq!(rates(subjected), (0, 0), "{version}, seed {seed}");
            });
        }
    }
}
