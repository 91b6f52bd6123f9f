//! Who may ask `serve` what, and that nobody keeps others from asking.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::NEWEST;
use fixtures::repetition::say;
use fixtures::{Cell, Fixture, Program, Variant, binary, build};

const VERSION: u8 = 4;
const STACK: u8 = 1;
const GC: u8 = 2;
const MEMSTATS: u8 = 3;
const STATS: u8 = 7;
const BINARY: u8 = 9;
const SET_GC: [u8; 11] = [0x10, 0xc8, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// Users of no account.
const OTHER: u32 = 4242;
const STRANGER: u32 = 4243;

fn target() -> Fixture {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    Fixture::spawn(&cell, &[], &[]).unwrap()
}

/// A server, ended when dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(pid: u32, options: &[&str]) -> Self {
        let mut command = Command::new(binary().unwrap());
        command.args(["serve", "--gops", &pid.to_string()]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// Ends it, and returns what it said on standard error.
    fn finish(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Not reaped before, or gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does something as this user, in a thread of its own: the kernel has credentials for each.
fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if nix::unistd::geteuid().as_raw() != uid {
                // SAFETY: it takes three numbers. The C library's own function would change all threads.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
                assert_eq!(changed, 0);
            }
            act()
        });
        thread.join().unwrap()
    })
}

