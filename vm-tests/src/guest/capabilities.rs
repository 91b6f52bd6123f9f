//! Each command with exactly what it declares to need, and with less.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use caps::Capability;
use fixtures::Fixture;

use super::identity::{BARE_ROOT, Identity, OTHER, OWNER, UNKNOWN};
use super::machine::expect;
use super::targets::STATES;
use super::{Done, Failure, Machine, ensure};
use crate::needs::Need;

pub(crate) const PTRACE: Capability = Capability::CAP_SYS_PTRACE;
pub(crate) const BPF: Capability = Capability::CAP_BPF;
pub(crate) const PERFMON: Capability = Capability::CAP_PERFMON;
const FOLDERS: Capability = Capability::CAP_DAC_READ_SEARCH;

/// The exit code of an answer that lacks something.
pub(crate) const PARTIAL: i32 = 7;

/// What `--help` of a command says that it needs: when it says something else, these tests have to follow.
pub(crate) fn declares(machine: &Machine, command: &str, needs: &str) -> Result<(), Failure> {
    let help = expect(command, &machine.probe(&[command, "--help"])?, 0, &[])?;
    // It is wrapped to the width of a terminal.
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    ensure(help.contains(&format!("Needs: {needs}")), || {
        format!("{command} declares another need than {needs:?}: {help}")
    })
}

/// The capabilities of a user, for the table.
pub(crate) fn names(who: Identity) -> String {
    if who.capabilities.is_empty() { "none".to_owned() } else { who.names().replace(',', ", ") }
}

/// What a refusal is called in the table.
pub(crate) fn refusal(cause: &str) -> String {
    format!("refused: {cause}")
}

/// What becomes of a command.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// It answers; this is in its answer.
    Answer(&'static str),
    /// It answers without some, and says this about it.
    Part(&'static str),
    /// It refuses, with this cause.
    Refusal(&'static str),
}

use Expected::{Answer, Part, Refusal};

/// A user, and what becomes of a command of theirs.
type Case = (Identity, Expected);

/// Stands for the process in the words of a command.
const PID: &str = "PID";

/// Runs a command about a target of [`OWNER`] in each case, and notes how it went.
fn try_all(machine: &Machine, target: &mut Fixture, command: &[&str], cases: &[Case]) -> Result<(), Failure> {
    let pid = target.pid().to_string();
    let arguments: Vec<&str> =
        command.iter().map(|&word| if word == PID { pid.as_str() } else { word }).collect();
    let shown: Vec<&str> =
        command.iter().copied().filter(|word| ![PID, "-o", "/dev/null"].contains(word)).collect();
    for &(who, expected) in cases {
        let output = machine.probe_as(who, &arguments)?;
        let user = match who.uid {
            uid if uid == OWNER.uid => "owner",
            0 => "root",
            _ => "another user",
        };
        let what = format!("{} as {user} with [{}]", shown.join(" "), who.names());
        let result = match expected {
            Answer(text) => {
                let answer = expect(&what, &output, 0, &[])?;
                ensure(answer.contains(text), || format!("{what}: {text:?} is not in {answer:?}"))?;
                "works".to_owned()
            }
            Part(cause) => {
                expect(&what, &output, PARTIAL, &[cause, "hint: "])?;
                format!("works in part: {cause}")
            }
            Refusal(cause) => {
                expect(&what, &output, 5, &[cause, "hint: "])?;
                refusal(cause)
            }
        };
        target.assert_untouched()?;
        machine.note(Need {
            command: shown.join(" "),
            user: user.to_owned(),
            capabilities: names(who),
            result,
        });
    }
    Ok(())
}

fn restricted() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|text| text.trim() != "0")
}

const THEIRS: &str = "belongs to another user";
const BARE: &str = "we do not have CAP_SYS_PTRACE";

const OTHER_PTRACE: Identity = OTHER.with(&[PTRACE]);

pub(crate) fn look(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    const NEEDS: &str = "nothing for your own processes; root or CAP_SYS_PTRACE for those of others";
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let pid = target.pid().to_string();
    declares(machine, "version", NEEDS)?;
    let cases = [
        (OWNER, Answer("go1.")),
        (OTHER_PTRACE, Answer("go1.")),
        (OTHER, Refusal(THEIRS)),
        (BARE_ROOT.with(&[PTRACE]), Answer("go1.")),
        (BARE_ROOT, Refusal(BARE)),
    ];
    try_all(machine, &mut target, &["version", PID], &cases)?;
    declares(machine, "binary", NEEDS)?;
    let cases = [(OWNER, Answer("")), (OTHER_PTRACE, Answer("")), (OTHER, Refusal(THEIRS))];
    try_all(machine, &mut target, &["binary", PID, "-o", "/dev/null"], &cases)?;
    // Those about all processes say what they can, and that it is not all.
    for command in ["list", "tree"] {
        declares(machine, command, NEEDS)?;
        for (who, sees) in [(OWNER, true), (OTHER_PTRACE, true), (OTHER, false)] {
            let output = machine.probe_as(who, &[command])?;
            let words: &[&str] = if sees { &[] } else { &["could not be inspected", "hint: "] };
            let text = expect(command, &output, 0, words)?;
            let seen = text.split_whitespace().any(|word| word == pid);
            ensure(seen == sees, || format!("{command} as user {}: {pid} in {text}", who.uid))?;
            let result = if sees { "has the process" } else { "leaves the process out, and says so" };
            machine.note(Need {
                command: command.to_owned(),
                user: if who == OWNER { "owner" } else { "another user" }.to_owned(),
                capabilities: names(who),
                result: result.to_owned(),
            });
        }
    }
    // What /proc says to everybody needs nothing; the settings in memory do, and connections need two.
    declares(
        machine,
        "process",
        "nothing for your own processes; root or CAP_SYS_PTRACE for settings in the memory of those of others or \
         where ptrace is restricted, with CAP_DAC_READ_SEARCH for the connections of those of others",
    )?;
    let cases = [
        (OWNER, Answer("elapsed time")),
        (OTHER.with(&[PTRACE, FOLDERS]), Answer("elapsed time")),
        (OTHER_PTRACE, Part("we do not have CAP_DAC_READ_SEARCH")),
        (OTHER.with(&[FOLDERS]), Part(THEIRS)),
        (OTHER, Part(THEIRS)),
    ];
    try_all(machine, &mut target, &["process", PID], &cases)?;
    let cases = [(OTHER.with(&[PTRACE, FOLDERS]), Answer("\"gogc\": 100")), (OTHER, Part(THEIRS))];
    try_all(machine, &mut target, &["process", "--json", PID], &cases)?;
    target.assert_untouched()?;
    Ok(Done::Passed("as declared".to_owned()))
}

