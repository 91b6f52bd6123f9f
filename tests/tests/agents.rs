//! Real agents of three releases, asked by gops and by us; and gops asking us for a process that has none.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failed step is a failed test; what is skipped is said"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixtures::agents::{self, RELEASES, agent, gops};
use fixtures::crowd::{Crowd, has_agent, row};
use fixtures::{Dump, Fixture, binary, compare, copy_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// No goroutine of it runs by itself.
const QUIET: [&str; 4] = ["-n", "40", "-heartbeat", "0"];

/// A program with an agent, and the directory of its port file.
struct Asked {
    fixture: Fixture,
    config: tempfile::TempDir,
}

impl Asked {
    fn start(release: &str) -> Self {
        let config = tempfile::tempdir().unwrap();
        let mut command = Command::new(agent(release).unwrap());
        command.args(QUIET).env("GOPS_CONFIG_DIR", config.path());
        Asked { fixture: Fixture::start(command).unwrap(), config }
    }

    fn pid(&self) -> String {
        self.fixture.pid().to_string()
    }

    fn port(&self) -> u16 {
        fs::read_to_string(self.config.path().join(self.pid())).unwrap().trim().parse().unwrap()
    }

    /// What gops prints.
    fn theirs(&self, args: &[&str]) -> String {
        text(Command::new(gops().unwrap()).env("GOPS_CONFIG_DIR", self.config.path()).args(args))
    }

    /// What we print. Our own way to the port file: by the environment of the process.
    fn ours(&self, args: &[&str]) -> String {
        text(
            Command::new(binary().unwrap())
                .env_remove("GOPS_CONFIG_DIR")
                .current_dir(self.config.path())
                .args(args),
        )
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ours(args)).unwrap()
    }
}

#[track_caller]
fn text(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The goroutine that answers is the one that runs.
fn answering(dump: &Dump) -> u64 {
    dump.goroutines.iter().find(|g| g.header.status == "running").unwrap().id
}

#[track_caller]
fn assert_same_stacks(before: &str, found: &str, after: &str) {
    let [before, found, after] = [before, found, after].map(Dump::parse);
    let comparison = compare(&before, &found, &after, answering(&before));
    assert!(comparison.accepted() && comparison.equal > 40, "{comparison:#?}");
}

fn keys(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect()
}

#[test]
fn every_command_says_what_gops_says() {
    for release in RELEASES {
        let mut asked = Asked::start(release);
        let pid = asked.pid();
        let pid = pid.as_str();
        let version = asked.theirs(&["version", pid]);
        assert_eq!(asked.ours(&["version", "--via", "agent", pid]), version, "{release}");
        assert_eq!(asked.ours(&["version", pid]), version, "{release}");
        let before = asked.theirs(&["stack", pid]);
        let by_agent = asked.ours(&["stack", "--via", "agent", pid]);
        let from_outside = asked.ours(&["stack", "--via", "probe", pid]);
        let after = asked.theirs(&["stack", pid]);
        assert_same_stacks(&before, &by_agent, &after);
        assert_same_stacks(&before, &from_outside, &after);
        assert_eq!(asked.ours(&["stats", pid]), asked.theirs(&["stats", pid]), "{release}");
        memory(&asked, pid);
        collections(&asked, pid);
        percentages(&asked, pid);
        files(&asked, pid);
        asked.fixture.assert_untouched().unwrap();
    }
}

fn memory(asked: &Asked, pid: &str) {
    asked.theirs(&["gc", pid]);
    let theirs = asked.theirs(&["memstats", pid]);
    for way in ["probe", "agent"] {
        let ours = asked.ours(&["memstats", "--via", way, pid]);
        assert_eq!(keys(&ours), keys(&theirs));
        // What changes only by a collection is the same, to the letter; what an answer itself allocates is not.
        let since = |text: &str| -> Vec<String> {
            let steady = |line: &&str| {
                ["lookups:", "last-gc:", "gc-", "num-", "enable-", "debug-", "next-gc:"]
                    .iter()
                    .any(|k| line.starts_with(k))
            };
            text.lines().filter(steady).filter(|l| !l.starts_with("gc-sys")).map(str::to_owned).collect()
        };
        assert_eq!(since(&ours), since(&theirs));
        // Digits apart, the other lines too.
        let shape =
            |text: &str| text.replace(|c: char| c.is_ascii_digit(), "").replace("KB", "B").replace("MB", "B");
        for line in ours.lines().filter(|l| !l.starts_with("gc-")) {
            assert!(shape(&theirs).contains(&shape(line)), "{line}: {theirs}");
        }
        let values = asked.json(&["memstats", "--json", "--via", way, pid]);
        assert_eq!((values["pid"].to_string().as_str(), &values["via"]), (pid, &way.into()));
        let memstats = values["memstats"].as_object().unwrap();
        // Each line is a value but for those of the last pause.
        assert!(memstats.len() + 2 >= keys(&ours).len(), "{values:?}");
        let sum: u64 = ["HeapSys", "StackSys", "MSpanSys", "MCacheSys", "GCSys"]
            .iter()
            .map(|key| memstats[*key].as_u64().unwrap())
            .sum();
        assert!(sum <= memstats["Sys"].as_u64().unwrap(), "{values:?}");
        let seconds = memstats["LastGC"].as_u64().unwrap() / 1_000_000_000;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now - seconds < 600, "{values:?}");
        assert!(values["last_pause"]["ns"].as_u64().unwrap() > 0, "{values:?}");
    }
    for way in ["probe", "agent"] {
        let stats = asked.json(&["stats", "--json", "--via", way, pid]);
        assert!(stats["goroutines"].as_u64().unwrap() >= 41, "{stats}");
    }
    assert_eq!(asked.ours(&["stats", "--via", "agent", pid]), asked.theirs(&["stats", pid]));
}

