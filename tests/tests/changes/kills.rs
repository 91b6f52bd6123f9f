//! Killed and interrupted at any instant, and several at once.

use fixtures::matrix::{NEWEST, newest_of};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fixtures::{Repetitions, Variant};
use inspector::change::verified::VerifiedRuntime;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{CHANGED, ChangedFixture, FEW, PATIENCE};

/// Who is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Victim {
    Us,
    Guard,
    Both,
}

/// Waits for a random instant: half of the time of the whole run, half of it once there is something to put back.
pub(crate) fn random_instant(
    target: &ChangedFixture,
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
    while target.journals() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let changed = u64::try_from(changed.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(repetitions.random(changed)));
}

pub(crate) fn slay(pid: Pid) {
    // Gone already, perhaps.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Starts a command again and again and kills it at a random instant; `check` looks at what is left.
pub(crate) fn kill_at_random(
    target: &mut ChangedFixture,
    arguments: &[&str],
    victim: Victim,
    mut check: impl FnMut(&mut ChangedFixture, &mut Repetitions),
) {
    let what = format!("{}: {} killed, {victim:?}", target.name, arguments[0]);
    let begun = Instant::now();
    target.succeed(arguments);
    let whole = begun.elapsed();
    let mut repetitions = Repetitions::new("changes", what, 200);
    let (mut killed, mut left_over) = (0, 0);
    while repetitions.another() {
        let mut child =
            target.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ours = Pid::from_raw(i32::try_from(child.id()).unwrap());
        random_instant(target, &mut repetitions, &mut child, whole, CHANGED);
        match victim {
            Victim::Us => slay(ours),
            Victim::Guard => target.guards().into_iter().for_each(slay),
            Victim::Both => {
                let guards = target.guards();
                slay(ours);
                guards.into_iter().for_each(slay);
            }
        }
        let status = child.wait().unwrap();
        killed += usize::from(!status.success());
        target.wait_for_guards();
        left_over += usize::from(target.has_left_over());
        if !matches!(victim, Victim::Both) {
            check(target, &mut repetitions);
        }
        target.look_again();
        check(target, &mut repetitions);
        target.fixture.assert_untraced().unwrap();
    }
    repetitions.report(&json!({ "killed": killed, "left_to_the_next_run": left_over }));
    target.assert_sound();
    target.succeed(&["gc", "--via", "probe", "PID"]);
    target.assert_sound();
}

/// The only collection that has something to put back.
#[test]
fn killed_while_gogc_is_off() {
    for version in FEW {
        for victim in [Victim::Us, Victim::Guard, Victim::Both] {
            let mut target = ChangedFixture::start(version, Variant::Stripped, &[("GOGC", "off")]);
            let off = target.number("nextgc") >> 40;
            kill_at_random(&mut target, &["gc", "--via", "probe", "PID"], victim, |target, repetitions| {
                let seed = repetitions.seed();
                // Read without a call that would set it.
                let process = target.pinned();
                let percent = VerifiedRuntime::verify(&process).unwrap().gc_percent().unwrap();
                assert_eq!(percent, -1, "{version}, seed {seed}");
                assert_eq!(target.number("nextgc") >> 40, off, "{version}, seed {seed}");
            });
            assert_eq!(target.percent(-1), -1);
        }
    }
}

#[test]
fn killed_while_the_process_is_busy() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        target.fixture.order("busy 2").unwrap();
        kill_at_random(&mut target, &["gc", "--via", "probe", "PID"], Victim::Us, |_, _| ());
        target.fixture.order("calm").unwrap();
        target.assert_sound();
    }
}

/// Settings are the old ones or the new ones, and whole.
#[test]
fn killed_while_a_setting_changes() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        let arguments = ["setgc", "--via", "probe", "PID", "300"];
        kill_at_random(&mut target, &arguments, Victim::Us, |target, repetitions| {
            let seed = repetitions.seed();
            let (ours, cycles) = (target.number("nextgc"), target.number("numgc"));
            let process = target.pinned();
            let percent = VerifiedRuntime::verify(&process).unwrap().gc_percent().unwrap();
            assert!(percent == 50 || percent == 100 || percent == 300, "{version}, seed {seed}: {percent}");
            // While it sweeps, the call itself puts the goal higher for a moment.
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert_eq!(target.percent(percent), percent);
                let theirs = target.number("nextgc");
                if theirs == ours || target.number("numgc") != cycles {
                    break;
                }
                assert!(Instant::now() < deadline, "{version}, seed {seed}: {percent}: {ours}, not {theirs}");
                std::thread::sleep(Duration::from_millis(10));
            }
            target.percent(50);
        });
        if version == newest_of(18) {
            continue;
        }
        let arguments = ["setmemlimit", "PID", "1GiB"];
        kill_at_random(&mut target, &arguments, Victim::Us, |target, repetitions| {
            let before = target.number(&format!("limit {}", 2u64 << 30));
            let known = [i64::MAX as u64, 1 << 30, 2 << 30];
            assert!(known.contains(&before), "{version}, seed {}: {before}", repetitions.seed());
        });
    }
}

/// Ctrl-C puts everything back before it ends.
#[test]
fn interrupted() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[("GOGC", "off")]);
        let name = format!("{}: gc interrupted", target.name);
        let mut repetitions = Repetitions::new("changes", name, 100);
        let mut interrupted = 0;
        while repetitions.another() {
            let mut command = target.command(&["gc", "--via", "probe", "PID"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            random_instant(&target, &mut repetitions, &mut child, Duration::from_millis(120), CHANGED);
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT);
            let status = child.wait().unwrap();
            let by_us = status.code() == Some(130);
            interrupted += usize::from(by_us);
            // Before it has begun with anything, the signal ends it as any program.
            assert!(by_us || status.success() || status.code().is_none(), "{status}");
            assert_eq!((target.journals(), target.guards().len()), (0, 0), "{version}");
            assert_eq!(target.percent(-1), -1, "{version}, seed {}", repetitions.seed());
        }
        repetitions.report(&json!({ "interrupted": interrupted }));
        target.assert_sound();
    }
}

/// Two at once keep out of each other's way.
#[test]
fn several_at_once() {
    let mut target = ChangedFixture::start(NEWEST, Variant::Stripped, &[("GOGC", "off")]);
    target.fixture.order("busy 1").unwrap();
    for _ in 0..3 {
        let commands = [&["gc", "PID"][..], &["gc", "PID"], &["setgc", "PID", "off"], &["gc", "PID"]];
        let children: Vec<Child> = commands
            .iter()
            .map(|arguments| {
                target.command(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // A stop that meets another's stop finds the process traced.
            let polite = stderr.contains("another gops-probe") || stderr.contains("is traced by");
            assert!(output.status.success() || polite, "{stderr}");
        }
        assert_eq!(target.percent(-1), -1);
    }
    target.fixture.order("calm").unwrap();
    target.assert_sound();
}
