//! CPU profiles in each way in which samples are taken.

use std::fs;
use std::process::Output;

use fixtures::Fixture;
use fixtures::pprof::{self, Row};
use serde_json::Value;

use super::capabilities::{BPF, PERFMON, PTRACE, declares, names, refusal};
use super::identity::{Identity, OTHER, OWNER};
use super::machine::expect;
use super::targets::HOT;
use super::{Done, Failure, Machine, ensure};
use crate::needs::Need;

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Samples that are enough to judge by.
pub(super) const ENOUGH: u64 = 30;

/// The same where threads are stopped one at a time: where a stop takes long, as in an emulated machine, there are few,
/// and each counts for all the time since the one before.
const ENOUGH_STOPS: u64 = 5;

fn enough(mode: &Value) -> u64 {
    if mode == "ptrace" { ENOUGH_STOPS } else { ENOUGH }
}

/// For how many seconds is sampled, one after the other until there is enough: an emulated machine that gets little of
/// its host's time does not take as many as it should.
const SECONDS: [&str; 3] = ["2", "5", "20"];

pub(super) fn busy(mut target: Fixture) -> Result<Fixture, Failure> {
    target.order("begin shares")?;
    Ok(target)
}

pub(super) fn still(mut target: Fixture) -> Result<(), Failure> {
    target.assert_untouched()?;
    target.order("end")?;
    target.assert_untouched()?;
    Ok(())
}

/// Runs `pprof-cpu` for longer and longer until there is enough.
fn profiled(run: impl Fn(&str) -> Result<Output, Failure>) -> Result<Output, Failure> {
    let mut output = run(SECONDS[0])?;
    for seconds in &SECONDS[1..] {
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if said["sampling"]["samples"]
            .as_u64()
            .is_none_or(|samples| samples >= enough(&said["sampling"]["mode"]))
        {
            break;
        }
        output = run(seconds)?;
    }
    Ok(output)
}

/// How many samples are in the functions that compute: in all, and in each of the three.
pub(super) fn shares(rows: &[Row]) -> [u64; 4] {
    ["main.shares", "main.fifty", "main.thirty", "main.twenty"].map(|name| {
        rows.iter().filter(|row| row.passes(name)).map(|row| row.values[0].cast_unsigned()).sum::<u64>()
    })
}

/// What the command said about its samples, and how many of them are in the functions that compute.
fn checked(what: &str, said: &str, rows: Option<&[Row]>, mode: &str) -> Result<String, Failure> {
    let said: Value = serde_json::from_str(said)?;
    let sampling = &said["sampling"];
    ensure(sampling["mode"] == mode, || format!("{what}: samples by {}, not by {mode}", sampling["mode"]))?;
    let samples = sampling["samples"].as_u64().ok_or_else(|| format!("{what}: no samples in {said}"))?;
    ensure(samples >= enough(&sampling["mode"]), || {
        format!("{what}: {samples} samples are too few: {said}")
    })?;
    let Some(rows) = rows else { return Ok(format!("{samples} samples by {mode}")) };
    let [all, fifty, thirty, twenty] = shares(rows);
    let text = format!("{samples} samples by {mode}, {all} in its work: {fifty}, {thirty}, {twenty}");
    let hot = if mode == "ptrace" {
        fifty + thirty + twenty > 0
    } else {
        // In an emulated machine the monitor and the kernel take more than elsewhere.
        all * 10 >= samples * 6 && fifty > 0 && thirty > 0 && twenty > 0
    };
    ensure(hot, || format!("{what}: {text}"))?;
    Ok(text)
}

pub(crate) fn modes(machine: &Machine) -> Result<Done, Failure> {
    let target = busy(machine.target(&HOT)?)?;
    let pid = target.pid().to_string();
    let mut done = Vec::new();
    for mode in ["bpf", "perf", "ptrace"] {
        let path = format!("/tmp/gops-probe-{pid}.{mode}");
        let output = profiled(|seconds| {
            machine.probe(&["pprof-cpu", "--json", "--mode", mode, "-d", seconds, "-o", &path, &pid])
        })?;
        if !machine.own && !output.status.success() {
            still(target)?;
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Ok(Done::Lacking(format!("by {mode}: {why}")));
        }
        let said = expect(mode, &output, 0, &[])?;
        let profile = pprof::parse(&fs::read(&path)?).ok_or_else(|| format!("by {mode}: not a profile"))?;
        fs::remove_file(&path)?;
        done.push(checked(mode, &said, Some(&profile.rows), mode)?);
    }
    still(target)?;
    Ok(Done::Passed(done.join("; ")))
}

