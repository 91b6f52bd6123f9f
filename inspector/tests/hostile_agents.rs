//! What claims to be an agent and is none, or a broken one: refused or bounded, and named.

#![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed step is a failed test; what is skipped is said"
)]

#[allow(dead_code, reason = "each file of tests uses its part")]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Target, build, dir, is_root, probe};

/// Far more than any refusal takes, even on a busy machine; what waits for the peer takes minutes.
const SOON: Duration = Duration::from_secs(25);

/// What a fake agent does once it has read the command.
type Deed = fn(u8, TcpStream);

/// A fake agent in this process; each connection has its own thread.
fn fake(deed: Deed) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut command = [0];
                if stream.read_exact(&mut command).is_ok() {
                    deed(command[0], stream);
                }
            });
        }
    });
    port
}

fn garbage(_: u8, mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\x1b]0;title\x07 and more of that\r\n");
}

fn silence(_: u8, stream: TcpStream) {
    std::thread::sleep(Duration::from_secs(600));
    drop(stream);
}

fn endless(_: u8, mut stream: TcpStream) {
    while stream.write_all(&[b'x'; 4096]).is_ok() {}
}

fn early_close(_: u8, stream: TcpStream) {
    drop(stream);
}

fn words_then_silence(_: u8, mut stream: TcpStream) {
    let _ = stream.write_all(b"goroutines: 12\n");
    silence(0, stream);
}

fn half_a_profile(_: u8, mut stream: TcpStream) {
    let bytes = gzip();
    let _ = stream.write_all(&bytes[..bytes.len() / 2]);
}

fn trace_then_silence(_: u8, mut stream: TcpStream) {
    let _ = stream.write_all(b"go 1.23 trace\0\0\0");
    let _ = stream.write_all(&[1; 5000]);
    silence(0, stream);
}

fn version(_: u8, mut stream: TcpStream) {
    let _ = stream.write_all(b"go1.24.1\n");
}

fn gzip() -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&[7; 10_000]).unwrap();
    gzip.finish().unwrap()
}

/// As real agents answer.
fn proper(command: u8, mut stream: TcpStream) {
    let answer = match command {
        1 => b"goroutine 1 [chan receive, 2 minutes, locked to thread]:\nmain.main()\n\t/src/main.go:7 +0x1d\n\n\
               goroutine 9 [running]:\nmain.f(...)\n\t/src/main.go:8\ncreated by main.main in goroutine 1\n\
               \t/src/main.go:5 +0x1\n"
            .to_vec(),
        2 => b"ok".to_vec(),
        3 => b"alloc: 1.25MB (1310720 bytes)\nlast-gc: 2026-11-25 12:00:00 +0000 UTC\ngc-pause-total: 1.5ms\n\
               gc-cpu-fraction: 0.5\nenable-gc: true\nnum-gc: 3\n"
            .to_vec(),
        4 => b"go1.24.1\n".to_vec(),
        5 | 6 => gzip(),
        7 => b"goroutines: 12\nOS threads: 7\nGOMAXPROCS: 2\nnum CPU: 4\n".to_vec(),
        8 => b"go 1.23 trace\0\0\0\x01".to_vec(),
        9 => b"\x7fELF\x02\x01\x01".to_vec(),
        _ => {
            // 200 as Go encodes it: closing with something unread would reset the connection.
            let mut percent = [0; 2];
            stream.read_exact(&mut percent).unwrap();
            assert_eq!(percent, [0x90, 3]);
            b"New GC percent set to 200. Previous value was 100.\n".to_vec()
        }
    };
    let _ = stream.write_all(&answer);
}

/// Runs with the port files of one directory; asserts that it ends soon.
fn ask(config: &Path, args: &[&str]) -> Output {
    let begun = Instant::now();
    let output = probe().env("GOPS_CONFIG_DIR", config).current_dir(config).args(args).output().unwrap();
    assert!(begun.elapsed() < SOON, "{args:?} took {:?}", begun.elapsed());
    output
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, why: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(why), "{why:?} is not in {stderr}");
    assert!(!output.stderr.contains(&0x1b), "{stderr}");
}

