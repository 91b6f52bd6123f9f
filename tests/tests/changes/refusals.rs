//! Processes that are not changed: what is in their memory makes no sense, or they cannot do what is asked.

use fixtures::matrix::{NEWEST, newest_of};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::Variant;
use fixtures::repetition::say;
use inspector::change::verified::VerifiedRuntime;
use inspector::memory::Memory as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ChangedFixture, FEW, PATIENCE};

/// Words that a command would write, and what they hold.
fn words(target: &ChangedFixture, subject: &VerifiedRuntime<'_>) -> Vec<(String, Vec<u8>)> {
    let memory = target.fixture.pinned().unwrap().memory();
    let mut places = Vec::new();
    for field in ["gcPercent", "heapMinimum", "gcPercentHeapGoal", "sweepDistMinTrigger", "memoryLimit"] {
        places.push((field, subject.place("runtime.gcController", field).unwrap()));
    }
    places.push(("last_gc_nanotime", subject.place("runtime.memstats", "last_gc_nanotime").unwrap()));
    places.push(("MemProfileRate", subject.place("runtime.MemProfileRate", "").unwrap()));
    let read = |(name, (at, width)): (&str, (_, inspector::change::word::Width))| {
        (name.to_owned(), memory.bytes(at, width.bytes()).unwrap())
    };
    places.into_iter().map(read).collect()
}

/// The same, once the runtime has not changed them for a while: it may still collect what its start has left.
fn settled_words(target: &ChangedFixture, subject: &VerifiedRuntime<'_>) -> Vec<(String, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = words(target, subject);
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = words(target, subject);
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "the runtime does not settle: {now:?}");
        before = now;
    }
}

fn poke(pid: u32, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(bytes, at).unwrap();
}

/// A runtime in which one thing does not fit the others is not written to.
#[test]
fn what_does_not_make_sense_is_refused() {
    let mut target = ChangedFixture::start(NEWEST, Variant::Stripped, &[]);
    // So that there is something to contradict.
    target.succeed(&["gc", "PID"]);
    let pinned = target.pinned();
    let verified = VerifiedRuntime::verify(&pinned).unwrap();
    let before = settled_words(&target, &verified);
    let pid = target.fixture.pid();
    for (variable, field, wrong) in [
        ("runtime.forcegcperiod", "", 7u64),
        ("runtime.gcphase", "", 3),
        ("runtime.gomaxprocs", "", 4000),
        ("runtime.memstats", "numgc", 99),
        ("runtime.memstats", "enablegc", 0),
        ("runtime.memstats", "last_gc_unix", 1),
        ("runtime.work", "cycles", 77),
        ("runtime.mheap_", "sweepgen", 1001),
        ("runtime.sched", "npidle", 1 << 20),
        ("runtime.sched", "sysmonwait", 3),
        ("runtime.gcController", "heapMinimum", 12345),
        ("runtime.gcController", "gcPercentHeapGoal", 1),
        ("runtime.gcController", "heapMarked", 1 << 60),
        ("runtime.panicking", "", 1),
    ] {
        let process = target.pinned();
        let subject = VerifiedRuntime::verify(&process).unwrap();
        let (at, width) = subject.place(variable, field).unwrap();
        let bytes = width.bytes();
        let memory = process.memory();
        // None of its threads must see the wrong value.
        let held = inspector::stop::Stopped::all_threads(i32::try_from(pid).unwrap(), PATIENCE).unwrap();
        let right = memory.bytes(at, bytes).unwrap();
        poke(pid, at.0, &wrong.to_le_bytes()[..bytes]);
        let answer = subject.check();
        poke(pid, at.0, &right);
        held.thaw();
        assert!(answer.is_err(), "{variable} {field}");
        subject.check().unwrap();
    }
    // Those that an idle process does not look at, from the command line.
    for (variable, field) in [("runtime.gcController", "heapMinimum"), ("runtime.memstats", "last_gc_unix")] {
        let process = target.pinned();
        let subject = VerifiedRuntime::verify(&process).unwrap();
        let ((at, _), right) =
            (subject.place(variable, field).unwrap(), subject.read(variable, field).unwrap());
        poke(pid, at.0, &(right + 8).to_le_bytes());
        let changed = words(&target, &subject);
        for arguments in [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]] {
            let output = target.run(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(6) && stderr.contains("nothing is written"), "{stderr}");
        }
        assert_eq!(words(&target, &subject), changed);
        poke(pid, at.0, &right.to_le_bytes());
    }
    assert_eq!(words(&target, &verified), before);
    target.assert_sound();
}