#[test]
fn local_times_are_those_of_the_process() {
    // In a zone that is half an hour off the others, from a file of its own: not every machine has names of zones.
    let zone = tempfile::NamedTempFile::new().unwrap();
    let mut file = b"TZif2".to_vec();
    file.extend([0; 15]);
    let body = |file: &mut Vec<u8>| {
        for count in [0u32, 0, 0, 0, 1, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend(19_800i32.to_be_bytes());
        file.extend([0, 0]);
        file.extend(b"IST\0");
    };
    body(&mut file);
    file.extend(b"TZif2");
    file.extend([0; 15]);
    body(&mut file);
    file.extend(b"\nIST-5:30\n");
    fs::write(zone.path(), file).unwrap();
    let config = tempfile::tempdir().unwrap();
    let mut command = Command::new(agent(RELEASES[2]).unwrap());
    command.args(QUIET).env("GOPS_CONFIG_DIR", config.path()).env("TZ", zone.path());
    let mut asked = Asked { fixture: Fixture::start(command).unwrap(), config };
    let pid = asked.pid();
    asked.theirs(&["gc", &pid]);
    let line = |text: &str| text.lines().find(|l| l.starts_with("last-gc: ")).unwrap().to_owned();
    let theirs = line(&asked.theirs(&["memstats", &pid]));
    assert!(theirs.ends_with("+0530 IST"), "{theirs}");
    assert_eq!(line(&asked.ours(&["memstats", "--via", "probe", &pid])), theirs);
    asked.fixture.assert_untouched().unwrap();
}

fn collections(asked: &Asked, pid: &str) {
    let count = || asked.json(&["memstats", "--json", pid])["memstats"]["NumForcedGC"].as_u64().unwrap();
    let before = count();
    assert_eq!(asked.theirs(&["gc", pid]), "");
    assert_eq!(asked.ours(&["gc", "--via", "agent", pid]), "");
    assert_eq!(asked.json(&["gc", "--json", "--via", "agent", pid])["collected"], true);
    assert_eq!(count(), before + 3);
    // From outside, the runtime takes it for one of its own.
    assert_eq!(asked.ours(&["gc", pid]), "");
    assert_eq!(asked.json(&["gc", "--json", pid])["collected"], true);
    assert_eq!(count(), before + 3);
}

fn percentages(asked: &Asked, pid: &str) {
    let said = |now: i64, before: i64| format!("New GC percent set to {now}. Previous value was {before}.\n");
    assert_eq!(asked.theirs(&["setgc", pid, "150"]), said(150, 100));
    assert_eq!(asked.ours(&["setgc", pid, "170"]), said(170, 150));
    assert_eq!(asked.ours(&["setgc", "--via", "agent", pid, "200"]), said(200, 170));
    assert_eq!(asked.ours(&["setgc", pid, "off"]), said(-1, 200));
    let json = asked.json(&["setgc", "--json", pid, "100"]);
    assert_eq!((&json["percent"], &json["previous_percent"]), (&100.into(), &(-1).into()));
    assert_eq!(asked.theirs(&["setgc", pid, "100"]), said(100, 100));
}

fn files(asked: &Asked, pid: &str) {
    let path = |name: &str| asked.config.path().join(name);
    assert_eq!(asked.ours(&["pprof-heap", "-o", "heap.pb.gz", pid]), "heap.pb.gz\n");
    // A profile is what `go tool pprof` reads.
    let report = text(
        Command::new("go")
            .args(["tool", "pprof", "-sample_index=alloc_objects", "-top"])
            .arg(path("heap.pb.gz")),
    );
    assert!(report.contains("Type: alloc_objects"), "{report}");
    // The agent's is taken as it is, or read and written in another form.
    assert_eq!(asked.ours(&["pprof-heap", "--via", "agent", "-o", "agent.pb.gz", pid]), "agent.pb.gz\n");
    assert!(fs::read(path("agent.pb.gz")).unwrap().starts_with(&[0x1f, 0x8b]));
    for format in ["text", "folded", "json"] {
        let ours = asked.ours(&["pprof-heap", "--format", format, "--sample-type", "alloc_space", pid]);
        let theirs = asked.ours(&[
            "pprof-heap",
            "--via",
            "agent",
            "--format",
            format,
            "--sample-type",
            "alloc_space",
            pid,
        ]);
        for said in [&ours, &theirs] {
            assert!(
                said.contains("example.com/fixtures/") || said.contains("github.com/google/gops"),
                "{said}"
            );
        }
    }
    let json = asked.json(&["pprof-heap", "--via", "agent", "--format", "json", pid]);
    assert_eq!((&json["via"], &json["profile"]), (&"agent".into(), &"heap".into()));
    let name = asked.ours(&["pprof-heap", pid]);
    let name = name.trim();
    assert!(name.starts_with(&format!("gops-{pid}-heap-")) && path(name).exists(), "{name}");
    // The program is there for us, and the agent sends the same.
    asked.ours(&["binary", "-o", "outside", pid]);
    asked.ours(&["binary", "--via", "agent", "-o", "inside", pid]);
    let program = fs::read(format!("/proc/{pid}/exe")).unwrap();
    assert!(fs::read(path("outside")).unwrap() == program && fs::read(path("inside")).unwrap() == program);
    let json = asked.json(&["trace", "--json", "-o", "trace", pid]);
    let trace = fs::read(path("trace")).unwrap();
    assert!(trace.starts_with(b"go 1.") && json["bytes"] == trace.len(), "{json}");
}

#[test]
fn the_mark_in_the_list_is_that_of_gops() {
    let mut asked = Asked::start(RELEASES[2]);
    let pid = asked.pid();
    // The columns are as wide as what else runs needs.
    let _crowd = Crowd::start().unwrap();
    let (ours, theirs) = (asked.ours(&[]), asked.theirs(&[]));
    assert_eq!(row(&ours, &pid), row(&theirs, &pid));
    assert!(has_agent(&ours, &pid), "{ours}");
    asked.fixture.assert_untouched().unwrap();
}

/// Whether tests may change users and namespaces. Said loudly where not.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

/// A directory that everybody may look into, with the agent in it.
fn public() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o777)).tempdir().unwrap();
    let program = dir.path().join("agent");
    copy_program(&agent(RELEASES[2]).unwrap(), &program).unwrap();
    (dir, program)
}