/// A port file for this very process, which has the fake agents' sockets: the check of the inode holds.
fn announce(config: &Path, port: u16) -> String {
    let pid = std::process::id().to_string();
    fs::write(config.join(&pid), port.to_string()).unwrap();
    pid
}

#[test]
fn answers_are_as_documented() {
    let config = dir("documented");
    let pid = announce(&config, fake(proper));
    for (schema, args) in [
        ("gc", &["gc"][..]),
        ("setgc", &["setgc", &pid, "200"]),
        ("memstats", &["memstats"]),
        ("stats", &["stats"]),
        ("version", &["version", "--via", "agent"]),
        ("stack", &["stack", "--via", "agent"]),
        ("saved", &["trace"]),
        ("saved", &["pprof-heap"]),
        ("saved", &["pprof-cpu", "--via", "agent", "-o", "cpu"]),
        ("saved", &["binary", "--via", "agent"]),
    ] {
        let mut args = [args, &["--json"]].concat();
        if !args.contains(&pid.as_str()) {
            args.push(&pid);
        }
        let output = ask(&config, &args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        support::schema::assert_valid(schema, &answer);
        assert_eq!((&answer["schema"], &answer["via"]), (&1.into(), &"agent".into()));
    }
    assert_eq!(fs::read(config.join("cpu")).unwrap(), gzip());
}

#[test]
fn files_go_where_they_are_wanted() {
    let config = dir("files");
    let address = format!("127.0.0.1:{}", fake(proper));
    let address = address.as_str();
    assert_eq!(ask(&config, &["pprof-heap", "-o", "-", address]).stdout, gzip());
    assert_eq!(ask(&config, &["pprof-heap", "-o", "/dev/null", address]).status.code(), Some(0));
    assert_fails(&ask(&config, &["pprof-heap", "--json", "-o", "-", address]), 2, "standard output");
    assert_fails(
        &ask(&config, &["pprof-heap", "--open", "-o", "-", address]),
        2,
        "--open requires --format pprof and a file destination",
    );
    assert_fails(&ask(&config, &["trace", "-o", "no/such/place", address]), 1, "cannot write no/such/place");
    // What was there before is replaced; a link that waits in our way is not followed.
    fs::write(config.join("heap"), "old").unwrap();
    fs::write(config.join("precious"), "precious").unwrap();
    symlink(config.join("precious"), config.join("heap.partial")).unwrap();
    assert_eq!(ask(&config, &["pprof-heap", "-o", "heap", address]).stdout, b"heap\n");
    assert_eq!(fs::read(config.join("heap")).unwrap(), gzip());
    assert_eq!(fs::read(config.join("precious")).unwrap(), b"precious");
    // The tools of Go get the file.
    let tools = config.join("tools");
    fs::create_dir(&tools).unwrap();
    support::write(&tools.join("go"), b"#!/bin/sh\necho \"$@\"\n");
    let mut ours = probe();
    ours.args(["trace", "--open", "--output=-t"]).arg(address).current_dir(&config);
    let output = ours.env("PATH", format!("{}:/bin:/usr/bin", tools.display())).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-t\ntool trace ./-t\n");
}

#[test]
fn serving_is_announced_as_documented() {
    let dir = dir("announced");
    let target = Target::start(&build(&dir, "tiny", &["-ldflags=-s -w"]));
    let mut ours = probe();
    ours.args(["serve", "--gops", "--json", &target.pid.to_string()]);
    let mut ours = ours.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut text = String::new();
    let mut stdout = std::io::BufReader::new(ours.stdout.take().unwrap());
    while !text.ends_with("}\n") {
        assert!(std::io::BufRead::read_line(&mut stdout, &mut text).unwrap() > 0, "{text}");
    }
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    support::schema::assert_valid("serve", &answer);
    let mut stream = TcpStream::connect(answer["listening"].as_str().unwrap()).unwrap();
    stream.write_all(&[4]).unwrap();
    let mut version = String::new();
    stream.read_to_string(&mut version).unwrap();
    assert_eq!(version.trim(), support::go_version());
    ours.kill().unwrap();
    ours.wait().unwrap();
    target.finish();
}

#[test]
fn garbage_is_named_and_not_kept() {
    let config = dir("garbage");
    let pid = announce(&config, fake(garbage));
    for command in ["pprof-heap", "trace", "binary"] {
        let output = ask(&config, &[command, "--via", "agent", "-o", "file", &pid]);
        assert_fails(&output, 1, "did not answer with a");
        assert!(!config.join("file").exists() && !config.join("file.partial").exists(), "{command}");
    }
    assert_fails(&ask(&config, &["gc", &pid]), 1, "did not answer with ok");
    for command in ["memstats", "stats", "version", "stack"] {
        let output = ask(&config, &[command, "--json", "--via", "agent", &pid]);
        assert_fails(&output, 1, "did not answer with");
        assert!(output.stdout.is_empty(), "{command}");
    }
    // Text is passed on as it is, but for a terminal.
    let output = ask(&config, &["stats", &pid]);
    assert!(output.status.success() && output.stdout.contains(&0x1b));
}

#[test]
fn the_agent_answers_what_cannot_be_seen_from_outside() {
    let config = dir("instead");
    // This test is no Go program, which is as good as one that is packed.
    let pid = announce(&config, fake(version));
    let output = ask(&config, &["version", &pid]);
    assert_fails(&output, 0, "answers instead, because: process");
    assert_eq!(output.stdout, b"go1.24.1\n");
    let output = ask(&config, &["version", "--json", "--via", "agent", &pid]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    support::schema::assert_valid("version", &answer);
    assert_eq!((&answer["version"], &answer["via"]), (&"go1.24.1".into(), &"agent".into()));
    assert_fails(&ask(&config, &["version", "--via", "probe", &pid]), 4, "is not a Go program");
}

#[test]
fn escapes_do_not_reach_a_terminal() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED escapes_do_not_reach_a_terminal: needs script");
        return;
    }
    let port = fake(garbage);
    let command = format!("{} stats 127.0.0.1:{port}", env!("CARGO_BIN_EXE_gops-probe"));
    let mut script = Command::new("script");
    let output = script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut binary = Command::new("script");
    let command = format!("{} pprof-heap -o - 127.0.0.1:{port}", env!("CARGO_BIN_EXE_gops-probe"));
    let binary = binary.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(binary.status.code(), Some(2), "{}", String::from_utf8_lossy(&binary.stdout));
    assert!(text.contains("\\x1b]0;title\\x07 and more"), "{text:?}");
    assert!(!output.stdout.contains(&0x1b) && !output.stdout.contains(&7), "{text:?}");
}

