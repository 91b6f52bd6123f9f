//! Yama's restrictions of ptrace (`Documentation/admin-guide/LSM/Yama.rst` in Linux).

use std::fs;

use caps::Capability;
use fixtures::Fixture;

use super::capabilities::PARTIAL;
use super::identity::{Identity, OWNER};
use super::machine::expect;
use super::targets::STATES;
use super::{Done, Failure, Machine, ensure};

const SETTING: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// What each scope allows and refuses: to the same user beside the target, to one with CAP_SYS_PTRACE, and to root.
pub(crate) fn scope(machine: &Machine, scope: u32) -> Result<Done, Failure> {
    let Ok(now) = fs::read_to_string(SETTING) else {
        return Ok(Done::Lacking("this kernel has no Yama".to_owned()));
    };
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    if machine.own {
        fs::write(SETTING, scope.to_string())
            .map_err(|e| format!("{SETTING} cannot be set to {scope}: {e}"))?;
    } else if now.trim() != scope.to_string() {
        let why = format!("kernel.yama.ptrace_scope is {} here, and is not changed", now.trim());
        return Ok(Done::Lacking(why));
    }
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let with_capability = OWNER.with(&[Capability::CAP_SYS_PTRACE]);
    let allowed = [
        stacks(machine, Some(OWNER), &mut target, scope, scope == 0)?,
        stacks(machine, Some(with_capability), &mut target, scope, scope < 3)?,
        stacks(machine, None, &mut target, scope, scope < 3)?,
    ];
    // Commands that only look are none of its business.
    let pid = target.pid().to_string();
    let version = format!("go{}", STATES[0].toolchain);
    for command in [&["list"][..], &["version", &pid], &["process", "-v", &pid]] {
        let output = machine.probe_as(OWNER, command)?;
        let text = if scope > 0 && command.contains(&"-v") {
            // It also reads the runtime's settings from memory.
            let cause = format!("kernel.yama.ptrace_scope is {scope}");
            expect("process -v", &output, PARTIAL, &[&cause, "hint: "])?
        } else {
            expect(&command.join(" "), &output, 0, &[])?
        };
        ensure(text.contains(&version), || format!("{version} is not in what {command:?} says: {text}"))?;
    }
    target.assert_untouched()?;
    let word = |allowed| if allowed { "works" } else { "exit code 5" };
    Ok(Done::Passed(format!(
        "stack of a process of the same user: {}; with CAP_SYS_PTRACE: {}; as root: {}; list, version \
         work, process -v {}",
        word(allowed[0]),
        word(allowed[1]),
        word(allowed[2]),
        if scope == 0 { "too" } else { "without settings (exit code 7)" }
    )))
}

/// `stack`, which stops, and `stats`, which only reads, have to work, or to be refused with Yama as the cause.
fn stacks(
    machine: &Machine,
    who: Option<Identity>,
    target: &mut Fixture,
    scope: u32,
    allowed: bool,
) -> Result<bool, Failure> {
    let pid = target.pid().to_string();
    for (command, answer) in [("stack", "goroutine 1 ["), ("stats", "goroutines")] {
        let arguments = [command, &pid];
        let output = match who {
            Some(who) => machine.probe_as(who, &arguments)?,
            None => machine.probe(&arguments)?,
        };
        let what = format!("{command} as {who:?} in scope {scope}");
        if allowed {
            let text = expect(&what, &output, 0, &[])?;
            ensure(text.contains(answer), || format!("{what}: {text}"))?;
        } else {
            let cause = format!("kernel.yama.ptrace_scope is {scope}");
            let hint =
                if scope == 3 { "until the machine restarts" } else { "sysctl kernel.yama.ptrace_scope=0" };
            expect(&what, &output, 5, &[&cause, "hint: ", hint])?;
        }
        target.assert_untouched()?;
    }
    Ok(allowed)
}
