//! Pid namespaces and the /proc of another one: the same number is one process for system calls and another one for
//! /proc. Nothing is looked at then, and above all nothing is changed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use fixtures::matrix::newest_of;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, copy_program};
use serde_json::Value;

/// A Go process in pid and mount namespaces of its own, with the number that another process has outside.
struct Twin {
    unshare: Child,
    output: BufReader<ChildStdout>,
    number: u32,
}

impl Twin {
    /// `None` where namespaces cannot be had here, or no number in them can be chosen.
    fn of(cell: &Cell, number: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            say("NOT TESTED: pid namespaces: root is needed");
            return None;
        }
        let script = "exec 3<&0; echo $1 > /proc/sys/kernel/ns_last_pid || exit; \"$0\" <&3 & wait";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
        command.arg(cell.path()).arg((number - 1).to_string()).envs(OFF);
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(unshare.stdout.take().unwrap());
        let mut twin = Self { unshare, output, number };
        if twin.line().is_empty() {
            say("NOT TESTED: pid namespaces: none could be made, or no number chosen in one");
            return None;
        }
        assert_eq!(twin.line(), format!("ready {number}"), "another process took the number");
        Some(twin)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn collections(&mut self) -> u64 {
        self.unshare.stdin.as_mut().unwrap().write_all(b"numgc\n").unwrap();
        self.line().parse().unwrap()
    }