/// Asks as this user; what was answered before the end or the reset.
fn ask(address: &str, uid: u32, request: &[u8]) -> String {
    fn exchange(mut stream: impl Read + Write, request: &[u8]) -> String {
        // Whoever is turned away may not be able to.
        let _ = stream.write_all(request);
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while let Ok(size @ 1..) = stream.read(&mut part) {
            answer.extend(&part[..size]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
    as_user(uid, || match address.strip_prefix("unix:") {
        Some(path) => match UnixStream::connect(path) {
            Ok(stream) => exchange(stream, request),
            Err(error) => format!("not connected: {error}"),
        },
        None => exchange(TcpStream::connect(address).unwrap(), request),
    })
}

/// How many sockets a process has.
fn sockets(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say("serve_access: NOT TESTED: only root can ask as other users");
    }
    root
}

#[test]
fn others_of_this_machine() {
    if !is_root() {
        return;
    }
    let mut fixture = target();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = format!("unix:{}", dir.path().join("socket").display());
    let allow = OTHER.to_string();
    for listen in ["127.0.0.1:0", "[::1]:0", &socket] {
        if listen.starts_with('[') && std::net::TcpListener::bind(listen).is_err() {
            say("serve_access: NOT TESTED over IPv6: there is none");
            continue;
        }
        let served = Served::start(fixture.pid(), &["--listen", listen, "--allow-uid", &allow]);
        let at = served.address.as_str();
        for own in [&[VERSION][..], &[STACK], &[MEMSTATS], &[STATS]] {
            for uid in [0, OTHER] {
                let answer = ask(at, uid, own);
                assert!(
                    !answer.is_empty() && !answer.contains("gops-probe:"),
                    "{at} {uid} {own:?}: {answer}"
                );
            }
            let answer = ask(at, STRANGER, own);
            assert!(answer.contains("user 4243 may not ask"), "{at} {own:?}: {answer}");
            fixture.assert_untouched().unwrap();
        }
        for changing in [&[GC][..], &[BINARY], &SET_GC] {
            let answer = ask(at, OTHER, changing);
            assert!(answer.contains("without --allow-changes"), "{at} {changing:?}: {answer}");
            assert!(ask(at, STRANGER, changing).contains("may not ask"), "{at} {changing:?}");
        }
        assert!(ask(at, 0, &SET_GC).contains("New GC percent set to 100. Previous value was 100."));
        let stderr = served.finish();
        assert!(stderr.contains("user 4243 may not ask") && stderr.contains("was refused"), "{stderr}");
        fixture.assert_untouched().unwrap();
        if listen == socket {
            std::fs::remove_file(dir.path().join("socket")).unwrap();
        }
    }
    let served = Served::start(fixture.pid(), &["--allow-uid", &allow, "--allow-changes"]);
    assert!(ask(&served.address, OTHER, &SET_GC).contains("New GC percent"));
    assert!(ask(&served.address, STRANGER, &SET_GC).contains("may not ask"));
    assert_eq!(ask(&served.address, OTHER, &[GC]), "ok");
    fixture.assert_untouched().unwrap();
}

#[test]
fn only_our_own_user_without_more() {
    if !is_root() {
        return;
    }
    let mut fixture = target();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = format!("unix:{}", dir.path().join("socket").display());
    for listen in ["0.0.0.0:0", &socket] {
        let served = Served::start(fixture.pid(), &["--listen", listen]);
        let at = served.address.replace("0.0.0.0", "127.0.0.1");
        assert!(ask(&at, 0, &[VERSION]).starts_with("go1."), "{at}");
        // Nobody else can connect to a socket of the file system, or is told that they may not ask.
        let answer = ask(&at, STRANGER, &[VERSION]);
        assert!(!answer.contains("go1."), "{at}: {answer}");
    }
    fixture.assert_untouched().unwrap();
}

#[test]
fn another_network_namespace() {
    if !is_root() {
        return;
    }
    // A veth pair: the other end is in a namespace of its own, as that of a container.
    let name = format!("gp{}", std::process::id());
    let (here, there) = (format!("{name}a"), format!("{name}b"));
    let ip = |line: &str| {
        let output = Command::new("ip").args(line.split(' ')).output();
        output.is_ok_and(|output| output.status.success())
    };
    let made = ip(&format!("netns add {name}"))
        && ip(&format!("link add {here} type veth peer name {there} netns {name}"))
        && ip(&format!("addr add 198.51.100.1/30 dev {here}"))
        && ip(&format!("link set {here} up"))
        && ip(&format!("-n {name} addr add 198.51.100.2/30 dev {there}"))
        && ip(&format!("-n {name} link set {there} up"));
    let undo = || {
        ip(&format!("link del {here}"));
        ip(&format!("netns del {name}"));
    };
    if !made {
        undo();
        say("serve_access: NOT TESTED: no network namespace can be made here");
        return;
    }
    let mut fixture = target();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for (options, expected) in [
            (&[][..], [Some("only this machine may"), Some("only this machine may")]),
            (&["--allow-remote"], [None, Some("without --allow-changes")]),
            (&["--allow-remote", "--allow-changes"], [None, None]),
        ] {
            let options: Vec<&str> = ["--listen", "198.51.100.1:0"].iter().chain(options).copied().collect();
            let served = Served::start(fixture.pid(), &options);
            for (request, expected) in [&[VERSION][..], &SET_GC].iter().zip(expected) {
                let request: String = request.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                let (host, port) = served.address.rsplit_once(':').unwrap();
                // Root there too: another machine's root is nobody here.
                let script =
                    format!("exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; cat <&3 2>/dev/null");
                let mut client = Command::new("ip");
                client.args(["netns", "exec", &name, "bash", "-c", &script]);
                let answer = String::from_utf8(client.output().unwrap().stdout).unwrap();
                match expected {
                    Some(refusal) => assert!(answer.contains(refusal), "{options:?}: {answer}"),
                    None => {
                        assert!(answer.contains("go1.") || answer.contains("New GC"), "{options:?}: {answer}")
                    }
                }
            }
            // This machine is no other, by whichever address it asks.
            assert!(ask(&served.address, 0, &[VERSION]).starts_with("go1."));
        }
    }));
    undo();
    fixture.assert_untouched().unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn nobody_keeps_others_from_asking() {
    if !is_root() {
        return;
    }
    // More than sockets take: most of it is a hole.
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fixtures::copy_program(&cell.path(), &program).unwrap();
    assert!(Command::new("truncate").args(["-s", "+64M"]).arg(&program).status().unwrap().success());
    let mut fixture = Fixture::start(Command::new(&program)).unwrap();
    let allow = OTHER.to_string();
    let served = Served::start(fixture.pid(), &["--allow-uid", &allow]);
    // Connections of another user that say nothing, as many as there are places: until their time is over, others get in.
    let silent: Vec<TcpStream> = as_user(OTHER, || {
        let connect = || TcpStream::connect(&served.address).unwrap();
        (0..16).map(|_| connect()).collect()
    });
    assert!(ask(&served.address, 0, &[VERSION]).starts_with("go1."));
    drop(silent);
    // Our own user asks for the whole program several times, and reads nothing of it.
    let greedy: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&served.address).unwrap();
            stream.write_all(&[BINARY]).unwrap();
            stream
        })
        .collect();
    assert!(ask(&served.address, 0, &[STACK]).contains("goroutine 1 ["));
    // They are given up, and the rest of what was asked for never comes.
    let whole = std::fs::metadata(format!("/proc/{}/exe", fixture.pid())).unwrap().len();
    let begun = Instant::now();
    while sockets(served.child.id()) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "those who do not read keep their places");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut stream = greedy.into_iter().next().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut read = 0;
    let mut part = vec![0; 1 << 16];
    while let Ok(size @ 1..) = stream.read(&mut part) {
        read += size as u64;
    }
    say(&format!("serve_access: {read} of {whole} bytes came in {:?}", begun.elapsed()));
    assert!(read < whole, "all {whole} bytes came");
    fixture.assert_untouched().unwrap();
}

#[test]
fn a_name_in_the_file_system_goes_with_the_server() {
    let mut fixture = target();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let served = Served::start(fixture.pid(), &["--listen", &format!("unix:{}", path.display())]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&[VERSION]).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("go1."), "{text}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(served.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let begun = Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the name stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    fixture.assert_untouched().unwrap();
}
