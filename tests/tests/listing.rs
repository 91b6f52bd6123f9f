//! What a user can do to root's `list`: files that claim more than anybody can read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::Path;
use std::process::Command;

use fixtures::native::{Build, Source, Symbols};
use fixtures::{Fixture, copy_program, probe};

/// How many programs, and what each claims to have.
const PROGRAMS: usize = 6;
const CLAIM: u64 = 4 << 30;

/// Makes a program claim a segment with all of the file, which is nothing but a hole behind what there was.
fn swell(program: &Path) {
    // The note of a build id is not needed to run: its header (PT_NOTE) becomes that of a segment of zeros that is mapped where
    // nothing else is. Another process writes, so that nobody has the file open when it is executed.
    let script = r#"
import struct, sys
path, claim = sys.argv[1], int(sys.argv[2])
with open(path, "r+b") as f:
    head = f.read(64)
    phoff, phentsize, phnum = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    f.seek(0, 2)
    start = (f.tell() + 0xffff) & ~0xffff
    for i in range(phnum):
        f.seek(phoff + i * phentsize)
        if struct.unpack("<I", f.read(4))[0] == 4:
            f.seek(phoff + i * phentsize)
            f.write(struct.pack("<IIQQQQQQ", 1, 4, start, 0x10000000, 0x10000000, claim, claim, 0x1000))
            break
    else:
        sys.exit("no note")
    f.truncate(start + claim)
"#;
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(program).arg(CLAIM.to_string());
    assert!(python.status().unwrap().success());
}

#[test]
fn huge_sparse_programs_of_a_user() {
    let build = Build { source: Source::Calls, pointers: false, symbols: Symbols::Inside };
    let built = build.program().unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy_program(&built.with_file_name("libcalls.so"), &dir.path().join("libcalls.so")).unwrap();
    let mut fixtures: Vec<Fixture> = (0..PROGRAMS)
        .map(|i| {
            let program = dir.path().join(format!("program{i}"));
            copy_program(&built, &program).unwrap();
            swell(&program);
            let mut command = Command::new(&program);
            command.arg("thread");
            Fixture::start(command).unwrap()
        })
        .collect();
    let output = probe(&["list", "--json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Holes are not read: what is read is what other programs of the machine have.
    let read = answer["cost"]["file_bytes_read"].as_u64().unwrap();
    assert!(read < CLAIM / 4, "{read} bytes were read");
    for fixture in &mut fixtures {
        let pid = u64::from(fixture.pid());
        let listed = |list: &str| {
            let empty = Vec::new();
            let list = answer[list].as_array().unwrap_or(&empty).clone();
            list.iter().any(|p| p["pid"].as_u64() == Some(pid) || p.as_u64() == Some(pid))
        };
        assert!(!listed("processes") && !listed("not_looked_at"), "{answer}");
        fixture.assert_untouched().unwrap();
    }
}