#[test]
fn root_asks_for_another_user() {
    if !is_root("root_asks_for_another_user") {
        return;
    }
    const NOBODY: u32 = 65534;
    let (dir, program) = public();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(&program);
    command.args(QUIET).uid(NOBODY).gid(NOBODY).current_dir("/").env("HOME", &home);
    command.env_remove("GOPS_CONFIG_DIR").env_remove("XDG_CONFIG_HOME");
    let mut fixture = Fixture::start(command).unwrap();
    let pid = fixture.pid().to_string();
    let config = home.join(".config/gops");
    assert!(config.join(&pid).exists());
    for args in [&["version", &pid][..], &["stats", &pid], &["setgc", &pid, "100"]] {
        let theirs = text(Command::new(gops().unwrap()).env("GOPS_CONFIG_DIR", &config).args(args));
        assert_eq!(text(Command::new(binary().unwrap()).args(args)), theirs);
    }
    let list = text(&mut Command::new(binary().unwrap()));
    assert!(has_agent(&list, &pid), "{list}");
    fixture.assert_untouched().unwrap();
}

#[test]
fn another_network_and_mount_namespace() {
    if !is_root("another_network_and_mount_namespace") {
        return;
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED another_network_and_mount_namespace: needs ip");
        return;
    }
    let (dir, program) = public();
    let hidden = dir.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    let script = "ip link set lo up && mount -t tmpfs none \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", script]).arg(&hidden).arg(&program).args(QUIET);
    command.env("GOPS_CONFIG_DIR", hidden.join("gops"));
    let mut fixture = Fixture::start(command).unwrap();
    let pid = fixture.pid().to_string();
    assert!(fs::read_dir(&hidden).unwrap().next().is_none(), "its port file is not to be seen from here");
    for args in [&["version", &pid][..], &["stats", &pid], &["setgc", &pid, "100"]] {
        let mut theirs = Command::new("nsenter");
        theirs.args(["--net", "--mount", "--target", &pid]).arg(gops().unwrap()).args(args);
        let theirs = text(theirs.env("GOPS_CONFIG_DIR", hidden.join("gops")));
        let mut ours = args.to_vec();
        if args[0] == "version" {
            ours.extend(["--via", "agent"]);
        }
        assert_eq!(text(Command::new(binary().unwrap()).args(ours)), theirs);
    }
    let heap = dir.path().join("heap");
    text(Command::new(binary().unwrap()).arg("pprof-heap").arg("-o").arg(&heap).arg(&pid));
    assert!(fs::read(&heap).unwrap().starts_with(&[0x1f, 0x8b]));
    let list = text(&mut Command::new(binary().unwrap()));
    assert!(has_agent(&list, &pid), "{list}");
    fixture.assert_untouched().unwrap();
}

