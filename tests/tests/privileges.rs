//! A `gops-probe` with more rights than who starts it has, and journals that somebody else wrote: nothing of them is
//! believed that a change of ours would not have left.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixtures::matrix::newest_of;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, copy_program};
use inspector::change::verified::VerifiedRuntime;
use inspector::memory::Memory as _;
use inspector::process::Process;
use serde_json::json;
use symbols::addr::RuntimeAddr;

const NOBODY: u32 = 65_534;
/// What a program has that has its profiler of the heap on.
const RATE: u64 = 512 << 10;
const FOREIGN: &str = "no change of gops-probe has to put back";

fn fixture() -> Fixture {
    let cell = Cell::new(newest_of(24), Variant::Stripped, Program::Collector);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, &[], &[]).unwrap()
}

/// A word that a journal asks for.
#[derive(Clone)]
struct Asked {
    name: &'static str,
    at: u64,
    width: usize,
    ours: u64,
    restore: u64,
}

/// Writes what a journal of a process looks like, in a folder where one is looked for.
fn forge(folder: &Path, pid: u32, asked: &Asked) -> PathBuf {
    let process = Process::pin(u64::from(pid).try_into().unwrap()).unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    let exe = fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    let stat = process.pinned_stat();
    let identity = json!({
        "format": 1,
        "boot_id": fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
        "pid_namespace": namespace,
        "pid": pid,
        "start_time": stat.start_time,
        "device": exe.dev(),
        "inode": exe.ino(),
        "address_space": stat.address_space,
    });
    let Asked { name, at, width, ours, restore } = asked;
    let entry = json!([{
        "name": name, "at": at, "width": width, "ours": ours, "restore": restore, "stopped": false, "until": 1,
    }]);
    let digits: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let path = folder.join(format!("{digits}-{pid}"));
    fs::write(&path, format!("{identity}\n{entry}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn word(pid: u32, at: u64, width: usize) -> u64 {
    let memory = Process::pin(u64::from(pid).try_into().unwrap()).unwrap().memory();
    let mut bytes = [0; 8];
    memory.read(RuntimeAddr(at), &mut bytes[..width]).unwrap();
    u64::from_le_bytes(bytes)
}

fn run(command: &mut Command, state: &Path) -> Output {
    command.env("GOPS_PROBE_STATE_DIR", state).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where a variable of the runtime is.
fn place(pid: u32, variable: &str, field: &str) -> (u64, usize) {
    let process = Process::pin(u64::from(pid).try_into().unwrap()).unwrap();
    let (at, width) = VerifiedRuntime::verify(&process).unwrap().place(variable, field).unwrap();
    (at.0, width.bytes())
}

/// The first word of the program's data that is not 0.
fn some_word(pid: u32) -> Asked {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains(" rw-p ") && line.contains("collector")).unwrap();
    let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let at = (number(begin)..number(end)).step_by(8).find(|&at| word(pid, at, 8) != 0).unwrap();
    let ours = word(pid, at, 8);
    Asked { name: "x", at, width: 8, ours, restore: ours ^ 1 }
}

/// In the folder of the very user, who is root.
#[test]
fn a_forged_journal_in_our_own_folder() {
    let mut fixture = fixture();
    let pid = fixture.pid();
    let (at, width) = place(pid, "runtime.gcController", "gcPercent");
    let percent = Asked { name: "gcController.gcPercent", at, width, ours: 100, restore: 1 };
    assert_eq!(word(pid, at, width), 100);
    // Its upper half belongs to another variable.
    let wide = Asked { width: 8, ours: word(pid, at, 8), restore: 1, ..percent.clone() };
    let beside = Asked { at: at + 4, ours: word(pid, at + 4, 4), restore: 77, ..percent.clone() };
    for asked in [some_word(pid), percent, wide, beside] {
        let state = tempfile::tempdir().unwrap();
        let journal = forge(state.path(), pid, &asked);
        let before = word(pid, asked.at, asked.width);
        let mut version = Command::new(binary().unwrap());
        let output = run(version.arg("version").arg(pid.to_string()), state.path());
        // What was asked is answered in any case.
        assert!(output.status.success() && stderr(&output).contains(FOREIGN), "{}", stderr(&output));
        let mut gc = Command::new(binary().unwrap());
        let output = run(gc.args(["gc", &pid.to_string()]), state.path());
        assert!(!output.status.success() && stderr(&output).contains(FOREIGN), "{}", stderr(&output));
        assert!(stderr(&output).contains("remove it"), "{}", stderr(&output));
        assert!(journal.exists());
        // By the guard, whom anybody can start: not the file of that folder, and that file.
        let elsewhere = tempfile::tempdir().unwrap();
        for folder in [elsewhere.path(), state.path()] {
            let path = forge(folder, pid, &asked);
            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(ours);
            let mut guard = Command::new(binary().unwrap());
            guard.args(["guard-of-change", &pid.to_string(), "20000", "20000"]).stdin(OwnedFd::from(theirs));
            guard.stdout(File::options().append(true).read(true).open(&path).unwrap());
            let output = run(&mut guard, state.path());
            let expected = if folder == state.path() { FOREIGN } else { "is not its journal" };
            assert!(!output.status.success() && stderr(&output).contains(expected), "{}", stderr(&output));
        }
        assert_eq!(word(pid, asked.at, asked.width), before, "{} at {:#x}", asked.name, asked.at);
    }
    fixture.assert_untouched().unwrap();
}

/// A journal that others can write, or that has a name elsewhere, is not read.
#[test]
fn a_journal_of_others() {
    let mut fixture = fixture();
    let pid = fixture.pid();
    let asked = some_word(pid);
    let state = tempfile::tempdir().unwrap();
    let journal = forge(state.path(), pid, &asked);
    let version = || {
        let mut command = Command::new(binary().unwrap());
        run(command.arg("version").arg(pid.to_string()), state.path())
    };
    assert!(stderr(&version()).contains(FOREIGN));
    let second = state.path().join("second");
    fs::hard_link(&journal, &second).unwrap();
    assert_eq!(stderr(&version()), "");
    fs::remove_file(second).unwrap();
    fs::set_permissions(&journal, Permissions::from_mode(0o622)).unwrap();
    assert_eq!(stderr(&version()), "");
    fs::set_permissions(&journal, Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&journal, Some(NOBODY), None).unwrap();
        assert_eq!(stderr(&version()), "");
    }
    assert_eq!(word(pid, asked.at, asked.width), asked.ours);
    fixture.assert_untouched().unwrap();
}

/// A copy of the program that has more rights than an ordinary user. `None` where there can be none.
fn raised(folder: &Path, kind: &str, pid: u32) -> Option<PathBuf> {
    let copy = folder.join(kind);
    copy_program(binary().unwrap(), &copy).unwrap();
    if kind == "setuid" {
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
    } else {
        let capabilities = "cap_sys_ptrace,cap_dac_read_search=ep";
        let set = Command::new("setcap").arg(capabilities).arg(&copy).output();
        if !set.is_ok_and(|output| output.status.success()) {
            say("NOT TESTED: file capabilities: setcap is not there, or the file system has none");
            return None;
        }
    }
    let output = Command::new(&copy).args(["version", &pid.to_string()]).uid(NOBODY).gid(NOBODY).output();
    let output = output.unwrap();
    if !output.status.success() {
        say(&format!("NOT TESTED: {kind}: programs get no rights here: {}", stderr(&output)));
        return None;
    }
    Some(copy)
}

/// The environment of whoever starts it decides nothing, so that a journal of theirs is not even found.
#[test]
fn started_by_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        say("NOT TESTED: file capabilities and set-user-ID: root is needed");
        return;
    }
    let mut fixture = fixture();
    let pid = fixture.pid();
    let (at, width) = place(pid, "runtime.MemProfileRate", "");
    fixture.order(&format!("heaprate {RATE}")).unwrap();
    assert_eq!(word(pid, at, width), RATE);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    // One that a change of ours could have left: by itself, it would be believed.
    let believable = Asked { name: "MemProfileRate", at, width, ours: RATE, restore: 0 };
    for kind in ["capabilities", "setuid"] {
        let Some(copy) = raised(folder.path(), kind, pid) else { continue };
        for asked in [some_word(pid), believable.clone()] {
            for (variable, below) in [
                ("GOPS_PROBE_STATE_DIR", ""),
                ("XDG_RUNTIME_DIR", "gops-probe"),
                ("XDG_STATE_HOME", "gops-probe"),
                ("HOME", ".local/state/gops-probe"),
            ] {
                let theirs = tempfile::tempdir().unwrap();
                let state = theirs.path().join(below);
                fs::create_dir_all(&state).unwrap();
                let journal = forge(&state, pid, &asked);
                let mut folders = state.as_path();
                chown(&journal, Some(NOBODY), Some(NOBODY)).unwrap();
                loop {
                    chown(folders, Some(NOBODY), Some(NOBODY)).unwrap();
                    if folders == theirs.path() {
                        break;
                    }
                    folders = folders.parent().unwrap();
                }
                let mut command = Command::new(&copy);
                command.args(["version", &pid.to_string()]).uid(NOBODY).gid(NOBODY);
                command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
                let output = command.env(variable, theirs.path()).output().unwrap();
                assert!(output.status.success(), "{kind} {variable}: {}", stderr(&output));
                assert_eq!(stderr(&output), "", "{kind} {variable}");
                assert_eq!(word(pid, asked.at, asked.width), asked.ours, "{kind} {variable}");
                assert!(fs::read_to_string(&journal).unwrap().contains("restore"), "{kind} {variable}");
            }
        }
        // The folder of a user's own is found without the environment; what it may ask for is the closed list.
        let mut command = Command::new(&copy);
        command.args(["pprof-heap", &pid.to_string(), "--open", "-o"]).arg(folder.path().join("x"));
        let output = command.uid(NOBODY).gid(NOBODY).env("PATH", "/nowhere").output().unwrap();
        assert!(!output.status.success(), "{kind}");
    }
    // That journal is one that would be believed.
    let state = tempfile::tempdir().unwrap();
    forge(state.path(), pid, &believable);
    let mut command = Command::new(binary().unwrap());
    let output = run(command.args(["version", &pid.to_string()]), state.path());
    assert!(stderr(&output).contains("MemProfileRate"), "{}", stderr(&output));
    assert_eq!(word(pid, at, width), 0);
    fixture.assert_untouched().unwrap();
}
