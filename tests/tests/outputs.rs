//! Where answers go: nobody else chooses the file, and nobody else reads it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build, probe};

fn target() -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, &[], &[]).unwrap()
}

/// A folder with this mode.
fn folder(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Commands that answer with a file or with text.
const COMMANDS: [&[&str]; 4] = [&["stack"], &["memstats", "--json"], &["pprof-heap"], &["binary"]];

fn run(command: &[&str], to: &Path, fixture: &mut Fixture) -> Output {
    let pid = fixture.pid().to_string();
    let output = probe(&[command, &["-o", to.to_str().unwrap(), pid.as_str()]].concat()).unwrap();
    fixture.assert_untouched().unwrap();
    output
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn files_are_private() {
    let mut fixture = target();
    let dir = folder(0o755);
    for command in COMMANDS {
        let path = dir.path().join(command[0]);
        for earlier in [false, true] {
            if earlier {
                fs::write(&path, "earlier").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
            }
            let output = run(command, &path, &mut fixture);
            assert!(output.status.success(), "{command:?}: {}", error(&output));
            let expected = if command[0] == "binary" { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{command:?}");
            assert_ne!(fs::read(&path).unwrap(), b"earlier");
        }
    }
    // A program that was saved is one.
    let output = Command::new(dir.path().join("binary")).arg("-no-such-flag").stdin(Stdio::null()).output();
    assert!(output.is_ok(), "{output:?}");
    // What has a name of our choice is as private.
    let pid = fixture.pid().to_string();
    let output = Command::new(binary().unwrap()).args(["pprof-heap", &pid]).current_dir(dir.path()).output();
    let name = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(mode(&dir.path().join(name.trim_end())), 0o600);
    assert!(
        fs::read_dir(dir.path()).unwrap().all(|e| !e.unwrap().path().to_str().unwrap().contains("partial"))
    );
}

#[test]
fn links_of_others_are_not_followed() {
    let mut fixture = target();
    // With a sticky bit, some kernels would stop root; without one, none does.
    for open_to in [0o1777, 0o777] {
        let (dir, elsewhere) = (folder(open_to), folder(0o700));
        let precious = elsewhere.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, dir.path().join("file")).unwrap();
        symlink("/dev/null", dir.path().join("device")).unwrap();
        symlink(elsewhere.path().join("none"), dir.path().join("dangling")).unwrap();
        symlink(elsewhere.path(), dir.path().join("folder")).unwrap();
        for command in COMMANDS {
            for name in ["file", "device", "dangling", "folder/precious"] {
                let output = run(command, &dir.path().join(name), &mut fixture);
                assert_eq!(output.status.code(), Some(1), "{command:?} {name}");
                assert!(
                    error(&output).contains("symbolic link in a folder that others can write"),
                    "{}",
                    error(&output)
                );
            }
            // What waits under the names that files have until they are whole is not followed either.
            symlink(&precious, dir.path().join("new.partial")).unwrap();
            assert!(run(command, &dir.path().join("new"), &mut fixture).status.success());
            assert!(fs::symlink_metadata(dir.path().join("new")).unwrap().is_file());
            fs::remove_file(dir.path().join("new.partial")).unwrap();
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }
    // One's own links lead where they lead.
    let dir = folder(0o755);
    symlink("elsewhere", dir.path().join("link")).unwrap();
    for command in COMMANDS {
        assert!(run(command, &dir.path().join("link"), &mut fixture).status.success());
        assert!(fs::symlink_metadata(dir.path().join("link")).unwrap().is_symlink());
        assert!(fs::metadata(dir.path().join("elsewhere")).unwrap().len() > 100);
        fs::remove_file(dir.path().join("elsewhere")).unwrap();
    }
}

#[test]
fn descriptors_pipes_and_devices() {
    let mut fixture = target();
    let pid = fixture.pid().to_string();
    let dir = folder(0o700);
    let shell = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, "sh"]).arg(binary().unwrap()).arg(&pid).current_dir(dir.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{line}: {}", error(&output));
        output.stdout
    };
    let before = fs::read_link("/dev/stdout").ok();
    let text = shell("\"$1\" memstats -o /dev/stdout $2");
    assert!(text.starts_with(b"alloc: "), "{}", String::from_utf8_lossy(&text));
    // What stands in the file already stays there.
    shell("echo first > to; \"$1\" memstats -o /dev/stdout $2 >> to; echo last >> to");
    let text = fs::read_to_string(dir.path().join("to")).unwrap();
    assert!(text.starts_with("first\nalloc: ") && text.ends_with("\nlast\n"), "{text}");
    shell("\"$1\" pprof-heap -o /dev/stdout $2 > profile");
    shell("\"$1\" pprof-heap -o /dev/fd/3 $2 3> third");
    for name in ["profile", "third"] {
        assert!(fs::read(dir.path().join(name)).unwrap().starts_with(&[0x1f, 0x8b]), "{name}");
    }
    assert_eq!(fs::read_link("/dev/stdout").ok(), before);
    assert_eq!(shell("\"$1\" stack -o /dev/null $2"), b"");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    // Descriptors of our own are nobody's, and what is not open is not.
    for number in [3, 4, 5, 6, 7, 8, 9, 10, 200] {
        let output = run(&["stack"], Path::new(&format!("/dev/fd/{number}")), &mut fixture);
        assert_eq!(output.status.code(), Some(1), "{number}");
        assert!(error(&output).contains("Bad file descriptor"), "{}", error(&output));
    }
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for command in COMMANDS {
        let reader = {
            let fifo = fifo.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                File::open(fifo).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let output = run(command, &fifo, &mut fixture);
        assert!(output.status.success(), "{command:?}: {}", error(&output));
        assert!(reader.join().unwrap().len() > 100, "{command:?}");
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn pipes_of_others() {
    if !nix::unistd::geteuid().is_root() {
        say("outputs: NOT TESTED: pipes of other users can only be made by root");
        return;
    }
    let mut fixture = target();
    let dir = folder(0o1777);
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::chown(&fifo, Some(65534), None).unwrap();
    for command in COMMANDS {
        let output = run(command, &fifo, &mut fixture);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains("belongs to user 65534"), "{}", error(&output));
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut fixture = target();
    let dir = folder(0o700);
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        say("outputs: NOT TESTED on a full disk: none may be mounted here");
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "earlier").unwrap();
    let mut filler = File::create(dir.path().join("filler")).unwrap();
    while filler.write_all(&[1; 1024]).is_ok() {}
    let results = COMMANDS.map(|command| (command, run(command, &path, &mut fixture)));
    let (left, names) = (fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count());
    drop(filler);
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    for (command, output) in results {
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", error(&output));
        assert!(error(&output).contains("No space left"), "{command:?}: {}", error(&output));
    }
    assert_eq!((left.as_slice(), names), (&b"earlier"[..], 2));
}

#[test]
fn programs_keep_their_holes() {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let dir = folder(0o700);
    let program = dir.path().join("program");
    fixtures::copy_program(&cell.path(), &program).unwrap();
    // Another process writes, so that nobody has it open when it is executed.
    let (len, hole) = (fs::metadata(&program).unwrap().len(), 1_u64 << 30);
    let script = format!(
        "truncate -s {} \"$1\" && printf end >> \"$1\" && truncate -s {} \"$1\"",
        len + hole,
        len + 2 * hole
    );
    assert!(Command::new("sh").args(["-c", &script, "sh"]).arg(&program).status().unwrap().success());
    let mut fixture = Fixture::start(Command::new(&program)).unwrap();
    let copy = dir.path().join("copy");
    let output = run(&["binary"], &copy, &mut fixture);
    assert!(output.status.success(), "{}", error(&output));
    let (of, to) = (fs::metadata(&program).unwrap(), fs::metadata(&copy).unwrap());
    assert_eq!(of.len(), to.len());
    if of.blocks() * 512 < of.len() / 2 {
        assert!(to.blocks() <= of.blocks() + 512, "{} blocks, but {} in the copy", of.blocks(), to.blocks());
    } else {
        say("outputs: NOT TESTED: this file system has no holes");
    }
    // All of the data is there.
    let (of, to) = (File::open(&program).unwrap(), File::open(&copy).unwrap());
    let piece = |file: &File, at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let head = usize::try_from(len).unwrap();
    assert!(piece(&of, 0, head) == piece(&to, 0, head));
    assert_eq!(piece(&to, len + hole, 3), b"end");
    fixture.assert_untouched().unwrap();
}