#[test]
fn silence_ends() {
    let config = dir("silence");
    let pid = announce(&config, fake(silence));
    for command in ["stack", "memstats", "gc"] {
        let output = ask(&config, &[command, "--via", "agent", "--timeout", "300ms", &pid]);
        assert_fails(&output, 1, "did not answer within 0.3 s");
    }
    let output = ask(&config, &["pprof-heap", "--timeout", "300ms", "-o", "file", &pid]);
    assert_fails(&output, 1, "did not answer within 0.3 s");
    assert!(!config.join("file").exists() && !config.join("file.partial").exists());
}

#[test]
fn an_endless_answer_is_cut_off() {
    let config = dir("endless");
    let pid = announce(&config, fake(endless));
    for (command, most) in [("version", 4 << 10), ("memstats", 64 << 10), ("stats", 64 << 10)] {
        let output = ask(&config, &[command, "--via", "agent", &pid]);
        assert_fails(&output, 7, "bytes");
        assert_eq!(output.stdout.len(), most, "{command}");
    }
    assert_fails(&ask(&config, &["memstats", "--json", &pid]), 1, "bytes");
}

#[test]
fn an_early_end_is_no_answer() {
    let config = dir("early");
    let pid = announce(&config, fake(early_close));
    for command in ["version", "stack", "gc", "stats", "pprof-heap", "trace"] {
        let output = ask(&config, &[command, "--via", "agent", &pid]);
        assert_fails(&output, 1, "closed the connection without an answer");
    }
    assert_eq!(fs::read_dir(&config).unwrap().count(), 1, "only the port file");
}

