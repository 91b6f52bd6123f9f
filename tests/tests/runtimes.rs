//! Several Go runtimes in one process, all stripped: each answers for itself, as its library says, and only the one that is
//! chosen is changed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use fixtures::loaded::{Artifact, NamedSample, artifact, c_host, named_samples, python_host, sampled};
use fixtures::matrix::{NEWEST, newest_of};
use fixtures::{Dump, Fixture, Process, compare, probe};
use serde_json::Value;

/// A process with a runtime for each of its libraries, and maybe one of its own.
struct Host {
    fixture: Fixture,
    /// The modules with a runtime, in the order of their numbers.
    modules: Vec<PathBuf>,
    /// It answers `done` behind each answer of a runtime.
    says_done: bool,
}

impl Host {
    /// Starts a C program with libraries.
    fn in_c(libraries: Vec<PathBuf>) -> Self {
        let mut command = Command::new(c_host().unwrap());
        command.args(&libraries);
        Self::start(command, libraries, false)
    }

    fn start(mut command: Command, modules: Vec<PathBuf>, says_done: bool) -> Self {
        Process::without_runtime_settings(&mut command);
        let fixture = Fixture::start(command).unwrap();
        let mut host = Host { fixture, modules, says_done };
        for number in 0..host.modules.len() {
            // Each has another number of goroutines.
            assert_eq!(host.ask(number, &format!("start {}", 9 + 3 * number)), "ok");
        }
        for number in 0..host.modules.len() {
            assert_eq!(host.ask(number, "settle"), "ok");
        }
        host
    }

    fn ask(&mut self, number: usize, question: &str) -> String {
        let answer = self.fixture.command(&format!("{number} {question}")).unwrap();
        self.done();
        answer
    }

    fn done(&mut self) {
        if self.says_done {
            assert_eq!(self.fixture.line("done").unwrap(), "done");
        }
    }

    fn dump(&mut self, number: usize) -> Dump {
        let text = self.fixture.dump_on(&format!("{number} dump")).unwrap();
        self.done();
        Dump::parse(&text)
    }

    fn stats(&mut self, number: usize) -> Value {
        serde_json::from_str(&self.ask(number, "stats")).unwrap()
    }

    fn module(&self, number: usize) -> String {
        self.modules[number].display().to_string()
    }

    fn probe(&self, arguments: &[&str]) -> Output {
        let pid = self.fixture.pid().to_string();
        let (command, options) = arguments.split_first().unwrap();
        let arguments: Vec<&str> = [*command, &pid].into_iter().chain(options.iter().copied()).collect();
        probe(&arguments).unwrap()
    }

    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.probe(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.answer(&arguments)).unwrap()
    }

    fn profile(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.answer(&arguments)).unwrap()
    }

    /// The answer of a module among those of several.
    fn of<'v>(&self, several: &'v Value, number: usize) -> &'v Value {
        assert_eq!(several["schema"], 2, "{several}");
        let all = several["runtimes"].as_array().unwrap();
        assert_eq!(all.len(), self.modules.len(), "{several}");
        let module = self.module(number);
        &all.iter().find(|one| one["module"] == module.as_str()).unwrap()["answer"]
    }

    /// Each runtime's goroutines are as the library itself prints them, in an answer of all and in one of each.
    fn check_stacks(&mut self) {
        for number in 0..self.modules.len() {
            let dumper = self.ask(number, "id").parse().unwrap();
            let module = self.module(number);
            for options in [["stack"].as_slice(), &["stack", "--runtime", &module], &["stack", "--no-pause"]]
            {
                let before = self.dump(number);
                let text = self.answer(options);
                let after = self.dump(number);
                let chosen = options.contains(&"--runtime");
                assert_eq!(text.contains("\nruntime ") || text.starts_with("runtime "), !chosen, "{text}");
                let part = if chosen { text.clone() } else { part_of(&text, &module) };
                let comparison = compare(&before, &Dump::parse(&part), &after, dumper);
                assert!(comparison.accepted(), "{module} {options:?}: {comparison:#?}");
                assert!(comparison.equal >= 9 + 3 * number, "{module} {options:?}: {comparison:#?}");
            }
        }
    }

    fn check_numbers(&mut self) {
        // In each another number of collections.
        for number in 0..self.modules.len() {
            for _ in 0..=number {
                assert_eq!(self.ask(number, "gc"), "ok");
            }
        }
        let stats = self.json(&["stats"]);
        let memstats = self.json(&["memstats"]);
        let heap = self.json(&["heap"]);
        for number in 0..self.modules.len() {
            let own = self.stats(number);
            // Before Go 1.21 the goroutine that C calls runs only while it is called: it counts itself, and we do not see it.
            let left = own["Version"].as_str().unwrap().starts_with("go1.18.") && !self.says_done;
            let visible = own["NumGoroutine"].as_u64().unwrap() - u64::from(left);
            assert_eq!(self.of(&stats, number)["goroutines"], visible, "{stats}");
            let answer = self.of(&memstats, number);
            assert_eq!(answer["memstats"]["NumGC"], own["NumGC"], "{memstats}");
            assert_eq!(self.of(&heap, number)["schema"], 1, "{heap}");
            let release = memstats["runtimes"].as_array().unwrap().iter();
            let release = release.filter(|one| one["release"] == own["Version"]);
            assert!(release.count() > 0, "{memstats}");
        }
    }

    fn check_untouched(&mut self) {
        self.fixture.assert_untouched().unwrap();
    }
}

