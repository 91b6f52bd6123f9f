//! `list` and `version` on real processes of every kind that is easily overlooked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed step is a failed test; what is skipped is said"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Target, build, build_c, dir, drop_sections, json, listed, patched, probe, run, schema};

fn evidence(entry: &Value) -> Vec<&str> {
    entry["evidence"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn code(output: &std::process::Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_kind_of_go_program() {
    let dir = dir("kinds");
    let version = support::go_version();
    let plain = build(&dir, "plain", &[]);
    let stripped = build(&dir, "stripped", &["-trimpath", "-ldflags=-s -w"]);
    let pie = build(&dir, "pie", &["-buildmode=pie", "-ldflags=-s -w"]);
    let no_sections = patched(&stripped, dir.join("no-sections"), drop_sections);
    let pie_no_sections = patched(&pie, dir.join("pie-no-sections"), drop_sections);
    for (program, is_pie, evidence_of_code) in [
        (&plain, false, "function table"),
        (&stripped, false, "function table"),
        (&pie, true, "function table"),
        (&no_sections, false, "pclntab and moduledata"),
        (&pie_no_sections, true, "pclntab and moduledata"),
    ] {
        let target = Target::start(program);
        let entry = listed(target.pid).unwrap_or_else(|| panic!("{} is not listed", program.display()));
        assert_eq!(entry["version"], version.as_str());
        assert_eq!(entry["path"], program.to_str().unwrap());
        assert_eq!(entry["position_independent"], is_pie, "{entry}");
        assert_eq!(evidence(&entry), ["build info", evidence_of_code]);
        assert_eq!(entry["main_package"], "example.com/tiny");
        assert_eq!(entry.get("agent"), None);
        let output = run(&["version", &target.pid.to_string()]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{version}\n"));
        target.finish();
    }
}

#[test]
fn removed_build_info() {
    let dir = dir("wiped");
    let minor: u64 = support::go_version().split('.').nth(1).unwrap().parse().unwrap();
    let stripped = build(&dir, "stripped", &["-ldflags=-s -w"]);
    let pie = build(&dir, "pie", &["-buildmode=pie", "-ldflags=-s -w"]);
    for program in [stripped, pie] {
        let name = program.file_name().unwrap().to_str().unwrap().to_owned();
        let wiped = patched(&program, dir.join(format!("{name}-wiped")), support::wipe_build_info);
        let bare = patched(&wiped, dir.join(format!("{name}-bare")), drop_sections);
        for program in [wiped, bare] {
            let target = Target::start(&program);
            let entry = listed(target.pid).unwrap_or_else(|| panic!("{} is not listed", program.display()));
            // The runtime itself knows its version: a string that lies in the file.
            assert_eq!(entry["version"], support::go_version(), "{entry}");
            assert_eq!(entry["oldest_minor"], minor, "{entry}");
            assert!(entry["newest_minor"].as_u64().is_none_or(|m| m >= minor), "{entry}");
            assert_eq!(
                evidence(&entry),
                ["pclntab and moduledata", "runtime functions", "runtime.buildVersion"]
            );
            let answer = json(&["version", "--json", &target.pid.to_string()]);
            schema::assert_valid("version", &answer);
            assert_eq!(answer.get("build_info"), None);
            let output = run(&["version", &target.pid.to_string()]);
            assert!(String::from_utf8(output.stdout).unwrap().starts_with(&format!("go1.{minor}")));
            target.finish();
        }
    }
}

#[test]
fn whole_build_info() {
    let dir = dir("build-info");
    let target = Target::start(&build(&dir, "tiny", &["-ldflags=-s -w"]));
    let answer = json(&["version", "--json", &target.pid.to_string()]);
    schema::assert_valid("version", &answer);
    assert_eq!(answer["build_info"]["main"]["path"], "example.com/tiny");
    let settings = answer["build_info"]["settings"].as_array().unwrap();
    assert!(settings.iter().any(|s| s["key"] == "CGO_ENABLED" && s["value"] == "0"));
    // The text below the version is that of Go's own tool.
    let text = String::from_utf8(run(&["version", "-v", &target.pid.to_string()]).stdout).unwrap();
    let theirs = support::must(Command::new("go").args(["version", "-m"]).arg(dir.join("tiny")));
    for line in theirs.lines().skip(1) {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    target.finish();
}

#[test]
fn answers_of_stack_are_as_documented() {
    let dir = dir("stack-schema");
    let target = Target::start(&build(&dir, "tiny", &["-ldflags=-s -w"]));
    let pid = target.pid.to_string();
    for args in [&["stack", "--json", &pid][..], &["stack", "--json", "--all", "--no-pause", &pid]] {
        let answer = json(args);
        schema::assert_valid("stack", &answer);
        assert_eq!(answer["go_version"], support::go_version().as_str());
        assert!(!answer["goroutines"].as_array().unwrap().is_empty());
    }
    target.finish();
}

#[test]
fn deleted_executable() {
    let dir = dir("deleted");
    let program = build(&dir, "tiny", &[]);
    let target = Target::start(&program);
    fs::remove_file(&program).unwrap();
    let entry = listed(target.pid).expect("listed");
    assert_eq!((&entry["deleted"], &entry["path"]), (&true.into(), &program.to_str().unwrap().into()));
    // Another program at its path is not what runs.
    fs::write(&program, "#!/bin/sh\n").unwrap();
    assert_eq!(listed(target.pid).expect("listed")["version"], entry["version"]);
    target.finish();
}

#[test]
fn other_namespaces() {
    if !support::is_root("other_namespaces") {
        return;
    }
    let dir = dir("namespaces");
    let program = build(&dir, "tiny", &[]);
    let inside = dir.join("inside");
    fs::create_dir_all(&inside).unwrap();
    let script = "mount -t tmpfs none \"$1\" && cp \"$0\" \"$1/hidden\" && exec \"$1/hidden\"";
    let target = Target::start_command(
        Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])
            .args([&program, &inside]),
    );
    let list = json(&["--json"]);
    schema::assert_valid("list", &list);
    let entry = list["processes"].as_array().unwrap().iter().find(|p| p["name"] == "hidden").expect("listed");
    assert_eq!(entry["other_namespaces"], serde_json::json!(["mnt", "pid"]));
    assert_eq!(entry["path"], inside.join("hidden").to_str().unwrap());
    let pids = entry["namespace_pids"].as_array().unwrap();
    assert_eq!((&pids[0], &pids[1]), (&entry["pid"], &1.into()));
    // A port file is looked for where the process would write it.
    let config = inside.join("config");
    let pid = entry["pid"].to_string();
    let root = Path::new("/proc").join(&pid).join("root").join(config.strip_prefix("/").unwrap());
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("1"), &target.greeting).unwrap();
    assert_eq!(listed(pid.parse().unwrap()).unwrap().get("agent"), None);
    target.finish();
}

/// Bytes of a C program that look like Go to a careless reader.
const NOT_GO: &str = r#"
#include <stdio.h>
__attribute__((aligned(16))) char build_info[] =
    "\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" "\x08go1.26.8" "\x00";
__attribute__((aligned(16))) const unsigned char table[128] = {
    0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    72, 0, 0, 0, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 88, 0, 0, 0, 0, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0,
    104, 0, 0, 0, 0, 0, 0, 0};
int main() {
    printf("%d\n", build_info[0] + table[0]);
    fflush(stdout);
    getchar();
    puts("done");
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn magic_bytes_alone_are_no_go_program() {
    let dir = dir("not-go");
    let program = build_c(&dir, "fake", NOT_GO, &[]);
    let bare = patched(&program, dir.join("bare"), drop_sections);
    for program in [program, bare] {
        let target = Target::start(&program);
        assert_eq!(listed(target.pid), None, "{}", program.display());
        let output = run(&["version", &target.pid.to_string()]);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        assert!(stderr(&output).contains("is not a Go program"));
        target.finish();
    }
}

const HOST: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *go = dlopen(argv[1], RTLD_NOW);
    if (!go) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    ((void (*)(void))dlsym(go, "Wait"))();
    puts("ready");
    fflush(stdout);
    getchar();
    puts("done");
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn go_in_a_shared_object() {
    let dir = dir("c-shared");
    fs::write(dir.join("go.mod"), "module example.com/object\n\ngo 1.18\n").unwrap();
    fs::write(
        dir.join("main.go"),
        "package main\n\nimport \"C\"\nimport \"runtime\"\n\n//export Wait\nfunc Wait() { runtime.GC() }\n\nfunc main() {}\n",
    )
    .unwrap();
    support::must(Command::new("go").current_dir(&dir).env("CGO_ENABLED", "1").args([
        "build",
        "-buildmode=c-shared",
        "-ldflags=-s -w",
        "-o",
        "go.so",
        ".",
    ]));
    let host = build_c(&dir, "host", HOST, &["-ldl"]);
    let target = Target::start_command(Command::new(&host).arg(dir.join("go.so")));
    let entry = listed(target.pid).expect("listed");
    assert_eq!(entry["version"], support::go_version().as_str());
    assert_eq!(entry["shared_object"], dir.join("go.so").to_str().unwrap());
    assert_eq!(entry["path"], host.to_str().unwrap());
    assert_eq!(code(&run(&["version", &target.pid.to_string()])), 0);
    target.finish();
}

#[test]
fn names_cannot_reach_the_terminal() {
    let dir = dir("escapes");
    let program = build(&dir, "tiny", &[]);
    let evil = dir.join("a\u{1b}[31m\nb\u{202e}");
    support::copy(&program, &evil);
    let target = Target::start(&evil);
    let pid = target.pid.to_string();
    for args in [&["-v"][..], &["version", "-v", &pid], &["version", "999999999", "--color=never"]] {
        let output = run(args);
        for bytes in [output.stdout, output.stderr] {
            assert!(!bytes.contains(&0x1b), "{}", String::from_utf8_lossy(&bytes));
        }
    }
    let text = String::from_utf8(run(&[]).stdout).unwrap();
    let line = text.lines().find(|l| l.split_whitespace().next() == Some(&pid)).expect("one line");
    assert!(line.ends_with("a\\x1b[31m\\nb\\u{202e}"), "{line}");
    target.finish();
}

#[test]
fn agents_are_marked_where_they_listen() {
    let dir = dir("agents");
    let target = Target::start(&build(&dir, "tiny", &[]));
    let pid = target.pid.to_string();
    let marked = || support::has_agent(&support::must(probe().env("GOPS_CONFIG_DIR", &dir)), &pid);
    assert!(!marked());
    fs::write(dir.join(&pid), &target.greeting).unwrap();
    assert!(marked());
    // Left behind by an earlier process: somebody else listens there.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(dir.join(&pid), other.local_addr().unwrap().port().to_string()).unwrap();
    assert!(!marked());
    fs::write(dir.join(&pid), "no port").unwrap();
    assert!(!marked());
    target.finish();
}

#[test]
fn causes_and_exit_codes() {
    let output = run(&["version", "999999999"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("there is no process 999999999"));
    for wrong in [&["version", "0"][..], &["version", "-1"], &["version"], &["nonsense"], &["--color", "x"]] {
        assert_eq!(code(&run(wrong)), 2, "{wrong:?}");
    }
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    // Until it executes sleep, it is a copy of this test.
    let output = run(&["version", &sleeper.id().to_string()]);
    sleeper.kill().unwrap();
    assert!(matches!(code(&output), 3 | 4), "{}", stderr(&output));
    // Killed and not waited for, it becomes a zombie.
    let mut last = String::new();
    for _ in 0..1000 {
        let output = run(&["version", &sleeper.id().to_string()]);
        last = stderr(&output);
        if last.contains("is a zombie") {
            assert_eq!(code(&output), 3);
            break;
        }
    }
    assert!(last.contains("is a zombie"), "{last}");
    sleeper.wait().unwrap();
    if fs::read_to_string("/proc/2/comm").is_ok_and(|c| c.trim() == "kthreadd") {
        let output = run(&["version", "2"]);
        assert_eq!(code(&output), 4);
        assert!(stderr(&output).contains("is a kernel thread"));
    }
}

#[test]
fn a_thread_is_named_as_one() {
    let dir = dir("thread");
    let target = Target::start(&build(&dir, "tiny", &[]));
    let thread = fs::read_dir(format!("/proc/{}/task", target.pid))
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok())
        .find(|t| *t != target.pid.to_string())
        .expect("a second thread");
    let output = run(&["version", &thread]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("is a thread of process {}", target.pid)));
    target.finish();
}

#[test]
fn without_permission() {
    if !support::is_root("without_permission") {
        return;
    }
    let dir = dir("permission");
    let target = Target::start(&build(&dir, "tiny", &[]));
    // Where any user may execute it.
    let public = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = public.path().join("gops-probe");
    support::copy(env!("CARGO_BIN_EXE_gops-probe"), &program);
    let nobody = |args: &[&str]| Command::new(&program).args(args).uid(65534).gid(65534).output().unwrap();
    let output = nobody(&["version", &target.pid.to_string()]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("belongs to another user (uid 0)"), "{}", stderr(&output));
    assert!(stderr(&output).contains("sudo"));
    let output = nobody(&[]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("processes could not be inspected"), "{}", stderr(&output));
    target.finish();
}

/// The one capability that permission hints name is enough for a process of another user.
#[test]
fn cap_sys_ptrace_alone() {
    if !support::is_root("cap_sys_ptrace_alone") {
        return;
    }
    let dir = dir("capability");
    let public = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    for (name, flags) in [("exe", &["-ldflags=-s -w"][..]), ("pie", &["-buildmode=pie", "-ldflags=-s -w"])] {
        // Where any user may execute it.
        let program = public.path().join(name);
        support::copy(build(&dir, name, flags), &program);
        let target = Target::start_command(Command::new(&program).uid(65534).gid(65534));
        for command in ["version", "stack"] {
            let mut probe = Command::new("setpriv");
            probe.args(["--bounding-set=-all,+sys_ptrace", "--inh-caps=-all,+sys_ptrace"]);
            probe.arg(env!("CARGO_BIN_EXE_gops-probe")).args([command, &target.pid.to_string()]);
            let output = probe.output().unwrap();
            assert_eq!(code(&output), 0, "{name} {command}: {}", stderr(&output));
        }
        target.finish();
    }
}

#[test]
fn outputs() {
    let dir = dir("outputs");
    let target = Target::start(&build(&dir, "tiny", &[]));
    // Nobody reads.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = probe().stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((code(&output), stderr(&output).contains("error")), (0, false), "{}", stderr(&output));
    // Full.
    let output = run(&["-o", "/dev/full"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot write /dev/full: No space left"), "{}", stderr(&output));
    let output = run(&["-o", "/nonexistent/file"]);
    assert_eq!(code(&output), 1);
    // A file, and standard output by name.
    let file = dir.join("list.json");
    assert_eq!(code(&run(&["list", "--json", "-o", file.to_str().unwrap()])), 0);
    schema::assert_valid("list", &serde_json::from_slice(&fs::read(&file).unwrap()).unwrap());
    assert!(String::from_utf8(run(&["-o", "-"]).stdout).unwrap().contains("tiny"));
    target.finish();
}

/// The program that ours replaces, if Go can fetch it.
fn gops() -> Option<std::path::PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gops");
    if !dir.join("gops").exists() {
        let output = Command::new("go")
            .args(["install", "github.com/google/gops@v0.3.28"])
            .env("GOBIN", &dir)
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!("SKIPPED comparison with gops: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
    }
    Some(dir.join("gops"))
}

#[test]
fn same_text_as_gops() {
    let Some(gops) = gops() else { return };
    let dir = dir("same-text");
    let program = build(&dir, "tiny", &["-ldflags=-s -w"]);
    let long = dir.join("a-name-that-the-kernel-cuts-off");
    support::copy(&program, &long);
    let targets = [Target::start(&program), Target::start(&program), Target::start(&long)];
    let text = |command: &mut Command| -> Vec<String> {
        let text = support::must(command);
        // Columns are as wide as the widest of all processes, and others come and go meanwhile.
        let words = |l: &str| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let ours = |l: &String| targets.iter().any(|t| l.starts_with(&format!("{} ", t.pid)));
        let mut lines: Vec<_> = text.lines().map(words).filter(ours).collect();
        lines.sort();
        lines
    };
    let theirs = text(&mut Command::new(gops));
    assert_eq!(theirs.len(), 3);
    assert_eq!(text(&mut probe()), theirs);
    targets.into_iter().for_each(Target::finish);
}