/// Passes connections on, as `kubectl port-forward` and `ssh -L` do.
fn forward(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let agent = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let pump = |mut from: TcpStream, mut to: TcpStream| {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                })
            };
            pump(client.try_clone().unwrap(), agent.try_clone().unwrap());
            pump(agent, client);
        }
    });
    port
}

#[test]
fn through_a_port_forward() {
    for release in RELEASES {
        let mut asked = Asked::start(release);
        let address = format!("127.0.0.1:{}", forward(asked.port()));
        let address = address.as_str();
        for args in [&["version", address][..], &["stats", address], &["setgc", address, "100"]] {
            assert_eq!(asked.ours(args), asked.theirs(args), "{release}");
        }
        let [before, ours, after] = [
            asked.theirs(&["stack", address]),
            asked.ours(&["stack", address]),
            asked.theirs(&["stack", address]),
        ];
        assert_same_stacks(&before, &ours, &after);
        let json = asked.json(&["stack", "--json", address]);
        assert_eq!((&json["address"], &json["via"]), (&address.into(), &"agent".into()));
        let id = json["goroutines"][1]["id"].to_string();
        let one = asked.ours(&["stack", "--goroutine", &id, address]);
        assert!(one.starts_with(&format!("goroutine {id} [")) && !one.contains("\n\n"), "{one}");
        asked.ours(&["pprof-heap", "-o", "heap.pb.gz", address]);
        let text = asked.ours(&["pprof-heap", "--format", "text", "--sample-type", "alloc_objects", address]);
        assert!(text.starts_with("Type: alloc_objects\n"), "{text}");
        asked.fixture.assert_untouched().unwrap();
    }
}