/// The list of threads and what the scheduler counts must agree: where they do not, however often they are read, the
/// profile of both says so.
#[test]
fn a_count_of_threads_that_is_contradicted() {
    for version in FEW {
        let mut target = ChangedFixture::start(version, Variant::Stripped, &[]);
        let pid = target.fixture.pid();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("threads.txt");
        let ask = |target: &ChangedFixture| {
            let path = file.to_str().unwrap();
            let output = target.run(&["pprof-threadcreate", "--format", "text", "-o", path, "PID"]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), stderr, fs::read_to_string(&file).unwrap())
        };
        let (code, stderr, text) = ask(&target);
        assert!(code == Some(0) && !text.contains("doubtful"), "{version}: {stderr} {text}");
        {
            let process = target.pinned();
            let subject = VerifiedRuntime::verify(&process).unwrap();
            let (at, _) = subject.place("runtime.sched", "nmfreed").unwrap();
            let right = subject.read("runtime.sched", "nmfreed").unwrap();
            // As if so many had never ended: only their number in a crash and the most that there may be depend on it.
            poke(pid, at.0, &(right.wrapping_sub(100)).to_le_bytes());
            let (code, stderr, text) = ask(&target);
            poke(pid, at.0, &right.to_le_bytes());
            assert!(code == Some(7) && stderr.contains("threads are in the list"), "{version}: {stderr}");
            assert!(text.contains("doubtful"), "{version}: {text}");
        }
        assert_eq!(ask(&target).0, Some(0), "{version}");
        target.assert_sound();
    }
}

/// What does not run, or is held by somebody else.
#[test]
fn processes_that_cannot_do_it_are_left_alone() {
    let mut target = ChangedFixture::start(newest_of(24), Variant::Stripped, &[]);
    let pinned = target.pinned();
    let verified = VerifiedRuntime::verify(&pinned).unwrap();
    let before = settled_words(&target, &verified);
    let pid = Pid::from_raw(i32::try_from(target.fixture.pid()).unwrap());
    let all = [&["gc", "PID"][..], &["setgc", "PID", "50"], &["setmemlimit", "PID", "1GiB"]];
    kill(pid, Signal::SIGSTOP).unwrap();
    for arguments in all {
        let output = target.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains("kill -CONT"), "{stderr}");
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let held = inspector::stop::Stopped::all_threads(pid.as_raw(), PATIENCE).unwrap();
    for arguments in all {
        let output = target.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(5) && stderr.contains("is traced by"), "{stderr}");
    }
    held.thaw();
    assert_eq!(words(&target, &verified), before);
    target.assert_sound();
}

/// A frozen cgroup, where such a group can be made.
#[test]
fn frozen_processes_are_left_alone() {
    let folder = Path::new("/sys/fs/cgroup").join(format!("gops-probe-test-{}", std::process::id()));
    if fs::create_dir(&folder).is_err() || !folder.join("cgroup.freeze").exists() {
        let _ = fs::remove_dir(&folder);
        say("NOT TESTED here: frozen processes (no cgroup can be made)");
        return;
    }
    let mut target = ChangedFixture::start(newest_of(24), Variant::Stripped, &[]);
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    write("cgroup.procs", target.fixture.pid().to_string());
    write("cgroup.freeze", "1".to_owned());
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(folder.join("cgroup.events")).unwrap().contains("frozen 1") {
        assert!(Instant::now() < deadline);
    }
    let output = target.run(&["gc", "PID"]);
    write("cgroup.freeze", "0".to_owned());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("frozen"), "{stderr}");
    target.assert_sound();
    drop(target);
    let deadline = Instant::now() + PATIENCE;
    while fs::remove_dir(&folder).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}
