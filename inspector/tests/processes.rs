//! `tree`, `process` and the ways to name a process, against the real gops and what the kernel says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed step is a failed test; what is skipped is said"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Target, dir, json, must, probe, run, schema};

/// Opens sockets of each kind, uses CPU time, changes its settings, and starts two children that start nothing.
const FAMILY: &str = r#"package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	in := bufio.NewReader(os.Stdin)
	if len(os.Args) > 1 && os.Args[1] == "child" {
		fmt.Println("child")
		in.ReadString('\n')
		return
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	must(err)
	port := l.Addr().(*net.TCPAddr).Port
	if six, err := net.Listen("tcp6", "[::]:0"); err == nil {
		defer six.Close()
		if conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", six.Addr().(*net.TCPAddr).Port)); err == nil {
			defer conn.Close()
		}
	}
	if conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
		defer conn.Close()
	}
	u, err := net.ListenPacket("udp4", "0.0.0.0:0")
	must(err)
	defer u.Close()
	x, err := net.Listen("unix", fmt.Sprintf("@family-%d", os.Getpid()))
	must(err)
	defer x.Close()
	debug.SetGCPercent(70)
	var children []*exec.Cmd
	for i := 0; i < 2; i++ {
		child := exec.Command(os.Args[0], "child")
		pipe, err := child.StdinPipe()
		must(err)
		defer pipe.Close()
		out, err := child.StdoutPipe()
		must(err)
		must(child.Start())
		bufio.NewReader(out).ReadString('\n')
		children = append(children, child)
	}
	var used syscall.Rusage
	for syscall.Getrusage(syscall.RUSAGE_SELF, &used); used.Utime.Sec == 0 && used.Utime.Usec < 400000; {
		syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	}
	fmt.Println(port)
	in.ReadString('\n')
	fmt.Println("done")
	in.ReadString('\n')
	for _, child := range children {
		child.Process.Kill()
		child.Wait()
	}
}
"#;

fn family(dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    fs::write(dir.join("go.mod"), "module example.com/family\n\ngo 1.18\n").unwrap();
    fs::write(dir.join("main.go"), FAMILY).unwrap();
    let mut build = Command::new("go");
    build.current_dir(dir).env("CGO_ENABLED", "0").arg("build").args(flags).args(["-o", name, "."]);
    must(&mut build);
    dir.join(name)
}

/// Runs a program below a shell of its own, so that no other test has the same parent.
fn below_a_shell(program: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" \"argument with spaces\" \"\"; :"]).arg(program);
    shell
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|p| p.parse().unwrap()).collect()
}

/// The programs that ours replaces, if Go can fetch them.
fn gops() -> Vec<PathBuf> {
    let mut programs = Vec::new();
    for release in ["v0.3.28", "v0.3.25", "v0.3.22"] {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gops-{release}"));
        if !dir.join("gops").exists() {
            let mut install = Command::new("go");
            install.args(["install", &format!("github.com/google/gops@{release}")]);
            let output = install.env("GOBIN", &dir).current_dir(std::env::temp_dir()).output().unwrap();
            if !output.status.success() {
                eprintln!("SKIPPED comparison with gops {release}: {}", stderr(&output));
                continue;
            }
        }
        programs.push(dir.join("gops"));
    }
    programs
}

/// The lines of a tree below one of its parents, from where that begins.
fn branch(tree: &str, parent: u32) -> String {
    let line = |l: &str| l.chars().skip(4).collect::<String>() + "\n";
    let is_top = |l: &&str| l.starts_with(['├', '└']);
    let mut lines = tree.lines().skip_while(|l| !(is_top(l) && line(l).trim() == parent.to_string()));
    let first = lines.next().map(line).unwrap_or_else(|| panic!("no {parent} in {tree}"));
    first + &lines.take_while(|l| !is_top(l) && !l.is_empty()).map(line).collect::<String>()
}