#[test]
fn what_came_is_kept_and_named_partial() {
    let config = dir("partial");
    let pid = announce(&config, fake(half_a_profile));
    let output = ask(&config, &["pprof-heap", "-o", "heap", &pid]);
    assert_fails(&output, 7, "heap.partial is not whole: its compressed data end early");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "heap.partial\n");
    assert_eq!(fs::metadata(config.join("heap.partial")).unwrap().len(), gzip().len() as u64 / 2);
    assert!(!config.join("heap").exists());

    let pid = announce(&config, fake(words_then_silence));
    let output = ask(&config, &["stats", "--timeout", "300ms", &pid]);
    assert_fails(&output, 7, "nothing came for 0.3 s");
    assert_eq!(output.stdout, b"goroutines: 12\n");
}

#[test]
fn an_interrupt_keeps_what_came() {
    let config = dir("interrupt");
    let pid = announce(&config, fake(trace_then_silence));
    let mut ours = probe();
    ours.env("GOPS_CONFIG_DIR", &config).args(["trace", "-o"]).arg(config.join("t")).arg(&pid);
    let ours = ours.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let partial = config.join("t.partial");
    let begun = Instant::now();
    // The buffer of the file is written at the end, so its being there is the sign.
    while !partial.exists() {
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(ours.id()).unwrap()),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    let output = ours.wait_with_output().unwrap();
    assert_fails(&output, 130, "interrupted");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 5016);
    assert!(!config.join("t").exists());
}

#[test]
fn impostors_and_what_was_left_behind() {
    let config = dir("impostors");
    let port = fake(garbage);
    let target = Target::start(&build(&config, "tiny", &[]));
    let pid = target.pid.to_string();
    fs::write(config.join(&pid), port.to_string()).unwrap();
    let output = ask(&config, &["stats", "--via", "agent", &pid]);
    let us = format!("is not of process {pid}: process {} (", std::process::id());
    assert_fails(&output, 1, &us);
    // Left behind: nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::write(config.join(&pid), gone.to_string()).unwrap();
    assert_fails(
        &ask(&config, &["stats", "--via", "agent", &pid]),
        1,
        &format!("nobody listens on port {gone}"),
    );
    // By an earlier process.
    let file = fs::File::options().write(true).open(config.join(&pid)).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    assert_fails(
        &ask(&config, &["stats", "--via", "agent", &pid]),
        1,
        "an earlier process with this pid wrote it",
    );
    target.finish();
}

/// Listens with SO_REUSEPORT, as an agent with `ReuseSocketAddrAndPort` does, and waits.
const REUSING: &str = r#"package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
)

func main() {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, 0xf, 1) })
	}}
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	fmt.Println("done")
	in.ReadString('\n')
}
"#;

#[test]
fn a_port_that_is_shared_is_not_asked() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let config = dir("shared");
    fs::write(config.join("go.mod"), "module example.com/reusing\n\ngo 1.18\n").unwrap();
    fs::write(config.join("main.go"), REUSING).unwrap();
    let mut go = Command::new("go");
    support::must(go.current_dir(&config).env("CGO_ENABLED", "0").args(["build", "-o", "reusing", "."]));
    let target = Target::start(&config.join("reusing"));
    let pid = target.pid.to_string();
    fs::write(config.join(&pid), &target.greeting).unwrap();
    let mark = || support::has_agent(&support::must(probe().env("GOPS_CONFIG_DIR", &config)), &pid);
    assert!(mark());
    // The same user may listen there too, and the kernel chooses whom a connection goes to.
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    let other = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseport(&other, true).unwrap();
    let port: u16 = target.greeting.parse().unwrap();
    bind(&other, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)).unwrap();
    listen(&other, 1).unwrap();
    assert_fails(&ask(&config, &["stats", "--via", "agent", &pid]), 1, "is shared with another socket");
    assert!(!mark());
    target.finish();
}