/// What stands below the heading of a module.
fn part_of(text: &str, module: &str) -> String {
    let heading = format!("runtime {module} (");
    let start = text.find(&heading).unwrap_or_else(|| panic!("no {heading} in {text}"));
    let rest = &text[start..];
    let end = rest.find("\nruntime ").map_or(rest.len(), |end| end + 1);
    rest[rest.find('\n').unwrap() + 1..end].to_owned()
}

fn library(version: &str, name: &'static str) -> PathBuf {
    artifact(version, Artifact::Library(name)).unwrap()
}

#[test]
fn each_runtime_answers_for_itself() {
    for (first, second) in [(NEWEST, NEWEST), (newest_of(18), NEWEST), (newest_of(21), newest_of(24))] {
        let mut host = Host::in_c(vec![library(first, "alpha"), library(second, "beta")]);
        host.check_stacks();
        host.check_numbers();
        host.check_untouched();
    }
}

#[test]
fn a_go_program_and_the_library_that_it_loads_are_two() {
    for (program, library_of) in [(newest_of(24), NEWEST), (NEWEST, NEWEST)] {
        let program = artifact(program, Artifact::GoHost).unwrap();
        let alpha = library(library_of, "alpha");
        let mut command = Command::new(&program);
        command.arg(&alpha);
        let mut host = Host::start(command, vec![program, alpha], true);
        host.check_stacks();
        host.check_numbers();
        names_them(&host);
        host.check_untouched();
    }
}

#[test]
fn libraries_in_python() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there is no python3");
        return;
    }
    let libraries = vec![library(NEWEST, "alpha"), library(newest_of(24), "beta")];
    let mut command = Command::new("python3");
    command.arg(python_host()).args(&libraries);
    let mut host = Host::start(command, libraries, false);
    host.check_stacks();
    host.check_numbers();
    names_them(&host);
    host.check_untouched();
}

/// `list` and `version` name each of them.
fn names_them(host: &Host) {
    let pid = host.fixture.pid();
    let version = host.answer(&["version"]);
    let described = host.json(&["version"]);
    let list = String::from_utf8(probe(&["list"]).unwrap().stdout).unwrap();
    let line = list.lines().find(|line| line.trim_start().starts_with(&format!("{pid} "))).unwrap();
    for number in 0..host.modules.len() {
        let module = host.module(number);
        assert!(version.contains(&format!("runtime {module} (go1.")), "{version}");
        assert!(line.contains(&format!("{module} go1.")), "{line}");
        let all = described["runtimes"].as_array().unwrap();
        assert!(all.iter().any(|one| one["module"] == module.as_str()), "{described}");
    }
}

#[test]
fn one_is_chosen_by_its_path_or_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let original = library(NEWEST, "alpha");
    let copy = folder.path().join("alpha.so");
    fs::copy(&original, &copy).unwrap();
    let mut host = Host::in_c(vec![original, copy, library(newest_of(24), "beta")]);
    names_them(&host);
    host.check_stacks();
    let goroutines = |host: &mut Host, number: usize| host.stats(number)["NumGoroutine"].clone();
    for (name, number) in [("beta.so", 2), (&*host.module(0), 0), (&*host.module(1), 1)] {
        let stats = host.json(&["stats", "--runtime", name]);
        assert_eq!(stats["schema"], 1);
        assert_eq!(stats["goroutines"], goroutines(&mut host, number), "{name}: {stats}");
    }
    for name in ["alpha.so", "gamma.so", "alpha"] {
        let output = host.probe(&["stats", "--runtime", name]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        for number in 0..3 {
            assert!(stderr.contains(&host.module(number)), "{name}: {stderr}");
        }
    }
    host.check_untouched();
}