#[test]
fn same_tree_as_gops() {
    let dir = dir("tree");
    let shell =
        Target::start_command(&mut below_a_shell(&family(&dir, "a-name-that-the-kernel-cuts-off", &[])));
    let parent = children(shell.pid)[0];
    // It has an agent, as far as a port file and a listening socket say.
    fs::write(dir.join(parent.to_string()), &shell.greeting).unwrap();
    let text = |program: &mut Command| must(program.arg("tree").env("GOPS_CONFIG_DIR", &dir));
    let ours = text(&mut probe());
    assert!(ours.starts_with("...\n") && ours.ends_with("\n\n"), "{ours:?}");
    let ours = branch(&ours, shell.pid);
    assert_eq!(ours.lines().count(), 4, "{ours}");
    for gops in gops() {
        // It leaves open in which order children come.
        let theirs = (0..50).map(|_| branch(&text(&mut Command::new(&gops)), shell.pid));
        let last = theirs.scan(false, |found, t| {
            if *found {
                return None;
            }
            *found = t == ours;
            Some(t)
        });
        assert_eq!(last.last().unwrap(), ours, "{}", gops.display());
    }
    let answer = json(&["tree", "--json"]);
    schema::assert_valid("tree", &answer);
    let nodes = answer["nodes"].as_array().unwrap();
    let at = nodes.iter().position(|n| n["pid"] == shell.pid).unwrap();
    let depths: Vec<_> = nodes[at..at + 4].iter().map(|n| n["depth"].as_u64().unwrap()).collect();
    assert_eq!(depths, [0, 1, 2, 2]);
    assert_eq!(nodes[at].get("process"), None);
    assert_eq!(nodes[at + 1]["process"]["pid"], parent);
    assert!(stdout(&run(&["tree", "-v"])).contains("a-name-that-the-kernel-cuts-off  [build info"));
    shell.finish();
}

/// What `process` says, line by line.
fn lines(output: &Output) -> Vec<(String, String)> {
    let text = stdout(output);
    let split = |l: &str| {
        l.split_once(":\t").map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap_or_else(|| panic!("{text}"))
    };
    text.lines().map(split).collect()
}

fn percent(value: &str) -> f64 {
    let number = value.strip_suffix('%').unwrap();
    assert_eq!(number.split_once('.').unwrap().1.len(), 3, "{value}");
    number.parse().unwrap()
}

fn seconds(value: &str) -> u64 {
    let (days, rest) = value.split_once('-').unwrap_or(("0", value));
    assert!(rest.split(':').count() >= 2 && rest.split(':').all(|part| part.len() == 2), "{value}");
    let of_day = rest.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    days.parse::<u64>().unwrap() * 86_400 + of_day
}

/// Compares our answer with those of gops just before and just after it.
fn compare(before: &Output, ours: &Output, after: &Output) {
    let [before, ours, after] = [before, ours, after].map(lines);
    let keys = |lines: &[(String, String)]| lines.iter().map(|l| l.0.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&after));
    assert_eq!(keys(&before), keys(&after));
    for ((b, o), a) in before.iter().zip(&ours).zip(&after) {
        let context = format!("{b:?} {o:?} {a:?}");
        match o.0.as_str() {
            // One may start or end at any time.
            "threads" => {
                let n = |v: &str| v.parse::<u64>().unwrap();
                assert!((n(&b.1).min(n(&a.1))..=n(&b.1).max(n(&a.1))).contains(&n(&o.1)), "{context}");
            }
            "elapsed time" => {
                assert!((seconds(&b.1)..=seconds(&a.1)).contains(&seconds(&o.1)), "{context}");
            }
            key if key.starts_with("cpu usage (") => {
                // It waits: whatever it uses is little.
                assert!(percent(&o.1) < 20.0, "{context}");
                percent(&a.1);
            }
            "cpu usage" | "memory usage" => {
                let (low, high) = (percent(&a.1).min(percent(&b.1)), percent(&a.1).max(percent(&b.1)));
                let ours = percent(&o.1);
                assert!(low * 0.95 - 0.002 <= ours && ours <= high * 1.05 + 0.002, "{context}");
            }
            _ => assert_eq!(o.1, a.1),
        }
    }
}

