//! Plugins share the runtime of the program that loads them: their goroutines, profiles and samples are among its own.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::process::Command;

use fixtures::loaded::{Artifact, NamedSample, artifact, sampled};
use fixtures::matrix::{NEWEST, QUICK, newest_of};
use fixtures::{Dump, Fixture, Process, Selection, compare, probe};
use serde_json::Value;

/// Of all shapes of `moduledata` that differ, the newest releases.
const VERSIONS: [&str; 5] = [newest_of(18), newest_of(21), newest_of(24), newest_of(26), NEWEST];

/// What of these is tried: all, or three releases in daily work.
fn tried() -> Vec<&'static str> {
    Selection::from_environment().unwrap().releases(&VERSIONS)
}
/// Goroutines of the program and of its plugin.
const MIXTURES: [(u32, u32); 3] = [(20, 1), (20, 10), (10, 1)];

fn start(version: &str, own: u32, theirs: u32) -> Fixture {
    let host = artifact(version, Artifact::PluginHost).unwrap();
    let plugin = artifact(version, Artifact::Plugin).unwrap();
    let mut command = Command::new(host);
    command.args([own.to_string(), theirs.to_string()]).arg(plugin);
    Process::without_runtime_settings(&mut command);
    Fixture::start(command).unwrap()
}

/// What `gops-probe` answers with success and without a word on standard error.
fn answer(arguments: &[&str], fixture: &Fixture) -> String {
    let pid = fixture.pid().to_string();
    let arguments: Vec<&str> = arguments.iter().copied().chain([pid.as_str()]).collect();
    let output = probe(&arguments).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_of_plugin(text: &str) -> bool {
    text.contains("created by example.com/fixtures/loaded/plugin.Start")
        || text.contains("created by plugin/unnamed-")
}

#[test]
fn goroutines_of_plugins_are_as_the_program_prints_them() {
    for version in tried() {
        for (own, theirs) in MIXTURES {
            let mut fixture = start(version, own, theirs);
            for options in [["stack"].as_slice(), &["stack", "--no-pause"]] {
                let before = Dump::parse(&fixture.dump().unwrap());
                let found = Dump::parse(&answer(options, &fixture));
                let after = Dump::parse(&fixture.dump().unwrap());
                let comparison = compare(&before, &found, &after, fixture.dumper());
                assert!(comparison.accepted(), "{version} {own}+{theirs} {options:?}: {comparison:#?}");
                let all = usize::try_from(own + theirs).unwrap();
                assert_eq!(comparison.equal, all, "{version} {own}+{theirs} {options:?}: {comparison:#?}");
                let plugins = found.goroutines.iter().filter(|g| is_of_plugin(&g.text)).count();
                assert_eq!(plugins, usize::try_from(theirs).unwrap(), "{version}: {found:#?}");
            }
            fixture.assert_untouched().unwrap();
        }
    }
}

#[test]
fn counts_profiles_and_samples_have_plugin_code() {
    for version in tried() {
        let mut fixture = start(version, 8, 4);
        let own: Value = serde_json::from_str(&fixture.command("own stats").unwrap()).unwrap();
        fixture.line("own").unwrap();
        let stats: Value = serde_json::from_str(&answer(&["stats", "--json"], &fixture)).unwrap();
        assert_eq!(stats["goroutines"], own["NumGoroutine"], "{version}");
        // What was allocated is published by the second collection after it.
        for _ in 0..2 {
            fixture.order("own gc").unwrap();
            fixture.line("own").unwrap();
        }
        let memstats: Value = serde_json::from_str(&answer(&["memstats", "--json"], &fixture)).unwrap();
        assert_eq!(memstats["memstats"]["NumGC"], 2, "{version}: {memstats}");
        // 20 arrays of 4,096 items of three words, each of them sampled, and a list of 32 pointers to them.
        let heap = answer(&["pprof-heap", "--format", "folded"], &fixture);
        let kept: u64 = heap.lines().filter(|line| line.contains("plugin.Keep")).filter_map(value).sum();
        assert_eq!(kept, 20 * 4096 * 24 + 32 * 8, "{version}: {heap}");
        let goroutines = answer(&["pprof-goroutine", "--format", "folded"], &fixture);
        let waiting = goroutines.lines().filter(|line| line.contains("plugin.(*item)")).filter_map(value);
        // One of the four is a closure that sleeps before it calls the method.
        assert_eq!(waiting.sum::<u64>(), 3, "{version}: {goroutines}");
        let heap = answer(&["heap", "--json"], &fixture);
        assert!(serde_json::from_str::<Value>(&heap).unwrap()["schema"] == 1, "{version}");
        fixture.assert_untouched().unwrap();
    }
}

/// The value at the end of a line of folded stacks.
fn value(line: &str) -> Option<u64> {
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn samples_of_plugin_code_have_names_and_labels() {
    for version in QUICK {
        for mode in [["pprof-cpu"].as_slice(), &["pprof-cpu", "--mode", "ptrace"]] {
            let mut fixture = start(version, 2, 2);
            fixture.order("compute").unwrap();
            let arguments: Vec<&str> = mode.iter().copied().chain(["-d", "2s", "--format", "json"]).collect();
            let is_computing = |sample: &NamedSample| {
                sample
                    .functions
                    .iter()
                    .any(|name| name.ends_with("plugin.compute") || name.ends_with(".compute"))
            };
            let mut computing: Vec<NamedSample> = Vec::new();
            // Where others have the CPUs, few stops find a thread on one, and none may.
            for _ in 0..10 {
                let samples = sampled(&arguments, fixture.pid()).unwrap();
                computing.extend(samples.into_iter().filter(is_computing));
                if !computing.is_empty() {
                    break;
                }
            }
            assert!(!computing.is_empty(), "{version} {mode:?}");
            for sample in computing {
                assert_eq!(sample.labels["plugin"][0], "plugin0", "{version} {mode:?}: {sample:?}");
                assert!(sample.numbers["goroutine"][0].is_u64(), "{version} {mode:?}: {sample:?}");
            }
            fixture.assert_untouched().unwrap();
        }
    }
}
