//! A process that lies in its own memory: whatever its runtime's words say, `stack` ends in time, in bounded memory,
//! with a documented exit code, and prints no control characters. The lies are taken back afterwards, so the target
//! also shows that nobody but the test wrote to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::NEWEST;
use fixtures::{Cell, Fixture, Program, Repetitions, Variant, binary, build};
use inspector::process::Process;
use inspector::process::maps::Mapping;
use inspector::runtime::open::open;
use inspector::runtime::snapshot::{self, Frames, Pause, Snapshot, SnapshotOptions};
use inspector::runtime::view::View;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Lies at random in full.
const LIES: usize = 600;
/// What `stack` may use of address space.
const MEMORY: u64 = 1 << 30;
/// Ends hung runs; far above what a run needs.
const PATIENCE: Duration = Duration::from_secs(60);

const MODES: [&[&str]; 5] =
    [&[], &["--max-pause", "1ms"], &["--no-pause"], &["--all"], &["--all", "--json", "--no-pause"]];

/// What to write where.
type Writes = Vec<(u64, Vec<u8>)>;

/// A stopped fixture whose memory the test may write.
struct Liar {
    fixture: Fixture,
    memory: File,
    view: View,
    snapshot: Snapshot,
}

impl Liar {
    fn new() -> Self {
        let cell = Cell::new(NEWEST, Variant::Stripped, Program::States);
        build::build(&[cell], 2, &|_, _| ()).unwrap();
        let fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
        let pid = fixture.pid();
        kill(raw(pid), Signal::SIGSTOP).unwrap();
        let begun = Instant::now();
        while !all_stopped(pid) {
            assert!(begun.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        let process = Process::pin(pid.to_string().parse().unwrap()).unwrap();
        let (view, _) = open(&process).unwrap();
        let pause = Pause::AtMost(Duration::from_millis(20));
        let snapshot =
            snapshot::take(&process, &view, &SnapshotOptions { pause, system: true, goid: None }).unwrap();
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        Self { fixture, memory, view, snapshot }
    }

    fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, addr).unwrap();
        bytes
    }

    fn word(&self, addr: u64) -> u64 {
        u64::from_le_bytes(self.read(addr, 8).try_into().unwrap())
    }

    fn g(&self, field: &str) -> u64 {
        self.view.table.field("runtime.g", field).unwrap().offset
    }

    fn m(&self, field: &str) -> u64 {
        // What is calibrated may lie elsewhere than the table says.
        match field {
            "alllink" => self.view.m.alllink as u64,
            _ => self.view.table.field("runtime.m", field).unwrap().offset,
        }
    }

    /// Goroutines with frames, as address of the g, saved stack pointer and upper end of the stack.
    fn walked(&self) -> Vec<(u64, u64, u64)> {
        let walked = self.snapshot.slots.iter().filter(|slot| matches!(slot.frames, Frames::Walked(_)));
        walked.map(|slot| (slot.g.addr, slot.g.sched_sp, slot.g.stack_hi)).collect()
    }

    /// Runs `stack` while the words are these, and puts back what they were. Returns the exit codes.
    fn lie(&self, what: &str, words: &[(u64, Vec<u8>)], modes: &[&[&str]]) -> Vec<i32> {
        let truth: Vec<Vec<u8>> = words.iter().map(|(addr, bytes)| self.read(*addr, bytes.len())).collect();
        for (addr, bytes) in words {
            self.memory.write_all_at(bytes, *addr).unwrap();
        }
        let ended: Vec<Result<i32, String>> =
            modes.iter().map(|mode| run(self.fixture.pid(), mode)).collect();
        // Where two lies overlap, the older truth is the one.
        for ((addr, _), bytes) in words.iter().zip(truth).rev() {
            self.memory.write_all_at(&bytes, *addr).unwrap();
        }
        let ended = ended.into_iter().zip(modes);
        ended.map(|(code, mode)| code.unwrap_or_else(|e| panic!("{what}, {mode:?}: {e}"))).collect()
    }

    /// The truth is restored: the target is whole, and goes on.
    fn finish(mut self) {
        assert_eq!(self.lie("the truth", &[], &[&["--all"]]), [0]);
        kill(raw(self.fixture.pid()), Signal::SIGCONT).unwrap();
        self.fixture.assert_untouched().unwrap();
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap())
}

fn all_stopped(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    })
}