#[test]
fn same_process_as_gops() {
    let dir = dir("process");
    let shell = Target::start_command(&mut below_a_shell(&family(&dir, "family", &["-ldflags=-s -w"])));
    let pid = children(shell.pid)[0].to_string();
    for gops in gops() {
        for arguments in [&["process", &pid][..], &[&pid], &["proc", &pid, "1"], &["pid", &pid, "150ms"]] {
            // Before v0.3.26 it has this form alone.
            let plain = arguments.iter().filter(|a| a.starts_with(|c: char| c.is_ascii_digit()));
            let theirs = || Command::new(&gops).args(plain.clone()).output().unwrap();
            let (before, ours, after) = (theirs(), run(arguments), theirs());
            assert_eq!(code(&ours), 0, "{}", stderr(&ours));
            compare(&before, &ours, &after);
            let text = stdout(&ours);
            assert!(text.contains("family argument with spaces\n"), "{text}");
            assert!(
                text.contains(&format!("local/remote:\t0.0.0.0:{} <-> 0.0.0.0:0 (LISTEN)", shell.greeting))
            );
            assert!(
                text.contains("(ESTABLISHED)") && text.contains(&format!("@family-{pid}:0 <-> :0 (NONE)")),
                "{text}"
            );
        }
    }
    // What gops takes for a process, ours does too.
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let sleeping = sleeper.id().to_string();
    if let Some(gops) = gops().first() {
        let theirs = || Command::new(gops).arg(&sleeping).output().unwrap();
        // Until it executes sleep, it is a copy of this test.
        while fs::read_to_string(format!("/proc/{sleeping}/comm")).unwrap() != "sleep\n" {}
        compare(&theirs(), &run(&["process", &sleeping]), &theirs());
    }
    let answer = json(&["process", "--json", &sleeping]);
    schema::assert_valid("process", &answer);
    assert!(answer["not_go"].as_str().unwrap().contains("is not a Go program"), "{answer:#}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    for wrong in [&["process", &pid, "soon"][..], &["process", &pid, "-1"], &["process"], &[&pid, "x"]] {
        assert_eq!(code(&run(wrong)), 2, "{wrong:?}");
    }
    assert_eq!(code(&run(&["process", "999999999"])), 3);
    shell.finish();
}