/// What becomes of `pprof-cpu` without `--mode`.
struct Case {
    who: Identity,
    /// Of `kernel.perf_event_paranoid`.
    level: u32,
    /// Which way is taken; else the program is refused with exit code 5.
    mode: Option<&'static str>,
    /// Said about the better ways, or about the refusal.
    because: &'static [&'static str],
}

const fn case(
    who: Identity,
    level: u32,
    mode: Option<&'static str>,
    because: &'static [&'static str],
) -> Case {
    Case { who, level, mode, because }
}

const NEEDS_BPF: &str = "it needs CAP_BPF and CAP_PERFMON";
const LEVEL: &str = "kernel.perf_event_paranoid is 3";

const CASES: &[Case] = &[
    case(OTHER.with(&[BPF, PERFMON, PTRACE]), 2, Some("bpf"), &[]),
    case(OTHER.with(&[PERFMON, PTRACE]), 2, Some("perf"), &[NEEDS_BPF]),
    case(OTHER.with(&[BPF, PTRACE]), 2, Some("perf"), &[NEEDS_BPF]),
    case(OTHER.with(&[BPF, PERFMON]), 2, None, &["belongs to another user", "hint: "]),
    case(OWNER, 2, Some("perf"), &[NEEDS_BPF]),
    case(OTHER.with(&[BPF, PERFMON, PTRACE]), 3, Some("ptrace"), &["bpf", "perf", LEVEL]),
    case(OTHER.with(&[PTRACE]), 3, Some("ptrace"), &[NEEDS_BPF, LEVEL]),
];

pub(crate) fn needs(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    let before = fs::read_to_string(PARANOID)?;
    if !machine.own && before.trim().parse::<i32>()? > 2 {
        let why = format!("kernel.perf_event_paranoid is {} here, and is not changed", before.trim());
        return Ok(Done::Lacking(why));
    }
    declares(
        machine,
        "pprof-cpu",
        "root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; without BPF, perf events where \
         kernel.perf_event_paranoid is at most 2, or else what `stack` needs",
    )?;
    let mut target = busy(machine.target_as(OWNER, &HOT)?)?;
    let pid = target.pid().to_string();
    // Up to 2, the level makes no difference to any of them.
    let cases: Vec<&Case> = CASES.iter().filter(|case| machine.own || case.level <= 2).collect();
    for (n, Case { who, level, mode, because }) in cases.iter().enumerate() {
        if machine.own {
            fs::write(PARANOID, level.to_string())?;
        }
        let path = format!("/tmp/gops-probe-{pid}.{n}");
        let output = profiled(|seconds| {
            machine.probe_as(*who, &["pprof-cpu", "--json", "-d", seconds, "-o", &path, &pid])
        })?;
        // There is none where it was refused.
        let _ = fs::remove_file(&path);
        let user = if who.uid == OWNER.uid { "owner" } else { "another user" };
        let what = format!("pprof-cpu, perf_event_paranoid {level}, {user} with [{}]", who.names());
        let became = match mode {
            Some(mode) => {
                let said = expect(&what, &output, 0, because)?;
                checked(&what, &said, None, mode)?;
                format!("works by {mode}")
            }
            None => {
                expect(&what, &output, 5, because)?;
                refusal(because[0])
            }
        };
        target.assert_untouched()?;
        machine.note(Need {
            command: format!("pprof-cpu (kernel.perf_event_paranoid {level})"),
            user: user.to_owned(),
            capabilities: names(*who),
            result: became,
        });
    }
    if machine.own {
        fs::write(PARANOID, before.trim())?;
    }
    still(target)?;
    Ok(Done::Passed(format!("{} sets of capabilities and levels of perf_event_paranoid", cases.len())))
}
