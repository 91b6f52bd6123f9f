//! Programs whose version is not one of the Go project's: with experiments, of vendors, without build info, and with a
//! version that is a lie. What is answered is what the program itself says at the same moment; what cannot be known is
//! refused with exit code 6.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::process::Command;

use fixtures::matrix::{self, NEWEST};
use fixtures::memory::differences;
use fixtures::versions::{Build, Debug};
use fixtures::{Dump, Fixture, Process as Target, compare, probe};
use inspector::runtime::memstats::{self, Sources, Wanted};
use inspector::runtime::open::open;
use serde_json::Value;

const REFUSED: i32 = 6;
/// The runtime's own goroutines may give memory back or sweep between the program's reading and ours.
const TRIES: u32 = 12;

struct Running {
    fixture: Fixture,
    name: String,
}

impl Running {
    fn start(build: Build) -> Self {
        let mut command = Command::new(build.program().unwrap());
        command.args(["-n", "300", "-live", "4"]);
        Target::without_runtime_settings(&mut command);
        Running { fixture: Fixture::start(command).unwrap(), name: build.name() }
    }

    /// What a command writes in JSON, or how it ends.
    fn probe(&self, arguments: &[&str]) -> Result<Value, (Option<i32>, String)> {
        let pid = self.fixture.pid().to_string();
        let arguments: Vec<&str> = arguments.iter().copied().chain([pid.as_str()]).collect();
        let output = probe(&arguments).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
        } else {
            Err((output.status.code(), stderr))
        }
    }

    /// `stack` has the goroutines of the program's own dump.
    fn stack_is_right(&mut self) {
        let before = Dump::parse(&self.fixture.dump().unwrap());
        let found = fixtures::stack(self.fixture.pid(), &[]).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let after = Dump::parse(&self.fixture.dump().unwrap());
        let comparison = compare(&before, &found, &after, self.fixture.dumper());
        assert!(comparison.accepted(), "{}: {comparison:?}", self.name);
        assert!(comparison.total() >= 300, "{}: {comparison:?}", self.name);
    }

    /// `stats`, `memstats` and `heap` say what the program says of itself.
    fn numbers_are_right(&mut self) {
        let process = self.fixture.pinned().unwrap();
        let (view, _) = open(&process).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let sources = Sources::find(&view).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let mut last = Vec::new();
        for _ in 0..TRIES {
            self.fixture.park("park").unwrap();
            let ours = memstats::take(&process, &view, &sources, Wanted::Instant);
            let ours = ours.unwrap_or_else(|e| panic!("{}: {e}", self.name)).answer.memstats;
            let stats = self.probe(&["stats", "--json"]);
            let heap = self.probe(&["heap", "--json"]);
            let theirs = self.fixture.unpark().unwrap();
            let stats = stats.unwrap_or_else(|e| panic!("{}: {e:?}", self.name));
            heap.unwrap_or_else(|e| panic!("{}: {e:?}", self.name));
            for (ours, name) in
                [("goroutines", "Goroutines"), ("os_threads", "Threads"), ("gomaxprocs", "Gomaxprocs")]
            {
                assert_eq!(stats[ours], theirs["Numbers"][name], "{}: {stats}", self.name);
            }
            assert!(stats.get("doubtful").is_none(), "{}: {stats}", self.name);
            last = differences(&theirs["MemStats"], &ours);
            // The scavenger gives memory back in between, and the sweeper spans.
            last.retain(|u| {
                !["HeapReleased", "GCSys", "OtherSys", "HeapIdle", "HeapSys", "NextGC", "StackInuse"]
                    .contains(&u.field.as_str())
            });
            if last.is_empty() {
                return;
            }
        }
        panic!("{}: {last:#?}", self.name);
    }

    /// `version` has the modules and the settings of the build, whatever the version is.
    fn modules_are_told(&self) {
        let pid = self.fixture.pid().to_string();
        let json = probe(&["version", "--via", "probe", "--json", &pid]).unwrap();
        let answer: Value = serde_json::from_slice(&json.stdout).unwrap();
        let info = &answer["build_info"];
        assert_eq!(info["path"], "example.com/fixtures/cmd/memory", "{}: {answer}", self.name);
        assert_eq!(info["main"]["path"], "example.com/fixtures", "{}: {answer}", self.name);
        let settings = info["settings"].as_array().unwrap();
        assert!(settings.iter().any(|s| s["key"] == "GOARCH" && s["value"] == "amd64"), "{answer}");
        // What it calls itself is told where it is no version at all.
        let nonsense = self.name.ends_with("nonsense");
        assert_eq!(info.get("version").and_then(Value::as_str), nonsense.then_some("nonsense"), "{answer}");
        let text = probe(&["version", "--via", "probe", "-v", &pid]).unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("\tmod\texample.com/fixtures\t"), "{}: {text}", self.name);
        assert_eq!(text.contains("\tversion\tnonsense "), nonsense, "{text}");
    }

    /// Whether `list`, `tree` and `version` say that the program's own tables contradict its version.
    fn is_doubted(&self, doubted: bool) {
        let pid = self.fixture.pid().to_string();
        let of_this = |entry: &&Value| entry["pid"] == self.fixture.pid();
        for arguments in [&["list", "--json"][..], &["version", "--via", "probe", "--json", &pid]] {
            let output = probe(arguments).unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            let entry = match answer["processes"].as_array() {
                Some(processes) => processes.iter().find(of_this).unwrap(),
                None => &answer,
            };
            let fields = entry["doubtful"][0]["fields"].as_array();
            assert_eq!(fields.is_some(), doubted, "{arguments:?}: {entry}");
            if doubted {
                assert_eq!(output.status.code(), Some(7), "{arguments:?}: {stderr}");
                assert!(stderr.contains(&pid) && stderr.contains("is doubtful"), "{stderr}");
            }
        }
        for arguments in [&["list"][..], &["tree"], &["version", "--via", "probe", &pid]] {
            let output = probe(arguments).unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let own = |line: &&str| arguments[0] == "version" || line.contains(&pid);
            let line = text.lines().find(own).unwrap();
            // A process at the top of the tree has its number alone.
            if arguments[0] != "tree" {
                assert_eq!(line.contains("(doubtful)"), doubted, "{arguments:?}: {line}");
            }
            assert!(output.status.code() == Some(7) || !doubted, "{arguments:?}");
        }
    }

    fn collections(&mut self) -> u64 {
        self.fixture.send("read").unwrap();
        self.fixture.own_numbers("read").unwrap()["MemStats"]["NumGC"].as_u64().unwrap()
    }

    /// `gc` collects, and `setgc` and `setmemlimit` are taken.
    fn changes(&mut self, memory_limit: bool) {
        let before = self.collections();
        self.probe(&["gc"]).unwrap_or_else(|e| panic!("{}: {e:?}", self.name));
        assert!(self.collections() > before, "{}", self.name);
        let pid = self.fixture.pid().to_string();
        let mut commands = vec![["setgc", pid.as_str(), "100"]];
        if memory_limit {
            commands.push(["setmemlimit", pid.as_str(), "1GiB"]);
        }
        for command in commands {
            let output = probe(&command).unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{} {command:?}: {stderr}", self.name);
        }
    }

    /// Nothing is written; the cause is named.
    fn changes_are_refused(&mut self, because: &str) {
        let before = self.collections();
        let (code, stderr) = self.probe(&["gc"]).unwrap_err();
        assert_eq!(code, Some(REFUSED), "{}: {stderr}", self.name);
        assert!(stderr.contains(because), "{}: {stderr}", self.name);
        assert_eq!(self.collections(), before, "{}", self.name);
    }

    fn end(mut self) {
        self.fixture.assert_untouched().unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }
}