/// CPU time in clock ticks, as the kernel counts it.
fn ticks(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

#[test]
fn what_gops_does_not_say() {
    let dir = dir("process-more");
    for (name, flags) in [
        ("plain", &[][..]),
        ("stripped", &["-ldflags=-s -w"]),
        ("pie", &["-buildmode=pie", "-ldflags=-s -w"]),
    ] {
        let program = family(&dir, name, flags);
        let mut command = Command::new(&program);
        command
            .env("GOGC", "50")
            .env("GOMAXPROCS", "3")
            .env("GOMEMLIMIT", "1GiB")
            .env("GODEBUG", "madvdontneed=1");
        let target = Target::start_command(&mut command);
        let pid = target.pid.to_string();
        let before = ticks(target.pid);
        let answer = json(&["process", "--json", &pid]);
        let after = ticks(target.pid);
        schema::assert_valid("process", &answer);
        let cpu = answer["cpu_seconds"].as_f64().unwrap() * 100.0;
        assert!((before..=after).contains(&cpu.round()) && before >= 20.0, "{before} {cpu} {after}");
        let go = &answer["go"];
        assert_eq!(go["version"], support::go_version().as_str());
        assert_eq!(go["main_module"]["path"], "example.com/family");
        assert_eq!(go["build_id"], must(Command::new("go").args(["tool", "buildid"]).arg(&program)).trim());
        // What holds now, not what it began with.
        assert_eq!((&go["gomaxprocs"], &go["gogc"]), (&3.into(), &70.into()), "{name}: {answer:#}");
        assert_eq!(go["memory_limit_bytes"], 1 << 30, "{name}");
        let environment = answer["environment"].as_array().unwrap();
        let variable =
            |name: &str| environment.iter().find(|v| v["name"] == name).map(|v| v["value"].clone());
        assert_eq!(variable("GOGC"), Some("50".into()));
        assert_eq!(variable("GODEBUG"), Some("madvdontneed=1".into()));
        assert_eq!(answer.get("unknown"), None, "{answer:#}");
        assert!(answer["connections"].as_array().unwrap().iter().any(|c| c["state"] == "LISTEN"));
        assert_eq!(answer["cost"]["bytes_written"], 0);
        let text = stdout(&run(&["process", "-v", &pid]));
        for line in ["GOGC:\t50 (environment)", "GOGC now:\t70", "main module:\texample.com/family"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        target.finish();
    }
}

#[test]
fn processes_of_others() {
    if !support::is_root("processes_of_others") {
        return;
    }
    let dir = dir("process-others");
    // Where any user may execute them.
    let public = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let copied = |from: &Path, name: &str| {
        support::copy(from, public.path().join(name));
        public.path().join(name)
    };
    let program = copied(&family(&dir, "family", &["-ldflags=-s -w"]), "family");
    let ours = copied(Path::new(env!("CARGO_BIN_EXE_gops-probe")), "gops-probe");
    let of_nobody = Target::start_command(Command::new(&program).uid(65534).gid(65534));
    let of_root = Target::start(&program);
    let nobody = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).uid(65534).gid(65534).output().unwrap()
    };
    for (i, gops) in gops().iter().enumerate() {
        let theirs = copied(gops, &format!("gops-{i}"));
        // As root, at a process of another user: everything.
        let arguments = ["process", &of_nobody.pid.to_string()];
        let look = || Command::new(gops).arg(arguments[1]).output().unwrap();
        let (before, output, after) = (look(), run(&arguments), look());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains("username:\tnobody\n") && stdout(&output).contains("(LISTEN)"));
        compare(&before, &output, &after);
        // Without privileges, at a process of root: the same text, and what is missing has a name.
        let arguments = ["process", &of_root.pid.to_string()];
        let look = || nobody(&theirs, &arguments[1..]);
        let (before, output, after) = (look(), nobody(&ours, &arguments), look());
        assert_eq!(code(&output), 7, "{}", stderr(&output));
        compare(&before, &output, &after);
        let told = stderr(&output);
        assert!(told.contains("unknown: cannot list the open files") && told.contains("sudo"), "{told}");
    }
    let output = nobody(&ours, &["process", "--json", &of_root.pid.to_string()]);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::assert_valid("process", &answer);
    assert_eq!((answer.get("connections"), answer.get("go"), answer.get("environment")), (None, None, None));
    assert_eq!((&answer["uid"], &answer["username"]), (&0.into(), &"root".into()));
    let unknown = answer["unknown"].to_string();
    for part in ["open files", "executable", "environment"] {
        assert!(unknown.contains(part), "{part} is not in {unknown}");
    }
    of_nobody.finish();
    of_root.finish();
}

#[test]
fn other_namespaces() {
    if !support::is_root("other_namespaces") {
        return;
    }
    let dir = dir("process-namespaces");
    let program = family(&dir, "family", &["-ldflags=-s -w"]);
    let inside = dir.join("inside");
    fs::create_dir_all(&inside).unwrap();
    let script = "mount -t tmpfs none \"$1\" && cp \"$0\" \"$1/hidden\" && exec \"$1/hidden\"";
    let target = Target::start_command(
        Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", script])
            .args([&program, &inside]),
    );
    let pid = children(target.pid)[0];
    let arguments = ["process", &pid.to_string()];
    for gops in gops() {
        let theirs = || Command::new(&gops).arg(arguments[1]).output().unwrap();
        let (before, ours, after) = (theirs(), run(&arguments), theirs());
        compare(&before, &ours, &after);
        assert!(stdout(&ours).contains("(LISTEN)"));
    }
    let answer = json(&["process", "--json", &pid.to_string()]);
    schema::assert_valid("process", &answer);
    assert_eq!(answer["other_namespaces"], serde_json::json!(["mnt", "pid", "net"]));
    assert_eq!(answer["namespace_pids"], serde_json::json!([pid, 1]));
    assert_eq!(answer["go"]["gogc"], 70);
    // gops opens the executable by its path, and finds nothing there.
    let tree = stdout(&run(&["tree"]));
    assert!(branch(&tree, target.pid).contains(&format!("{pid} (hidden)")), "{tree}");
    target.finish();
}