fn word(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Runs `stack` under limits; what is wrong with how it ended or with what it wrote is the error.
fn run(pid: u32, mode: &[&str]) -> Result<i32, String> {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut command = Command::new("prlimit");
    // Address space for each thread's own heap and stack would count too.
    command.env("MALLOC_ARENA_MAX", "1").env("RAYON_NUM_THREADS", "4").arg(format!("--as={MEMORY}"));
    command.arg(binary().unwrap()).args(["stack", "-v"]).args(mode).arg(pid.to_string());
    command.stdout(Stdio::from(stdout.try_clone().unwrap())).stderr(Stdio::from(stderr.try_clone().unwrap()));
    let mut ours = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = ours.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            ours.kill().unwrap();
            ours.wait().unwrap();
            return Err("it hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut texts = [Vec::new(), Vec::new()];
    for (file, text) in [&mut stdout, &mut stderr].into_iter().zip(&mut texts) {
        file.rewind().unwrap();
        file.read_to_end(text).unwrap();
    }
    let message = String::from_utf8_lossy(&texts[1]);
    let code = match status.code() {
        Some(code @ (0 | 1 | 6 | 7)) => code,
        _ => return Err(format!("{status}: {message}")),
    };
    for text in &texts {
        if let Some(byte) = text.iter().find(|&&b| (b < b' ' && !matches!(b, b'\n' | b'\t')) || b == 0x7f) {
            return Err(format!("a raw {byte:#x} in {}", String::from_utf8_lossy(text)));
        }
    }
    if !matches!(code, 0 | 7) && !message.contains("error: ") {
        return Err(format!("exit {code} without a cause: {message}"));
    }
    // `-v` was given: what was found, and what was tried and does not fit.
    let says_all =
        message.contains("\nknown: pclntab: ") && message.contains("\nunknown: the layout of go1.");
    if message.contains(": no known layout of ") && !says_all {
        return Err(format!("it does not say what was looked for: {message}"));
    }
    if mode.contains(&"--json") && matches!(code, 0 | 7) {
        serde_json::from_slice::<serde_json::Value>(&texts[0]).map_err(|error| error.to_string())?;
    }
    Ok(code)
}

#[test]
fn each_kind_of_lie() {
    let liar = Liar::new();
    let (len, ptr) = (liar.view.allgs.len.0, liar.view.allgs.ptr.0);
    let (list, count) = (liar.word(ptr), liar.word(len));
    let (g, sp, hi) = liar.walked().into_iter().max_by_key(|&(_, sp, hi)| hi.saturating_sub(sp)).unwrap();
    let allm = liar.view.allm.unwrap().0;
    let first = liar.word(allm);
    let second = liar.word(first + liar.m("alllink"));
    let at = |field: &str, value: u64| (g + liar.g(field), word(value));
    let stack = |value: &dyn Fn(u64) -> u64| -> Writes {
        (sp..hi).step_by(8).map(|addr| (addr, word(value(addr)))).collect()
    };
    // A goroutine's memory that says to be a long string, a slice or a map.
    let huge = [word(sp), word(1 << 60), word(1 << 60)].concat();
    let goid = liar.snapshot.slots.last().unwrap().g.goid;
    let lies: Vec<(&str, Writes)> = vec![
        ("a list without end", vec![(len, word(u64::MAX))]),
        ("a long list", vec![(len, word(1 << 30))]),
        ("a list longer than it is", vec![(len, word(count * 1000))]),
        ("an empty list", vec![(len, word(0))]),
        ("a list nowhere", vec![(ptr, word(0xdead_beef_0000))]),
        ("a list in kernel space", vec![(ptr, word(0xffff_ffff_8000_0000))]),
        ("a list that is its own pointer", vec![(ptr, word(ptr))]),
        ("a list of one g", vec![(list, word(g).repeat(usize::try_from(count).unwrap()))]),
        ("a list of list addresses", vec![(list, word(list).repeat(usize::try_from(count).unwrap()))]),
        ("ms in a circle", vec![(first + liar.m("alllink"), word(first))]),
        ("ms in a wider circle", vec![(second + liar.m("alllink"), word(first))]),
        ("an m that is a g", vec![(allm, word(g))]),
        ("a m that runs every g", vec![(first + liar.m("curg"), word(g)), at("m", first)]),
        ("a stack of all memory", vec![at("stack.lo", 8), at("stack.hi", !7)]),
        ("a large stack", vec![at("stack.lo", sp & !0xfff), at("stack.hi", sp + (1 << 39))]),
        ("a stack upside down", vec![at("stack.lo", hi), at("stack.hi", sp)]),
        ("a stack pointer elsewhere", vec![at("sched.sp", list)]),
        ("a stack pointer nowhere", vec![at("sched.sp", 0x10)]),
        ("an odd stack pointer", vec![at("sched.sp", sp + 1)]),
        ("a pc in data", vec![at("sched.pc", list)]),
        ("a stack of stack pointers", stack(&|addr| addr)),
        ("a stack of one return address", stack(&|_| liar.word(sp.max(g + liar.g("startpc"))))),
        ("a stack of one pc", {
            let pc = liar.word(g + liar.g("sched.pc"));
            stack(&|_| pc)
        }),
        ("labels without end", vec![at("labels", sp), (sp, huge.clone())]),
        ("labels that are the g", vec![at("labels", g)]),
        ("ancestors without end", vec![at("ancestors", sp), (sp, huge)]),
        ("ancestors that are the g", vec![at("ancestors", g)]),
        ("a reason out of range", vec![(g + liar.g("waitreason"), vec![0xff])]),
        ("a status out of range", vec![(g + liar.g("atomicstatus"), vec![0x77; 4])]),
        ("one number twice", vec![at("goid", goid)]),
        ("a large number", vec![at("goid", u64::MAX)]),
        ("code nowhere", vec![at("startpc", u64::MAX), at("gopc", 1)]),
        ("a wait since the end of time", vec![at("waitsince", i64::MIN.cast_unsigned())]),
        ("a moduledata of ones", {
            let module = liar.view.modules.main();
            vec![(module.bias.runtime(module.data.addr).0, vec![0xff; 0x180])]
        }),
    ];
    for (what, words) in &lies {
        let codes = liar.lie(what, words, &MODES);
        fixtures::repetition::say(&format!("hostile: {what}: exit {codes:?}"));
    }
    liar.finish();
}

#[test]
fn random_lies() {
    let liar = Liar::new();
    let walked = liar.walked();
    let list = liar.word(liar.view.allgs.ptr.0);
    let count = liar.word(liar.view.allgs.len.0);
    let ms: Vec<u64> = {
        let (mut ms, mut m) = (Vec::new(), liar.word(liar.view.allm.unwrap().0));
        while m != 0 {
            ms.push(m);
            m = liar.word(m + liar.m("alllink"));
        }
        ms
    };
    let fields: Vec<u64> =
        ["stack.lo", "stack.hi", "sched.sp", "sched.pc", "goid", "m", "labels", "ancestors", "atomicstatus"]
            .map(|field| liar.g(field))
            .to_vec();
    let mut repetitions = Repetitions::new("hostile", "random lies of a stopped process", LIES);
    let mut exits = std::collections::BTreeMap::new();
    while repetitions.another() {
        let pick = |r: &mut Repetitions, of: usize| usize::try_from(r.random(of as u64)).unwrap();
        let mut words = Vec::new();
        for _ in 0..=repetitions.random(12) {
            let (g, sp, hi) = walked[pick(&mut repetitions, walked.len())];
            let m = ms[pick(&mut repetitions, ms.len())];
            let at = match repetitions.random(8) {
                0 => list + 8 * repetitions.random(count),
                1 => m + 8 * repetitions.random(liar.view.m.size as u64 / 8),
                2 => g + 8 * repetitions.random(liar.view.g.size as u64 / 8),
                3 => [liar.view.allgs.len.0, liar.view.allgs.ptr.0][pick(&mut repetitions, 2)],
                4 | 5 => g + fields[pick(&mut repetitions, fields.len())],
                _ => sp + 8 * repetitions.random(hi.saturating_sub(sp) / 8),
            };
            let value = match repetitions.random(9) {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << repetitions.random(64),
                3 => at,
                4 => g,
                5 => m,
                6 => sp + 8 * repetitions.random(64),
                7 => liar.word(at).wrapping_add(repetitions.random(64)).wrapping_sub(32),
                _ => repetitions.random(u64::MAX),
            };
            words.push((at, word(value)));
        }
        let mode = MODES[pick(&mut repetitions, MODES.len())];
        let what = format!("seed {}, lie {}: {words:x?}", repetitions.seed(), repetitions.done());
        for code in liar.lie(&what, &words, &[mode]) {
            *exits.entry(format!("exit {code}")).or_insert(0) += 1;
        }
    }
    repetitions.report(&json!(exits));
    liar.finish();
}

#[test]
fn a_runtime_where_nothing_fits_is_said_to_be_so() {
    let liar = Liar::new();
    let pid = liar.fixture.pid();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let maps = Mapping::parse_all(&fs::read(format!("/proc/{pid}/maps")).unwrap());
    let exe = exe.to_str().unwrap().as_bytes();
    // Its variables: the writable data, and the zeroed memory behind it.
    let mut end = 0;
    let mut words = Vec::new();
    for map in maps.iter().filter(|map| map.writable && map.readable) {
        if map.path == exe || (map.path.is_empty() && map.start == end) {
            end = map.end;
            words.push((map.start, vec![0xff; usize::try_from(map.end - map.start).unwrap()]));
        }
    }
    assert!(!words.is_empty());
    assert_eq!(liar.lie("no variable is one", &words, &MODES), [6; MODES.len()]);
    liar.finish();
}

#[test]
fn goroutines_that_fit_no_layout_are_said_to_be_so_with_what_was_tried() {
    let liar = Liar::new();
    let stack = liar.g("stack");
    let words: Vec<_> =
        liar.snapshot.slots.iter().map(|slot| (slot.g.addr + stack, vec![0xff; 16])).collect();
    assert_eq!(liar.lie("no goroutine has a stack", &words, &MODES), [6; MODES.len()]);
    let output =
        Command::new(binary().unwrap()).args(["stack", &liar.fixture.pid().to_string()]).output().unwrap();
    assert!(output.status.success());
    liar.finish();
}