/// A struct that locks are made of is larger, and with it almost everything. The layouts were measured.
#[test]
fn lock_ranking() {
    for toolchain in ["1.18.10", "1.21.13", "1.25.14", NEWEST] {
        let mut running =
            Running::start(Build { toolchain, experiment: "staticlockranking", ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.changes(toolchain != "1.18.10");
        running.end();
    }
}

/// What comes before a release.
#[test]
fn candidates() {
    for toolchain in matrix::candidates() {
        let mut running = Running::start(Build { toolchain, ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.changes(true);
        running.end();
    }
}

/// Experiments that change nothing that is read, and some that change a little.
#[test]
fn experiments() {
    for (toolchain, experiment) in [
        ("1.20.14", "pagetrace"),
        ("1.22.12", "noallocheaders"),
        ("1.24.13", "noswissmap"),
        ("1.25.14", "greenteagc,jsonv2"),
    ] {
        let mut running = Running::start(Build { toolchain, experiment, ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.changes(true);
        running.end();
    }
}

/// What vendors call releases: their runtimes are those of the Go project, which their code shows.
#[test]
fn vendors() {
    for (toolchain, version) in [
        ("1.22.12", "go1.22.12 (Red Hat 1.22.12-1.el9_5) X:strictfipsruntime"),
        ("1.25.14", "go1.25.14-1 X:systemcrypto"),
        ("1.25.14", "go1.25.99-acme"),
        (NEWEST, &*format!("go{NEWEST}-fips-X:jsonv2,bogus").leak()),
    ] {
        let mut running = Running::start(Build { toolchain, version, ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.changes(true);
        running.end();
    }
}

/// An experiment that nobody knows, of which the code shows that it changes structs: goroutines are shown as their layout
/// was held against memory, and all else is refused.
#[test]
fn unknown_experiment_that_changes_structs() {
    let build = Build {
        toolchain: "1.25.14",
        experiment: "staticlockranking",
        version: "go1.25.14 X:newlocks",
        ..Build::default()
    };
    // The settings still name it, so they are overwritten: only the version in memory is left.
    let mut running = Running::start(Build { wiped: true, ..build });
    for command in ["stats", "memstats", "heap"] {
        let (code, stderr) = running.probe(&[command]).unwrap_err();
        assert_eq!(code, Some(REFUSED), "{command}: {stderr}");
        assert!(stderr.contains("GOEXPERIMENT=newlocks"), "{command}: {stderr}");
    }
    match running.probe(&["stack"]) {
        Ok(_) => running.stack_is_right(),
        Err((code, stderr)) => assert_eq!(code, Some(REFUSED), "{stderr}"),
    }
    running.changes_are_refused("newlocks");
    running.end();
}

/// The version is a string in memory, where no build info says it.
#[test]
fn without_build_info() {
    for toolchain in ["1.18.10", "1.22.12", "1.25.14", NEWEST] {
        let mut running = Running::start(Build { toolchain, wiped: true, ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.changes(toolchain != "1.18.10");
        running.end();
    }
}

/// Whatever a program calls itself, what its memory and code show is answered, and nothing is written.
#[test]
fn versions_that_are_lies() {
    for version in ["go1.99", "nonsense", "go1.22.12", "go1.18.10"] {
        let mut running = Running::start(Build { toolchain: "1.25.14", version, ..Build::default() });
        running.stack_is_right();
        running.numbers_are_right();
        running.modules_are_told();
        running.is_doubted(version == "go1.18.10");
        running.changes_are_refused("exact Go release is not known");
        running.end();
    }
}

/// Why nothing is written into a program whose layouts are not its own: that it has no debug information, that its debug
/// information is of its C code alone, or that it is of Go and was not what the layouts are from.
#[test]
fn layouts_that_are_stripped_and_those_that_are_not() {
    for (debug, because) in [
        (Debug::Stripped, "it is built with -race, and its own layouts are stripped;"),
        (
            Debug::OfC,
            "-race, and its own layouts are stripped: its debug information has none of Go's runtime;",
        ),
        (Debug::All, "-race, and its layouts are not taken from its own debug information;"),
    ] {
        // From Go 1.26 on, its linker has the system's leave out that of C too.
        let build = Build { toolchain: "1.25.14", race: true, debug, ..Build::default() };
        let mut running = Running::start(build);
        running.stack_is_right();
        running.changes_are_refused(because);
        running.end();
    }
}

/// The experiments that a program was built with are in its build settings too, whatever it calls itself.
#[test]
fn nonsense_with_an_experiment() {
    let build = Build {
        toolchain: "1.25.14",
        experiment: "staticlockranking",
        version: "nonsense",
        ..Build::default()
    };
    let mut running = Running::start(build);
    running.stack_is_right();
    running.numbers_are_right();
    running.changes_are_refused("exact Go release is not known");
    running.end();
}