/// A cgroup with limits for a test, which goes when its process is gone.
struct Group(Vec<PathBuf>);

impl Group {
    /// With 256 MiB of memory and half a core. `None` where none can be made.
    fn new(name: &str) -> Option<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let (memory, cpu) = (top.join("memory").join(name), top.join("cpu").join(name));
        let second = top.join(name);
        let version_2 = top.join("cgroup.controllers").exists();
        let settings = if version_2 {
            vec![(&second, "memory.max", "268435456"), (&second, "cpu.max", "50000 100000")]
        } else {
            vec![
                (&memory, "memory.limit_in_bytes", "268435456"),
                (&cpu, "cpu.cfs_period_us", "100000"),
                (&cpu, "cpu.cfs_quota_us", "50000"),
            ]
        };
        let mut group = Group(Vec::new());
        for (folder, file, value) in settings {
            let made = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(file), value));
            group.0.push(folder.clone());
            if let Err(e) = made {
                eprintln!("SKIPPED limits of cgroups: {}/{file}: {e}", folder.display());
                return None;
            }
        }
        Some(group)
    }

    fn take(&self, pid: u32) {
        for folder in &self.0 {
            fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[test]
fn containers_and_their_limits() {
    if !support::is_root("containers_and_their_limits") {
        return;
    }
    let id = format!("{:064x}", u128::from(std::process::id()) << 64 | 0xc0ffee);
    let Some(group) = Group::new(&format!("docker-{id}.scope")) else { return };
    let dir = dir("process-container");
    let target = Target::start(&family(&dir, "family", &["-ldflags=-s -w"]));
    group.take(target.pid);
    let answer = json(&["process", "--json", &format!("container:{}", &id[..60])]);
    schema::assert_valid("process", &answer);
    assert_eq!((&answer["pid"], &answer["container"]), (&target.pid.into(), &id.as_str().into()));
    let limits = &answer["cgroup"];
    assert_eq!(limits["path"], format!("/docker-{id}.scope"));
    assert_eq!((&limits["memory_limit_bytes"], &limits["cpu_limit_cores"]), (&268435456.into(), &0.5.into()));
    assert!(limits["cpu_throttled_us"].is_u64() && limits["memory_used_bytes"].is_u64(), "{answer:#}");
    let output = run(&["version", "container:ffffffffffff"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    target.finish();
}

#[test]
fn targets_by_name() {
    let dir = dir("targets");
    let name = format!("orders-{}", std::process::id());
    let program = support::build(&dir, &name, &["-ldflags=-s -w"]);
    let by_name = format!("name:^{name}$");
    let output = run(&["version", &by_name]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("no Go process matches {by_name}")));
    // Nothing appears.
    let begun = Instant::now();
    let output = run(&["version", "--wait=200ms", &by_name]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    // It appears after a while.
    let waiting = probe().args(["version", "--wait=60s", &by_name]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(120));
    let first = Target::start(&program);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!((code(&output), stdout(&output)), (0, format!("{}\n", support::go_version())));
    let process = json(&["--json", &by_name]);
    assert_eq!(process["pid"], first.pid);
    assert_eq!(json(&["stack", "--json", &by_name])["pid"], first.pid);
    let second = Target::start(&program);
    let output = run(&["stack", &by_name]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    for pid in [first.pid, second.pid] {
        assert!(stderr(&output).contains(&format!("{pid} ({name})")), "{}", stderr(&output));
    }
    for agent in ["127.0.0.1:6060", "[::1]:6060", "localhost:6060"] {
        for command in [&["process", agent][..], &["stack", "--via", "probe", agent]] {
            let output = run(command);
            assert_eq!(code(&output), 2);
            assert!(stderr(&output).contains("is the address of an agent"), "{}", stderr(&output));
        }
    }
    for wrong in ["name:(", "name:", "container:", "a/b:1", "::1:5"] {
        assert_eq!(code(&run(&["version", wrong])), 2, "{wrong}");
    }
    first.finish();
    second.finish();
}