#[test]
fn forged_port_files() {
    let config = dir("forged");
    let port = fake(garbage);
    let file = config.join(std::process::id().to_string());
    let pid = std::process::id().to_string();
    let refused = |why: &str| {
        let output = ask(&config, &["stats", "--via", "agent", &pid]);
        assert_fails(&output, 1, why);
        assert!(output.stdout.is_empty());
        fs::remove_file(&file).unwrap();
    };
    fs::write(config.join("elsewhere"), port.to_string()).unwrap();
    symlink(config.join("elsewhere"), &file).unwrap();
    refused("is a symbolic link");
    symlink("/etc/shadow", &file).unwrap();
    refused("is a symbolic link");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("is no regular file");
    fs::File::create(&file).unwrap().set_len(1 << 42).unwrap();
    refused("holds more than a port number");
    for text in ["", "no port", "70000", "0", "-1", "\x1b[31m"] {
        fs::write(&file, text).unwrap();
        refused("holds no port number");
    }
    assert_fails(&ask(&config, &["stats", "--via", "agent", &pid]), 1, "there is no port file");
}

/// A process with a root directory of its own, in which links lead out.
#[test]
fn links_out_of_the_root_of_a_process() {
    if !is_root("links_out_of_the_root_of_a_process") {
        return;
    }
    let dir = dir("root");
    let program = build(&dir, "tiny", &[]);
    let root = dir.join("root");
    let outside = dir.join("outside");
    for path in [&root, &outside, &root.join("real")] {
        fs::create_dir_all(path).unwrap();
    }
    support::copy(&program, root.join("tiny"));
    let start = |config: &str| {
        let mut command = Command::new("chroot");
        command.arg(&root).arg("/tiny").env("GOPS_CONFIG_DIR", config);
        Target::start_command(&mut command)
    };
    // It says in its own root where it listens: found.
    let target = start("/real");
    let pid = target.pid.to_string();
    let own = |place: PathBuf| fs::write(place.join(&pid), &target.greeting).unwrap();
    own(root.join("real"));
    let find =
        |pid: &str, config: &Path| ask(config, &["stats", "--via", "agent", "--timeout", "200ms", pid]);
    assert_fails(&find(&pid, &outside), 1, "did not answer within");
    // A link for the file itself is refused.
    fs::remove_file(root.join("real").join(&pid)).unwrap();
    own(outside.clone());
    symlink(outside.join(&pid), root.join("real").join(&pid)).unwrap();
    let nowhere = dir.join("nowhere");
    fs::create_dir_all(&nowhere).unwrap();
    assert_fails(&find(&pid, &nowhere), 1, "is a symbolic link");
    target.finish();
    // One for the directory leads to a place within the root, where nothing is.
    symlink(&outside, root.join("link")).unwrap();
    let target = start("/link");
    fs::write(outside.join(target.pid.to_string()), &target.greeting).unwrap();
    assert_fails(&find(&target.pid.to_string(), &nowhere), 1, "there is no port file");
    target.finish();
}

#[test]
fn without_an_agent_it_is_said_what_is_needed() {
    let config = dir("none");
    let target = Target::start(&build(&config, "tiny", &["-ldflags=-s -w"]));
    let pid = target.pid.to_string();
    for args in [&["trace"][..], &["trace", "--via", "probe"]] {
        let output = ask(&config, &[args, &[pid.as_str()]].concat());
        assert_fails(&output, 1, &format!("{} needs a gops agent in the process", args[0]));
        assert!(output.stdout.is_empty());
    }
    for args in [
        ["version", &pid],
        ["stack", &pid],
        ["gc", &pid],
        ["memstats", &pid],
        ["pprof-heap", &pid],
        ["pprof-cpu", &pid],
    ] {
        assert_fails(&ask(&config, &[args[0], "--via", "agent", args[1]]), 1, "has no gops agent");
    }
    assert_fails(
        &ask(&config, &["stack", "--via", "agent", "--all", &pid]),
        2,
        "agents do not support --all",
    );
    assert_fails(
        &ask(&config, &["version", "--via", "probe", "127.0.0.1:1"]),
        2,
        "is the address of an agent",
    );
    assert_fails(&ask(&config, &["version", "999999999"]), 3, "there is no process");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_fails(&ask(&config, &["stats", &format!("127.0.0.1:{gone}")]), 1, "cannot connect to");
    // The program itself needs no agent.
    let output = ask(&config, &["binary", "-o", "copy", &pid]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(config.join("copy")).unwrap() == fs::read(config.join("tiny")).unwrap());
    target.finish();
}