const MEMORY_NEEDS: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted";

pub(crate) fn memory(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let cases = |text| {
        let own = (!restricted()).then_some((OWNER, Answer(text)));
        own.into_iter().chain([(OTHER_PTRACE, Answer(text)), (OTHER, Refusal(THEIRS))]).collect::<Vec<Case>>()
    };
    let root = [(BARE_ROOT.with(&[PTRACE]), Answer("goroutine 1 [")), (BARE_ROOT, Refusal(BARE))];
    declares(machine, "stack", MEMORY_NEEDS)?;
    try_all(machine, &mut target, &["stack", PID], &[cases("goroutine 1 ["), root.to_vec()].concat())?;
    // Who reads and does not stop needs as much.
    let fewer = |text| [(OTHER_PTRACE, Answer(text)), (OTHER, Refusal(THEIRS))];
    try_all(machine, &mut target, &["stack", "--no-pause", PID], &fewer("goroutine 1 ["))?;
    for (command, text) in [("memstats", "heap-alloc"), ("stats", "goroutines"), ("heap", "")] {
        declares(machine, command, MEMORY_NEEDS)?;
        try_all(machine, &mut target, &[command, PID], &fewer(text))?;
    }
    for command in ["pprof-heap", "pprof-goroutine"] {
        declares(machine, command, MEMORY_NEEDS)?;
        try_all(machine, &mut target, &[command, PID, "-o", "/dev/null"], &fewer(""))?;
    }
    Ok(Done::Passed("as declared".to_owned()))
}

pub(crate) fn write(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let cases = [(OTHER_PTRACE, Answer("")), (OTHER, Refusal(THEIRS))];
    for command in [&["gc", PID][..], &["setgc", PID, "100"], &["setmemlimit", PID, "off"]] {
        declares(
            machine,
            command[0],
            &format!("{MEMORY_NEEDS}; a Go release whose layouts are known exactly"),
        )?;
        try_all(machine, &mut target, command, &cases)?;
    }
    Ok(Done::Passed("as declared".to_owned()))
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
    declares(machine, "serve", MEMORY_NEEDS)?;
    let mut target = machine.target_as(OWNER, &STATES[0])?;
    let pid = target.pid().to_string();
    try_all(machine, &mut target, &["serve", "--gops", PID], &[(OTHER, Refusal(THEIRS))])?;
    let mut command = machine.command_as(OTHER_PTRACE, &machine.probe_path());
    command.args(["serve", "--gops", &pid]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(command.spawn()?);
    let mut address = String::new();
    let output = server.0.stdout.take().ok_or("no pipe")?;
    BufReader::new(output).read_line(&mut address)?;
    // Its own user may ask it, and nobody else.
    let output = machine.probe_as(OTHER, &["stack", address.trim()])?;
    let text = expect("stack of what is served", &output, 0, &[])?;
    ensure(text.contains("goroutine 1 ["), || format!("stack of what is served: {text}"))?;
    let refused = machine.probe_as(OWNER, &["stack", address.trim()])?;
    let refused = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure(!refused.contains("goroutine 1 ["), || format!("stack for another user: {refused}"))?;
    drop(server);
    target.assert_untouched()?;
    machine.note(Need {
        command: "serve --gops".to_owned(),
        user: "another user".to_owned(),
        capabilities: names(OTHER_PTRACE),
        result: "works".to_owned(),
    });
    Ok(Done::Passed("as declared; its own user may ask it".to_owned()))
}

/// Nothing is known of the user but a number: no name, no home directory, no variable.
pub(crate) fn unknown_user(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    let mut target = machine.target_as(UNKNOWN, &STATES[0])?;
    let pid = target.pid().to_string();
    for command in [&["list"][..], &["process", &pid], &["version", &pid]] {
        let what = format!("{} without an environment", command[0]);
        expect(&what, &machine.bare_probe_as(UNKNOWN, command)?, 0, &[])?;
        target.assert_untouched()?;
    }
    Ok(Done::Passed("list, process and version work".to_owned()))
}
