//! Each command with exactly what it declares to need, and with less.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use caps::Capability;
use fixtures::Fixture;

use super::identity::{BARE_ROOT, Identity, OTHER, OWNER};
use super::machine::expect;
use super::targets::STATES;
use super::{Done, Failure, Machine, ensure};

const PTRACE_AND_FOLDERS: &[Capability] = &[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// The exit code of an answer that lacks something.
pub(crate) const PARTIAL: i32 = 7;

const PTRACE: &[Capability] = &[Capability::CAP_SYS_PTRACE];

/// What `--help` of a command says that it needs: when it says something else, these tests have to follow.
fn declares(machine: &Machine, command: &str, needs: &str) -> Result<(), Failure> {
    let help = expect(command, &machine.probe(&[command, "--help"])?, 0, &[])?;
    // It is wrapped to the width of a terminal.
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    ensure(help.contains(&format!("Needs: {needs}")), || {
        format!("{command} declares another need than {needs:?}: {help}")
    })
}

struct Case {
    who: Identity,
    /// Whether it works; else it is refused with this cause.
    refused: Option<&'static str>,
}

const fn works(who: Identity) -> Case {
    Case { who, refused: None }
}

const fn refused(who: Identity, cause: &'static str) -> Case {
    Case { who, refused: Some(cause) }
}

/// Runs a command about a target of [`OWNER`] in each case.
fn try_all(
    machine: &Machine,
    target: &mut Fixture,
    command: &[&str],
    expected: &str,
    cases: &[Case],
) -> Result<(), Failure> {
    for Case { who, refused } in cases {
        let output = machine.probe_as(*who, command)?;
        let what = format!("{} as user {} with [{}]", command.join(" "), who.uid, who.names());
        match refused {
            None => {
                let text = expect(&what, &output, 0, &[])?;
                ensure(text.contains(expected), || format!("{what}: {expected:?} is not in {text:?}"))?;
            }
            Some(cause) => {
                expect(&what, &output, 5, &[cause, "hint: "])?;
            }
        }
        target.assert_untouched()?;
    }
    Ok(())
}

fn restricted() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|text| text.trim() != "0")
}

pub(crate) fn look(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    const NEEDS: &str = "nothing for your own processes; root or CAP_SYS_PTRACE for those of others";
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let pid = target.pid().to_string();
    let version = format!("go{}", STATES[0].toolchain);
    let theirs = "belongs to another user";
    let cases = [
        works(OWNER),
        works(OTHER.with(PTRACE)),
        works(BARE_ROOT.with(PTRACE)),
        refused(OTHER, theirs),
        refused(BARE_ROOT, "we do not have CAP_SYS_PTRACE"),
    ];
    declares(machine, "version", NEEDS)?;
    try_all(machine, &mut target, &["version", &pid], &version, &cases)?;
    declares(machine, "binary", NEEDS)?;
    try_all(machine, &mut target, &["binary", &pid, "-o", "/dev/null"], "", &cases)?;
    // Those about all processes say what they can, and that it is not all.
    for command in ["list", "tree"] {
        declares(machine, command, NEEDS)?;
        try_all(machine, &mut target, &[command], &pid, &cases[..3])?;
        for who in [OTHER, BARE_ROOT] {
            let output = machine.probe_as(who, &[command])?;
            let text = expect(command, &output, 0, &["could not be looked into", "hint: "])?;
            let seen = text.split_whitespace().any(|word| word == pid);
            ensure(!seen, || format!("{command} as user {} sees {pid}: {text}", who.uid))?;
        }
    }
    // What /proc says to everybody needs nothing; the settings in memory do.
    declares(
        machine,
        "process",
        "nothing for your own processes; root or CAP_SYS_PTRACE for settings in the memory of those of others or where ptrace is restricted, with CAP_DAC_READ_SEARCH for the connections of those of others",
    )?;
    try_all(machine, &mut target, &["process", &pid], "elapsed time", &[works(OWNER)])?;
    let partial = machine.probe_as(OTHER, &["process", &pid])?;
    let text = expect("process of another user", &partial, PARTIAL, &[theirs, "hint: "])?;
    ensure(text.contains("elapsed time"), || format!("process of another user: {text}"))?;
    if !restricted() {
        try_all(machine, &mut target, &["process", "--json", &pid], "\"gogc\": 100", &[works(OWNER)])?;
    }
    let with = [works(OTHER.with(PTRACE_AND_FOLDERS)), works(BARE_ROOT.with(PTRACE_AND_FOLDERS))];
    try_all(machine, &mut target, &["process", "--json", &pid], "\"gogc\": 100", &with)?;
    // The folder of a process's descriptors is readable to its owner alone, whatever ptrace allows.
    let fewer = machine.probe_as(OTHER.with(PTRACE), &["process", "--json", &pid])?;
    let text = expect("process --json", &fewer, PARTIAL, &["cannot list the open files"])?;
    ensure(text.contains("\"gogc\": 100"), || format!("process --json with CAP_SYS_PTRACE: {text}"))?;
    let without = machine.probe_as(OTHER, &["process", "--json", &pid])?;
    let text = expect("process --json", &without, PARTIAL, &[theirs, "hint: "])?;
    ensure(!text.contains("gogc"), || format!("process --json of another user's process: {text}"))?;
    target.assert_untouched()?;
    Ok(Done::Passed(
        "own processes: nothing; those of others: CAP_SYS_PTRACE, without it exit code 5 (list and tree leave them \
         out and say so, process gives a partial answer)"
            .to_owned(),
    ))
}

const STACK_NEEDS: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted";

fn stack_cases() -> Vec<Case> {
    let mut cases = vec![
        works(OTHER.with(PTRACE)),
        works(BARE_ROOT.with(PTRACE)),
        refused(OTHER, "belongs to another user"),
        refused(BARE_ROOT, "we do not have CAP_SYS_PTRACE"),
    ];
    if !restricted() {
        cases.push(works(OWNER));
    }
    cases
}

pub(crate) fn stack(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    declares(machine, "stack", STACK_NEEDS)?;
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let pid = target.pid().to_string();
    for mode in [&["stack"][..], &["stack", "--no-pause"]] {
        try_all(machine, &mut target, &[mode, &[&pid]].concat(), "goroutine 1 [", &stack_cases())?;
    }
    Ok(Done::Passed(
        "own processes: nothing; those of others: CAP_SYS_PTRACE; exit code 5 to others without it, root too"
            .to_owned(),
    ))
}

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn serve(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    declares(machine, "serve", STACK_NEEDS)?;
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let pid = target.pid().to_string();
    let (works, refused): (Vec<Case>, Vec<Case>) =
        stack_cases().into_iter().partition(|case| case.refused.is_none());
    try_all(machine, &mut target, &["serve", "--gops", &pid], "", &refused)?;
    for Case { who, .. } in works {
        let mut command = machine.command_as(who, &machine.probe_path());
        command.args(["serve", "--gops", &pid]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server(command.spawn()?);
        let mut address = String::new();
        let output = server.0.stdout.take().ok_or("no pipe")?;
        BufReader::new(output).read_line(&mut address)?;
        // Anybody may ask it.
        let output = machine.probe_as(OTHER, &["stack", address.trim()])?;
        let what = format!("stack of what user {} with [{}] serves", who.uid, who.names());
        let text = expect(&what, &output, 0, &[])?;
        ensure(text.contains("goroutine 1 ["), || format!("{what}: {text}"))?;
        drop(server);
        target.assert_untouched()?;
    }
    Ok(Done::Passed("as stack".to_owned()))
}
