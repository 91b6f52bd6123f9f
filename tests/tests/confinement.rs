//! What root's gops-probe gives up before it looks at anything of others: capabilities and system calls, by command, as the kernel
//! tells of the running program; and that all commands do their work with what is left.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::Capability as C;
use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build};

/// Ends hung runs.
const PATIENCE: Duration = Duration::from_secs(120);

fn target() -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, &[], &[]).unwrap()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn set(status: &str, name: &str) -> u64 {
    u64::from_str_radix(&field(status, name), 16).unwrap()
}

const LOOKING: [C; 6] = [
    C::CAP_SYS_PTRACE,
    C::CAP_DAC_READ_SEARCH,
    C::CAP_DAC_OVERRIDE,
    C::CAP_FOWNER,
    C::CAP_CHECKPOINT_RESTORE,
    C::CAP_SYS_ADMIN,
];
const INSPECTING: [C; 3] = [C::CAP_KILL, C::CAP_SYS_NICE, C::CAP_SYS_RESOURCE];
const SAMPLING: [C; 4] = [C::CAP_BPF, C::CAP_PERFMON, C::CAP_SYSLOG, C::CAP_IPC_LOCK];

#[test]
fn what_is_given_up_by_command() {
    if !nix::unistd::geteuid().is_root() {
        say("privileges: NOT TESTED: only root has something to give up");
        return;
    }
    let mut fixture = target();
    let pid = fixture.pid().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ours = set(&fs::read_to_string("/proc/self/status").unwrap(), "CapPrm");
    let inspecting = [&LOOKING[..], &INSPECTING].concat();
    let sampling = [&inspecting[..], &SAMPLING].concat();
    let serving = [&sampling[..], &[C::CAP_NET_BIND_SERVICE]].concat();
    let commands: [(&[&str], &[C]); 14] = [
        (&["list"], &LOOKING),
        (&["tree"], &LOOKING),
        (&["process", "-v", "PID"], &inspecting),
        (&["version", "PID"], &inspecting),
        (&["stack", "PID"], &inspecting),
        (&["memstats", "PID"], &inspecting),
        (&["stats", "PID"], &inspecting),
        (&["heap", "PID"], &inspecting),
        (&["gc", "--json", "PID"], &inspecting),
        (&["setgc", "PID", "100"], &inspecting),
        (&["pprof-heap", "PID"], &inspecting),
        (&["pprof-cpu", "-d", "1s", "PID"], &sampling),
        (&["binary", "PID"], &inspecting),
        (&["serve", "--gops", "PID"], &serving),
    ];
    for (i, (command, kept)) in commands.iter().enumerate() {
        // Whoever writes to a FIFO waits for its reader, and is looked at meanwhile.
        let fifo = dir.path().join(i.to_string());
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let arguments = command.iter().map(|part| if *part == "PID" { pid.as_str() } else { part });
        let mut run = Command::new(binary().unwrap());
        let mut run = run.args(arguments).arg("-o").arg(&fifo).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            let status = fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap_or_default();
            if field(&status, "Seccomp") == "2" {
                break status;
            }
            if run.try_wait().unwrap().is_some() || begun.elapsed() > PATIENCE {
                panic!("{command:?} was not confined: {status}");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let expected = kept.iter().fold(0, |set, cap| set | cap.bitmask()) & ours;
        for name in ["CapEff", "CapPrm"] {
            assert_eq!(set(&status, name), expected, "{command:?}: {name}");
        }
        assert_eq!((set(&status, "CapInh"), set(&status, "CapAmb")), (0, 0), "{command:?}");
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{command:?}");
        // It does its work with that.
        let (sender, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 4];
            let read = fs::File::open(fifo).and_then(|mut fifo| fifo.read_exact(&mut bytes));
            // Nobody waits for it any more where it took too long.
            let _ = sender.send(read);
        });
        let read = read.recv_timeout(PATIENCE);
        if read.is_err() {
            run.kill().unwrap();
        }
        if command[0] == "serve" {
            run.kill().unwrap();
        }
        let output = run.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(read, Ok(Ok(()))), "{command:?}: {read:?}: {stderr}");
        let ended = output.status.success() || command[0] == "serve";
        assert!(ended, "{command:?}: {}: {stderr}", output.status);
        assert!(!stderr.contains("cannot be given up") && !stderr.contains("cannot be denied"), "{stderr}");
        fixture.assert_untouched().unwrap();
    }
}
