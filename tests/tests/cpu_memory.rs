//! What others put into files that a process has mapped decides nothing about the memory that looking at it takes: debug information
//! that claims gigabytes, in several files.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fixtures::repetition::say;
use fixtures::{binary, machine, pprof};
use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Libraries, and how many bytes of zeros each has, packed into a thousandth of that. All together they are more than is allowed.
const LIBRARIES: usize = 4;
const ZEROS: usize = 400 << 20;
/// One has more than is ever read of a file.
const TOO_MANY: usize = 700 << 20;
/// 1 GiB of debug information, and what gops-probe takes besides.
const MOST_MIB: u64 = 1280;

/// The most memory that one of the processes has had that were run and waited for, in KiB.
fn most_of_children() -> u64 {
    // SAFETY: all zeros are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is filled in, and lives longer than the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    usage.ru_maxrss.cast_unsigned()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A packed section (`SHF_COMPRESSED`, zlib) of zeros: its header, and what follows.
fn packed(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1u64.to_le_bytes());
    bytes.extend((size as u64).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    let mut encoder = ZlibEncoder::new(bytes, Compression::default());
    let zeros = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// Says of a section that it is packed, which `objcopy` does not do.
fn mark_packed(file: &Path, name: &str) {
    let mut bytes = fs::read(file).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let half =
        |bytes: &[u8], at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let (table, count, names) = (word(&bytes, 40), half(&bytes, 60), half(&bytes, 62));
    let strings = word(&bytes, table + 64 * names + 24);
    let mut found = false;
    for at in (0..count).map(|index| table + 64 * index) {
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if bytes[strings + offset..].starts_with(format!("{name}\0").as_bytes()) {
            // SHF_COMPRESSED, in the second byte of the flags.
            bytes[at + 9] |= 8;
            found = true;
        }
    }
    assert!(found, "{}", file.display());
    fs::write(file, bytes).unwrap();
}

/// A library with a function `work_N` that computes for a while.
fn library(folder: &Path, index: usize, section: &Path) -> PathBuf {
    let source = folder.join(format!("work{index}.c"));
    let text = format!(
        "unsigned long work_{index}(unsigned long x) {{\n  for (long i = 0; i < 2000000; i++) x = x * 6364136223846793005ul + i;\n  \
         return x;\n}}\n"
    );
    fs::write(&source, text).unwrap();
    let path = folder.join(format!("libwork{index}.so"));
    run(Command::new("gcc").args(["-O1", "-g", "-shared", "-fPIC", "-o"]).arg(&path).arg(&source));
    // A section that the compiler does not write by itself.
    let added = format!(".debug_ranges={}", section.display());
    run(Command::new("objcopy").arg("--add-section").arg(added).arg(&path));
    mark_packed(&path, ".debug_ranges");
    path
}

#[test]
fn debug_information_has_one_limit_for_all() {
    let _alone = machine::alone();
    // Made before anything is measured.
    let ours = binary().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let section = |name: &str, zeros| {
        let path = folder.path().join(name);
        fs::write(&path, packed(zeros)).unwrap();
        path
    };
    let (many, too_many) = (section("many", ZEROS), section("too_many", TOO_MANY));
    let sections = std::iter::repeat_n(&many, LIBRARIES).chain([&too_many]);
    let libraries = sections.enumerate().map(|(index, section)| library(folder.path(), index, section));
    let libraries: Vec<PathBuf> = libraries.collect();
    let mut source = String::from("#include <stdio.h>\n");
    for index in 0..=LIBRARIES {
        writeln!(source, "unsigned long work_{index}(unsigned long);").unwrap();
    }
    source.push_str("unsigned long all(unsigned long x) {\n");
    for index in 0..=LIBRARIES {
        writeln!(source, "  x = work_{index}(x);").unwrap();
    }
    source.push_str("  return x;\n}\nint main(void) {\n  puts(\"ready\"), fflush(stdout);\n  for (unsigned long x = 1;;) x = all(x);\n}\n");
    fs::write(folder.path().join("main.c"), source).unwrap();
    let program = folder.path().join("program");
    run(Command::new("gcc")
        .args(["-O1", "-g", "-o"])
        .arg(&program)
        .arg(folder.path().join("main.c"))
        .args(&libraries)
        .arg(format!("-Wl,-rpath,{}", folder.path().display())));
    let mut target = Command::new(&program).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(target.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let (pid, path) = (target.id().to_string(), folder.path().join("profile"));
    for arguments in
        [&["pprof-cpu", "-d", "3s", "-r", "499"][..], &["top", "--interval", "2s", "--count", "1"]]
    {
        let mut command = Command::new(ours);
        command.args(arguments).arg(&pid).stdin(Stdio::null());
        if arguments[0] == "pprof-cpu" {
            command.arg("-o").arg(&path);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
        // Of all that this test has run and waited for: the compiler takes far less.
        let most = most_of_children() >> 10;
        say(&format!("{arguments:?}: at most {most} MiB"));
        assert!(most < MOST_MIB, "{arguments:?}: {most} MiB");
        // What is left out is said, and its functions have their names all the same.
        assert!(stderr.contains(&format!("libwork{LIBRARIES}.so")), "{stderr}");
        assert!(!stderr.contains("libwork0.so"), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let rows =
            (arguments[0] == "pprof-cpu").then(|| pprof::parse(&fs::read(&path).unwrap()).unwrap().rows);
        for index in 0..=LIBRARIES {
            let name = format!("work_{index}");
            match &rows {
                Some(rows) => {
                    let of: Vec<_> = rows.iter().filter(|row| row.passes(&name)).collect();
                    assert!(!of.is_empty() && of.iter().all(|row| row.passes("main")), "{name}: {rows:#?}");
                    let has_line =
                        of.iter().any(|row| format!("{row:?}").contains(&format!("work{index}.c:2")));
                    assert_eq!(has_line, index < LIBRARIES, "{name}: {of:#?}");
                }
                None => assert!(stdout.contains(&name), "{name}: {stdout}"),
            }
        }
    }
    assert!(target.try_wait().unwrap().is_none(), "it ended");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n") && !status.contains("State:\tT"), "{status}");
    target.kill().unwrap();
    target.wait().unwrap();
}
