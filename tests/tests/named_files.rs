//! Files whose path the target chose: only what is a regular file is ever opened. Others see it where something else is
//! (a FIFO's writer goes on, a terminal is made): here the kernel tells of each time that one is opened (inotify).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use fixtures::matrix::NEWEST;
use fixtures::native::{Build, Source, Symbols};
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, build, copy_program, probe};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags};

/// Tells which files were opened.
struct Watch(OwnedFd);

impl Watch {
    fn new() -> Self {
        Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap())
    }

    fn add(&self, path: &Path) -> i32 {
        inotify::add_watch(&self.0, path, WatchFlags::OPEN).unwrap()
    }

    /// Those that were opened since it was asked last.
    fn opened(&self) -> Vec<i32> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut opened = Vec::new();
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            opened.push(event.wd());
        }
        opened
    }
}

/// Something that is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Fifo,
    /// As /dev/ptmx: who opens it makes a terminal.
    Terminal,
    LinkToTerminal,
    Directory,
}

const SPECIALS: [Special; 4] =
    [Special::Fifo, Special::Terminal, Special::LinkToTerminal, Special::Directory];

impl Special {
    /// Puts it there in place of what is there; what to watch, or `None` where that may not be made here.
    fn make(self, path: &Path) -> Option<PathBuf> {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir(path);
        let mode = Mode::from_raw_mode(0o666);
        let terminal = |path: &Path| {
            let _ = fs::remove_file(path);
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, rustix::fs::makedev(5, 2)).is_ok()
        };
        match self {
            Special::Fifo => {
                rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
                Some(path.to_owned())
            }
            Special::Terminal => terminal(path).then(|| path.to_owned()),
            Special::LinkToTerminal => {
                let target = path.with_file_name("terminal");
                symlink(&target, path).unwrap();
                terminal(&target).then_some(target)
            }
            Special::Directory => {
                fs::create_dir(path).unwrap();
                Some(path.to_owned())
            }
        }
    }
}

/// Whether the kernel tells of what is opened, and not of what only becomes a path: the first is what this test needs, and
/// the second is new in some kernels.
fn kernel_tells(dir: &Path) -> bool {
    let path = dir.join("probe");
    fs::write(&path, "").unwrap();
    let watch = Watch::new();
    let wd = watch.add(&path);
    let place = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let of_path = watch.opened();
    File::open(&path).unwrap();
    assert_eq!(watch.opened(), [wd], "the test would see nothing");
    drop(place);
    of_path.is_empty()
}

/// Runs commands with each kind at a path, and asserts that none is opened.
fn never_opened(fixture: &mut Fixture, path: &Path, specials: &[Special], commands: &[&[&str]]) {
    let pid = fixture.pid().to_string();
    for &special in specials {
        let Some(watched) = special.make(path) else {
            say(&format!("named_files: NOT TESTED: {special:?}: devices may not be made here"));
            continue;
        };
        let watch = Watch::new();
        watch.add(&watched);
        for command in commands {
            let output = probe(&[command, &[pid.as_str()][..]].concat()).unwrap();
            let code = output.status.code().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!([0, 1, 7].contains(&code), "{special:?}: {command:?}: {code}: {text}");
            assert_eq!(watch.opened(), Vec::<i32>::new(), "{special:?} at {}: {command:?}", path.display());
            fixture.assert_untouched().unwrap();
        }
    }
}

#[test]
fn debug_links() {
    let dir = tempfile::tempdir().unwrap();
    if !kernel_tells(dir.path()) {
        say("named_files: NOT TESTED: this kernel does not tell what is opened from what is only found");
        return;
    }
    let build = Build { source: Source::Calls, pointers: false, symbols: Symbols::Inside };
    let built = build.program().unwrap();
    copy_program(&built.with_file_name("libcalls.so"), &dir.path().join("libcalls.so")).unwrap();
    let special = dir.path().join("special");
    // The alternative file is named by a path, the other by a name beside the program.
    let alternative = [special.as_os_str().as_bytes(), b"\0", &[7; 20]].concat();
    let mut name = b"special\0".to_vec();
    name.extend([1, 2, 3, 4]);
    let linked: [(_, _, _, &[Special]); 2] = [
        (".gnu_debugaltlink", alternative, false, &SPECIALS),
        (".gnu_debuglink", name, true, &[Special::Fifo, Special::LinkToTerminal]),
    ];
    for (section, bytes, strip, specials) in linked {
        let content = dir.path().join("section");
        fs::write(&content, bytes).unwrap();
        let program = dir.path().join(format!("program{section}"));
        let mut objcopy = Command::new("objcopy");
        objcopy.arg(format!("--add-section={section}={}", content.display()));
        objcopy.args(strip.then_some("--strip-all")).arg(&built).arg(&program);
        assert!(objcopy.status().unwrap().success());
        // It finds its library by its own place.
        let mut fixture = Fixture::start(Command::new(&program)).unwrap();
        let out = dir.path().join("profile");
        let out = out.to_str().unwrap();
        never_opened(&mut fixture, &special, specials, &[&["pprof-cpu", "-d", "500ms", "-o", out]]);
        // The test saw the right place: a regular file there is opened.
        let _ = fs::remove_dir(&special);
        let _ = fs::remove_file(&special);
        fs::write(&special, "no debug file").unwrap();
        let watch = Watch::new();
        let wd = watch.add(&special);
        let pid = fixture.pid().to_string();
        let output = probe(&["pprof-cpu", "-d", "500ms", "-o", out, &pid]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(watch.opened().contains(&wd), "{section} was not followed");
        fixture.assert_untouched().unwrap();
        fs::remove_file(&special).unwrap();
    }
}

#[test]
fn port_files_and_time_zones() {
    let dir = tempfile::tempdir().unwrap();
    if !kernel_tells(dir.path()) {
        say("named_files: NOT TESTED: this kernel does not tell what is opened from what is only found");
        return;
    }
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let zone = dir.path().join("zone");
    let environment = [("GOPS_CONFIG_DIR", dir.path().to_str().unwrap()), ("TZ", zone.to_str().unwrap())];
    let mut fixture = Fixture::spawn(&cell, &[], &environment).unwrap();
    let port_file = dir.path().join(fixture.pid().to_string());
    never_opened(
        &mut fixture,
        &port_file,
        &SPECIALS,
        &[&["list"][..0], &["process", "-v"], &["version", "--via", "agent"]],
    );
    let _ = fs::remove_dir(&port_file);
    never_opened(&mut fixture, &zone, &SPECIALS, &[&["memstats"], &["stack"]]);
}