#[test]
fn only_the_chosen_one_is_changed() {
    for (first, second) in [(NEWEST, NEWEST), (newest_of(21), newest_of(26))] {
        let mut host = Host::in_c(vec![library(first, "alpha"), library(second, "beta")]);
        let before = [host.stats(0), host.stats(1)];
        for command in [["gc"].as_slice(), &["setgc", "50"], &["setmemlimit", "1GiB"]] {
            let output = host.probe(command);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}");
            for number in 0..2 {
                assert!(stderr.contains(&host.module(number)), "{command:?}: {stderr}");
            }
        }
        let output = host.probe(&["pprof-block", "--enable", "--duration", "1s"]);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        let unchanged = [host.stats(0), host.stats(1)];
        for number in 0..2 {
            assert_eq!(unchanged[number]["NumGC"], before[number]["NumGC"]);
            assert_eq!(unchanged[number]["Percent"], 100);
        }
        host.answer(&["gc", "--runtime", "beta.so"]);
        host.answer(&["setgc", "50", "--runtime", "beta.so"]);
        host.answer(&["setgc", "200", "--runtime", "alpha.so"]);
        let after = [host.stats(0), host.stats(1)];
        let collections = |stats: &Value| stats["NumGC"].as_u64().unwrap();
        assert_eq!(collections(&after[0]), collections(&before[0]), "{after:?}");
        assert_eq!(collections(&after[1]), collections(&before[1]) + 1, "{after:?}");
        assert_eq!([&after[0]["Percent"], &after[1]["Percent"]], [200, 50]);
        host.check_untouched();
    }
}

#[test]
fn profiles_of_all_are_one_with_labels() {
    let mut host = Host::in_c(vec![library(NEWEST, "alpha"), library(newest_of(24), "beta")]);
    for number in 0..2 {
        // What was allocated is published by the second collection after it.
        assert_eq!(host.ask(number, "keep 600000"), "ok");
        assert_eq!(host.ask(number, "gc"), "ok");
        assert_eq!(host.ask(number, "gc"), "ok");
    }
    let own: Vec<Value> = (0..2).map(|number| host.stats(number)).collect();
    let profile = host.profile(&["pprof-goroutine"]);
    let heap = host.profile(&["pprof-heap"]);
    for (number, own) in own.iter().enumerate() {
        let module = host.module(number);
        let of_module = |sample: &&NamedSample| sample.labels["runtime"][0] == module.as_str();
        let samples = named_samples(&profile);
        let count: i64 = samples.iter().filter(of_module).map(|sample| sample.value).sum();
        assert_eq!(Some(count), own["NumGoroutine"].as_i64(), "{profile}");
        let samples = named_samples(&heap);
        let keeps = |sample: &&NamedSample| sample.functions.iter().any(|name| name.ends_with("answers.Of"));
        assert!(samples.iter().filter(of_module).any(|sample| keeps(&sample)), "{heap}");
        let chosen = host.profile(&["pprof-goroutine", "--runtime", &module]);
        assert!(named_samples(&chosen).iter().all(|sample| sample.labels["runtime"].is_null()), "{chosen}");
    }
    host.check_untouched();
}

#[test]
fn samples_are_of_the_runtime_whose_code_runs() {
    let mut host = Host::in_c(vec![library(NEWEST, "alpha"), library(newest_of(21), "beta")]);
    for number in 0..2 {
        assert_eq!(host.ask(number, "compute"), "ok");
    }
    let may_sample = probe(&["pprof-cpu", "--system", "-d", "100ms", "-o", "/dev/null", "--mode", "bpf"]);
    let may_sample = may_sample.is_ok_and(|output| output.status.success());
    for mode in ["bpf", "ptrace"] {
        if mode == "bpf" && !may_sample {
            println!("SKIPPED: the kernel or our rights do not allow BPF programs");
            continue;
        }
        let computes =
            |sample: &&NamedSample| sample.functions.iter().any(|name| name.ends_with("waits.compute"));
        let of = |samples: &[NamedSample], number: usize| -> Vec<NamedSample> {
            let module = host.module(number);
            let own = samples.iter().filter(|sample| sample.labels["runtime"][0] == module.as_str());
            own.filter(computes).cloned().collect()
        };
        let mut samples: Vec<NamedSample> = Vec::new();
        // On a busy machine the looks of ptrace may all miss one of them.
        let rounds = if mode == "ptrace" { 10 } else { 1 };
        for _ in 0..rounds {
            let arguments = ["pprof-cpu", "-d", "3s", "--mode", mode, "--format", "json"];
            samples.extend(sampled(&arguments, host.fixture.pid()).unwrap());
            if (0..2).all(|number| !of(&samples, number).is_empty()) {
                break;
            }
        }
        for number in 0..2 {
            let name = ["alpha", "beta"][number];
            let own = of(&samples, number);
            assert!(!own.is_empty(), "{mode} {name}: {samples:#?}");
            for sample in own {
                assert_eq!(sample.labels["library"][0], name, "{mode}: {sample:?}");
                assert!(sample.numbers["goroutine"][0].is_u64(), "{mode}: {sample:?}");
            }
        }
    }
    for number in 0..2 {
        assert_eq!(host.ask(number, "rest"), "ok");
    }
    host.check_untouched();
}

#[test]
fn process_says_what_each_is_set_to() {
    let mut host = Host::in_c(vec![library(NEWEST, "alpha"), library(newest_of(24), "beta")]);
    let text = host.answer(&["process", "-v"]);
    for number in 0..2 {
        assert!(text.contains(&format!("runtime:\t{} (go1.", host.module(number))), "{text}");
    }
    host.check_untouched();
}