#[test]
fn the_agent_answers_what_we_may_not_see() {
    if !is_root("the_agent_answers_what_we_may_not_see") {
        return;
    }
    // Without CAP_SYS_PTRACE, the same user may look at the open files of a process, and with Yama not at its memory.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !matches!(scope.trim(), "1" | "2") {
        eprintln!("SKIPPED the_agent_answers_what_we_may_not_see: needs kernel.yama.ptrace_scope=1");
        return;
    }
    const NOBODY: u32 = 65534;
    let (dir, program) = public();
    let ours = dir.path().join("gops-probe");
    copy_program(binary().unwrap(), &ours).unwrap();
    let mut command = Command::new(&program);
    command.args(QUIET).uid(NOBODY).gid(NOBODY).current_dir("/").env("GOPS_CONFIG_DIR", dir.path());
    let mut fixture = Fixture::start(command).unwrap();
    let mut stack = Command::new(&ours);
    stack.args(["stack", &fixture.pid().to_string()]).uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = stack.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("answers instead, because"), "{stderr}");
    assert!(output.stdout.starts_with(b"goroutine "));
    fixture.assert_untouched().unwrap();
}

/// Our own endpoint for a process.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(pid: u32) -> Self {
        let mut command = Command::new(binary().unwrap());
        command.args(["serve", "--gops", &pid.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Served { child, address: address.trim().to_owned() }
    }

    fn wait(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Not reaped before, or gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stripped() -> Fixture {
    let mut command = Command::new(agents::parked(true).unwrap());
    command.args(QUIET);
    Fixture::start(command).unwrap()
}

#[test]
fn gops_asks_us_for_a_stripped_process_without_an_agent() {
    let mut fixture = stripped();
    let pid = fixture.pid().to_string();
    let mut served = Served::start(fixture.pid());
    let address = served.address.clone();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let theirs = |args: &[&str]| text(Command::new(gops().unwrap()).args(args));
    let ours = |args: &[&str]| text(Command::new(binary().unwrap()).args(args));
    assert_eq!(theirs(&["version", &address]), ours(&["version", "--via", "probe", &pid]));
    // The oracle is the process itself.
    let before = fixture.dump().unwrap();
    let stack = theirs(&["stack", &address]);
    let after = fixture.dump().unwrap();
    let [before, found, after] = [before, stack, after].map(|text| Dump::parse(&text));
    let comparison = compare(&before, &found, &after, fixture.dumper());
    assert!(comparison.accepted() && comparison.equal >= 40, "{comparison:#?}");
    // We are a client of it as well.
    assert_eq!(ours(&["version", &address]), theirs(&["version", &address]));
    for command in ["memstats", "stats"] {
        assert_eq!(
            keys(&theirs(&[command, &address])),
            keys(&ours(&[command, "--via", "probe", &pid])),
            "{command}"
        );
    }
    assert_eq!(theirs(&["setgc", &address, "70"]), "New GC percent set to 70. Previous value was 100.\n");
    assert_eq!(theirs(&["setgc", &address, "100"]), "New GC percent set to 100. Previous value was 70.\n");
    let cycle = || -> u64 {
        let said = ours(&["gc", "--json", "--via", "probe", &pid]);
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["cycle"].as_u64().unwrap()
    };
    let before = cycle();
    assert_eq!(theirs(&["gc", &address]), "");
    assert!(cycle() >= before + 2);
    assert_eq!(theirs(&["stats", &address]), ours(&["stats", &pid]));
    // What gops would take for success is no success.
    let output = Command::new(gops().unwrap()).args(["trace", &address]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    // Clients that say nothing, and one that does not read, are nobody's problem but theirs.
    let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut greedy = TcpStream::connect(&address).unwrap();
    greedy.write_all(&[9]).unwrap();
    assert_eq!(theirs(&["version", &address]), ours(&["version", &pid]));
    drop((silent, greedy));
    kill(Pid::from_raw(i32::try_from(served.child.id()).unwrap()), Signal::SIGINT).unwrap();
    let (code, stderr) = served.wait();
    assert_eq!(code, Some(130), "{stderr}");
    fixture.assert_untouched().unwrap();
}

#[test]
fn it_is_noticed_that_the_process_is_gone() {
    let fixture = stripped();
    let mut served = Served::start(fixture.pid());
    drop(fixture);
    let (code, stderr) = served.wait();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("exited meanwhile"), "{stderr}");
}

#[test]
fn listening_for_everybody_is_warned_of() {
    let mut fixture = stripped();
    let mut command = Command::new(binary().unwrap());
    command.args(["serve", "--gops", "--listen", "0.0.0.0:0", &fixture.pid().to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warned = lines.by_ref().map_while(Result::ok).take(2).any(|line| line.contains("warning:"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(warned);
    fixture.assert_untouched().unwrap();
}

/// A command of gops, and how to ask us for the same.
const COMMANDS: [(&str, &[&str]); 13] = [
    ("gops", &["list"]),
    ("gops PID", &["PID"]),
    ("gops tree", &["tree"]),
    ("gops stack PID", &["stack", "PID"]),
    ("gops gc PID", &["gc", "PID"]),
    ("gops setgc PID PERCENT", &["setgc", "PID", "100"]),
    ("gops memstats PID", &["memstats", "PID"]),
    ("gops version PID", &["version", "PID"]),
    ("gops stats PID", &["stats", "PID"]),
    ("gops trace PID", &["trace", "-o", "trace", "PID"]),
    ("gops pprof-heap PID", &["pprof-heap", "-o", "heap", "PID"]),
    ("gops pprof-cpu PID", &["pprof-cpu", "-d", "1s", "-o", "cpu", "PID"]),
    ("(the agent's binary dump)", &["binary", "-o", "binary", "PID"]),
];

/// What a run shows in the table.
fn verdict(output: &Output) -> &'static str {
    match output.status.code() {
        Some(0) => "yes",
        Some(2) => "not yet",
        Some(1) if String::from_utf8_lossy(&output.stderr).contains("needs a gops agent") => "needs an agent",
        _ => "FAILED",
    }
}

fn column(fixture: &mut Fixture, config: &Path) -> Vec<&'static str> {
    let pid = fixture.pid().to_string();
    let run = |args: &[&str]| {
        let args = args.iter().map(|&arg| if arg == "PID" { pid.as_str() } else { arg });
        let mut command = Command::new(binary().unwrap());
        let output = command.args(args).env("GOPS_CONFIG_DIR", config).current_dir(config).output().unwrap();
        let verdict = verdict(&output);
        assert!(verdict != "yes" || args_have_an_answer(&output), "{command:?}");
        assert!(verdict != "FAILED", "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        verdict
    };
    let column = COMMANDS.iter().map(|(_, args)| run(args)).collect();
    fixture.assert_untouched().unwrap();
    column
}

fn args_have_an_answer(output: &Output) -> bool {
    // `gc` is silent, as that of gops is.
    !output.stdout.is_empty() || output.stderr.is_empty()
}

/// The table in the README is what this finds. `UPDATE_README=1` writes it.
#[test]
fn compatibility_table() {
    let config = tempfile::tempdir().unwrap();
    let start = |program: PathBuf| {
        let mut command = Command::new(program);
        command.args(QUIET).env("GOPS_CONFIG_DIR", config.path());
        Fixture::start(command).unwrap()
    };
    let mut columns = Vec::new();
    for program in
        [agent(RELEASES[2]).unwrap(), agents::parked(false).unwrap(), agents::parked(true).unwrap()]
    {
        columns.push(column(&mut start(program), config.path()));
    }
    let profile = fs::read(config.path().join("cpu")).unwrap();
    assert!(profile.starts_with(&[0x1f, 0x8b]));
    let report = text(Command::new("go").args(["tool", "pprof", "-raw"]).arg(config.path().join("cpu")));
    assert!(report.contains("PeriodType: cpu nanoseconds"), "{report}");
    let mut table =
        String::from("| gops | with an agent | without | without, stripped |\n|---|---|---|---|\n");
    for (row, (command, _)) in COMMANDS.iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|column| column[row]).collect();
        let command = if command.starts_with('(') { (*command).to_owned() } else { format!("`{command}`") };
        table.push_str(&format!("| {command} | {} |\n", cells.join(" | ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (head, rest) = readme.split_once("<!-- compatibility:begin -->\n").unwrap();
    let (written, tail) = rest.split_once("<!-- compatibility:end -->").unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        let readme = format!("{head}<!-- compatibility:begin -->\n{table}<!-- compatibility:end -->{tail}");
        fs::write(&path, readme).unwrap();
    } else {
        assert_eq!(written, table, "run this with UPDATE_README=1");
    }
}