    /// `gops-probe` in one or both of its namespaces.
    fn probe(&self, namespaces: &[&str], arguments: &[&str]) -> Output {
        let outside = self.unshare.id();
        let mut command = Command::new("nsenter");
        for namespace in namespaces {
            match *namespace {
                "pid" => command.arg(format!("--pid=/proc/{outside}/ns/pid_for_children")),
                _ => command.arg(format!("--mount=/proc/{outside}/ns/mnt")),
            };
        }
        let number = self.number.to_string();
        let state = tempfile::tempdir().unwrap();
        command.arg(binary().unwrap()).env("GOPS_PROBE_STATE_DIR", state.path());
        command.args(arguments.iter().map(|&a| if a == "PID" { number.as_str() } else { a }));
        command.output().unwrap()
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// No collections but those that are asked for: not even when two minutes have passed.
const OFF: [(&str, &str); 1] = [("GOGC", "off")];

const COMMANDS: [&[&str]; 15] = [
    &["list"],
    &["tree"],
    &["process", "PID"],
    &["version", "PID"],
    &["stack", "PID"],
    &["stack", "--no-pause", "PID"],
    &["stats", "PID"],
    &["memstats", "PID"],
    &["gc", "PID"],
    &["setgc", "PID", "50"],
    &["setgc", "PID", "50", "--via", "agent"],
    &["setmemlimit", "PID", "1GiB"],
    &["pprof-heap", "PID", "--enable", "--duration", "1s", "-o", "/dev/null"],
    &["stack", "name:collector"],
    &["binary", "PID", "-o", "/dev/null"],
];

#[test]
fn the_proc_of_another_pid_namespace() {
    let cell = Cell::new(newest_of(24), Variant::Stripped, Program::Collector);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let mut outside = Fixture::spawn(&cell, &[], &OFF).unwrap();
    let Some(mut inside) = Twin::of(&cell, outside.pid()) else { return };
    let count = |fixture: &mut Fixture| fixture.command("numgc").unwrap().parse::<u64>().unwrap();
    let before = (count(&mut outside), inside.collections());
    for (namespaces, cause, way) in [
        // Its /proc, and our numbers.
        (&["mount"][..], "in which gops-probe does not exist", "nsenter -t PID -p -m"),
        // Its numbers, and our /proc.
        (&["pid"], "of a pid namespace around ours", "mount -t proc"),
    ] {
        for arguments in COMMANDS {
            let output = inside.probe(namespaces, arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{namespaces:?} {arguments:?}: {said}");
            assert!(said.contains(cause) && said.contains(way), "{namespaces:?} {arguments:?}: {said}");
            assert!(output.stdout.is_empty(), "{namespaces:?} {arguments:?}");
        }
        assert_eq!((count(&mut outside), inside.collections()), before, "{namespaces:?}");
        assert_eq!(outside.command("percent -1").unwrap(), "-1", "{namespaces:?}");
    }
    // Where both are entered, the process inside is meant, and outside the one outside.
    let output = inside.probe(&["pid", "mount"], &["gc", "PID"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((count(&mut outside), inside.collections()), (before.0, before.1 + 1));
    let state = tempfile::tempdir().unwrap();
    let mut ours = Command::new(binary().unwrap());
    ours.args(["gc", &outside.pid().to_string()]).env("GOPS_PROBE_STATE_DIR", state.path());
    assert!(ours.status().unwrap().success());
    assert_eq!((count(&mut outside), inside.collections()), (before.0 + 1, before.1 + 1));
    outside.assert_untouched().unwrap();
}

/// What is mounted over the folder of a process is another process, or no process at all.
#[test]
fn another_folder_over_that_of_a_process() {
    if !rustix::process::geteuid().is_root() {
        say("NOT TESTED: a mount over the folder of a process: root is needed");
        return;
    }
    let cell = Cell::new(newest_of(24), Variant::Stripped, Program::Collector);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let (mut one, mut other) =
        (Fixture::spawn(&cell, &[], &OFF).unwrap(), Fixture::spawn(&cell, &[], &OFF).unwrap());
    let count = |fixture: &mut Fixture| fixture.command("numgc").unwrap();
    let before = (count(&mut one), count(&mut other));
    let script = "mount --bind /proc/$1 /proc/$2 || exit 99; exec \"$0\" gc \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary().unwrap());
    command.args([one.pid().to_string(), other.pid().to_string()]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) {
        say(&format!("NOT TESTED: a mount over the folder of a process: {said}"));
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("something is mounted over it"), "{said}");
    assert_eq!((count(&mut one), count(&mut other)), before);
    one.assert_untouched().unwrap();
    other.assert_untouched().unwrap();
}

/// Where /proc shows a user no processes but their own, a list that is nearly empty says so, and a process that is not
/// shown is not taken for one that does not exist.
#[test]
fn hidden_processes() {
    if !rustix::process::geteuid().is_root() {
        say("NOT TESTED: hidepid: root is needed");
        return;
    }
    let cell = Cell::new(newest_of(24), Variant::Stripped, Program::Collector);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let mut outside = Fixture::spawn(&cell, &[], &[]).unwrap();
    let pid = outside.pid().to_string();
    // Where any user may execute it.
    let public = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = public.path().join("gops-probe");
    copy_program(binary().unwrap(), &program).unwrap();
    for (hidepid, says) in [("1", "/proc is mounted with hidepid"), ("2", "of other users are not shown")] {
        let script = "mount -t proc -o hidepid=$1 proc /proc || exit 99; shift; \
                      exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"";
        let run = |arguments: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script]).arg(&program).arg(hidepid).args(arguments);
            command.output().unwrap()
        };
        let output = run(&["list"]);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(99) {
            say(&format!("NOT TESTED: hidepid={hidepid}: {said}"));
            continue;
        }
        assert!(output.status.success() && said.contains(says), "{hidepid}: {said}");
        assert!(said.contains("sudo"), "{hidepid}: {said}");
        let list: Value = serde_json::from_slice(&run(&["list", "--json"]).stdout).unwrap();
        assert_eq!(list["others_hidden"] == true, hidepid == "2", "{list}");
        let output = run(&["stack", &pid]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{hidepid}: {said}");
        assert!(said.contains("hidepid") && said.contains("sudo"), "{hidepid}: {said}");
        assert_eq!(run(&["stack", "999999999"]).status.code(), Some(3), "{hidepid}");
    }
    outside.assert_untouched().unwrap();
}
