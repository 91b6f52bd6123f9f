//! Call frame information of real files, against what `readelf` says of them; and of damaged ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::addr::{CodeAddr, LinkAddr};
use symbols::arch::HOST;
use symbols::cfi::{CfiRegisters, FrameTable, Step};
use symbols::image::Image;

/// Values that tell registers apart, with room between them.
const SP: u64 = 0x7000_0000_0000;
const BP: u64 = 0x7000_0010_0000;

fn table(bytes: Vec<u8>) -> FrameTable {
    FrameTable::load(Image::parse(Box::new(bytes)).unwrap())
}

/// A row as `readelf` prints it.
struct Expected {
    addr: u64,
    /// One past the last address that it holds for.
    end: u64,
    cfa: String,
    /// By DWARF's numbers.
    rules: Vec<(usize, String)>,
}

fn number(name: &str) -> Option<usize> {
    let names = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"];
    match name {
        "ra" | "rip" => Some(16),
        _ => names
            .iter()
            .position(|n| *n == name)
            .or_else(|| name.strip_prefix('r')?.parse().ok().filter(|n| (8..16).contains(n))),
    }
}

fn expected(file: &Path) -> Vec<Expected> {
    let output = Command::new("readelf").arg("-wF").arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut rows, mut columns, mut end) = (Vec::<Expected>::new(), Vec::new(), 0);
    for line in text.lines() {
        // CfiRegisters in registers have their name behind the number.
        let words: Vec<&str> = line.split_ascii_whitespace().filter(|w| !w.starts_with('(')).collect();
        if let Some(range) = words.iter().find_map(|w| w.strip_prefix("pc=")) {
            end = u64::from_str_radix(range.split_once("..").unwrap().1, 16).unwrap();
        } else if words.contains(&"CIE") {
            end = 0;
        } else if words.first() == Some(&"LOC") {
            columns = words[2..].iter().map(|w| number(w)).collect();
        } else if end > 0
            && let [addr, cfa, rules @ ..] = words.as_slice()
            && let Ok(addr) = u64::from_str_radix(addr, 16)
            && addr < end
            && rules.len() == columns.len()
        {
            if let Some(before) = rows.last_mut()
                && before.end == end
                && before.addr < addr
            {
                before.end = addr;
            }
            let named = columns.iter().zip(rules).filter_map(|(c, r)| Some(((*c)?, (*r).to_owned())));
            rows.push(Expected { addr, end, cfa: (*cfa).to_owned(), rules: named.collect() });
        }
    }
    // An advance by nothing: what is said later holds.
    rows.dedup_by(|later, before| {
        let same = later.addr == before.addr;
        if same {
            std::mem::swap(later, before);
        }
        same
    });
    rows
}

/// Each word of memory is its address.
fn check(table: &mut FrameTable, row: &Expected, at: u64) -> bool {
    let Some((register, offset)) = row.cfa.split_once('+') else { return false };
    let base = match register {
        "rsp" => SP,
        "rbp" => BP,
        // Unknown at the beginning of a walk.
        _ => return false,
    };
    let found = table.row(CodeAddr::Pc(LinkAddr(at))).unwrap_or_else(|| panic!("nothing at {at:#x}"));
    assert_eq!(table.row(CodeAddr::Return(LinkAddr(at + 1))), Some(found.clone()));
    let cfa = base + offset.parse::<u64>().unwrap();
    let step = found.step(&CfiRegisters::new(HOST.columns(), at, SP, BP), &mut Some);
    let undefined = row.rules.iter().any(|(r, rule)| *r == 16 && rule == "u");
    let caller = match step {
        Step::End if undefined => return true,
        Step::To(caller) => caller,
        // vfork keeps its return address in a register.
        Step::Lost if row.rules.iter().any(|(_, rule)| rule.starts_with('r')) => return false,
        other => panic!("{at:#x}: {other:?}"),
    };
    assert_eq!(caller.sp(), cfa, "{at:#x}");
    for (register, rule) in &row.rules {
        let value = caller.get(*register);
        match rule.split_at(1) {
            ("c", offset) => {
                let expected = cfa.checked_add_signed(offset.parse().unwrap());
                assert_eq!(value, expected, "register {register} at {at:#x}");
            }
            // Nothing is said of it: calls leave some as they are, and lose others.
            ("u", _) => match register {
                6 => assert_eq!(value, Some(BP), "rbp at {at:#x}"),
                0 | 1 | 2 | 4 | 5 | 8..=11 => assert_eq!(value, None, "register {register} at {at:#x}"),
                _ => {}
            },
            _ => {}
        }
    }
    true
}

fn compare(file: &Path) -> usize {
    let mut table = table(std::fs::read(file).unwrap());
    let rows = expected(file);
    assert!(!table.is_empty() && !rows.is_empty(), "{}", file.display());
    let mut compared = 0;
    for row in rows.iter().filter(|row| row.addr < row.end) {
        compared += usize::from(check(&mut table, row, row.addr));
        check(&mut table, row, row.end - 1);
    }
    compared
}

const SOURCE: &str = "\
#include <alloca.h>
#include <string.h>
extern \"C\" int puts(const char *);
struct Noisy { ~Noisy() { puts(\"x\"); } };
__attribute__((noinline)) int leaf(int n) { return n * 3; }
__attribute__((noinline)) int deep(int n) { Noisy a; if (n > 9) throw n; return n ? deep(n - 1) + leaf(n) : leaf(n); }
__attribute__((noinline)) int grows(int n) { char *p = (char *)alloca(n); memset(p, n, n); puts(p); return p[n / 2]; }
__attribute__((noinline)) int aligned(int n) { alignas(64) char b[128]; memset(b, n, 128); puts(b); return b[n & 7]; }
int main(int n, char **) { try { return deep(n) + grows(n) + aligned(n); } catch (int e) { return e; } }
";

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gops-probe-cfi-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn compile(folder: &Path, options: &[&str]) -> PathBuf {
    let (source, program) = (folder.join("a.cpp"), folder.join("a"));
    std::fs::write(&source, SOURCE).unwrap();
    let done = Command::new("g++").arg("-o").arg(&program).arg(&source).args(options).status().unwrap();
    assert!(done.success());
    program
}

#[test]
fn rows_of_compiled_programs() {
    let folder = folder("rows");
    for options in [
        &["-O2", "-fomit-frame-pointer"][..],
        &["-O2", "-fno-omit-frame-pointer", "-no-pie"],
        &["-O0", "-s"],
        // Without the linker's index the section is searched.
        &["-O2", "-Wl,--no-eh-frame-hdr"],
        &["-O2", "-fcf-protection", "-Wl,-z,ibt,-z,lazy"],
    ] {
        let program = compile(&folder, options);
        let compared = compare(&program);
        assert!(compared > 20, "{options:?}: {compared}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn rows_of_libraries() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<&str> = maps.lines().filter_map(|l| Some(&l[l.find('/')?..])).collect();
    files.retain(|f| f.contains(".so"));
    files.dedup();
    let compared: usize = files.iter().map(|f| compare(Path::new(f))).sum();
    assert!(compared > 5000, "{compared}");
}

#[test]
fn the_first_function_and_signals() {
    let folder = folder("first");
    let program = compile(&folder, &["-O2", "-static"]);
    let bytes = std::fs::read(&program).unwrap();
    let image = Image::parse(Box::new(bytes.clone())).unwrap();
    let mut table = table(bytes.clone());
    // `_start` says that nothing called it.
    let row = table.row(CodeAddr::Return(image.entry().plus(0x20))).unwrap();
    assert_eq!(row.step(&CfiRegisters::new(HOST.columns(), 0, SP, BP), &mut |_| None), Step::End);
    // mov $15, %rax; syscall: what a handler returns to. The C library says how to go on from there, and its code does.
    let code = b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05";
    let at = bytes.windows(code.len()).position(|w| w == code).unwrap() as u64;
    let segment = image.segments().iter().find(|s| s.executable).unwrap();
    let at = segment.start.plus(at - segment.file_offset);
    let said = table.row(CodeAddr::Return(at)).unwrap();
    let mut header = bytes.clone();
    // Without the index, and without sections.
    header[40..48].fill(0);
    let count = usize::from(bytes[56]);
    for at in (0..count).map(|i| 64 + 56 * i) {
        if header[at..at + 4] == 0x6474_e550u32.to_le_bytes() {
            header[at..at + 4].fill(0);
        }
    }
    let mut by_code = self::table(header);
    assert!(by_code.is_empty());
    let read = by_code.row(CodeAddr::Return(at)).unwrap();
    assert!(read.is_signal() && said.is_signal());
    // In the system call itself.
    let inside = table.row(CodeAddr::Pc(at.plus(code.len() as u64))).unwrap();
    assert!(inside.is_signal());
    let memory = &mut |at: u64| Some(at ^ 0x5555);
    let registers = CfiRegisters::new(HOST.columns(), at.0, SP, BP);
    let (Step::To(said), Step::To(read)) = (said.step(&registers, memory), read.step(&registers, memory))
    else {
        panic!("no caller");
    };
    assert_eq!(said, read);
    assert_eq!((said.ip(), said.sp()), ((SP + 168) ^ 0x5555, (SP + 160) ^ 0x5555));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A rule of its own for the stack pointer must not lead around the check that frames move up.
#[test]
fn frames_that_do_not_move_up() {
    // DW_CFA_val_offset(7, n): the stack pointer of the caller is the CFA and n times -8, in LEB128.
    for (escape, up) in
        [("0x14,7,0", true), ("0x14,7,1", false), ("0x14,7,2", false), ("0x14,7,0xff,0x01", false)]
    {
        let folder = folder("stuck");
        let source = folder.join("stuck.s");
        let text = format!(
            ".globl _start\n.type _start,@function\n_start: .cfi_startproc\n.cfi_escape {escape}\nnop\nnop\nret\n.cfi_endproc\n"
        );
        std::fs::write(&source, text).unwrap();
        let program = folder.join("stuck");
        let status =
            Command::new("cc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source).status();
        assert!(status.unwrap().success());
        let image = Image::parse(Box::new(std::fs::read(&program).unwrap())).unwrap();
        let entry = image.segments().iter().find(|s| s.executable).unwrap().start;
        let mut table = FrameTable::load(image);
        let place =
            (0..4096).map(|n| entry.plus(n)).find(|at| table.row(CodeAddr::Pc(*at)).is_some()).unwrap();
        let row = table.row(CodeAddr::Pc(place)).unwrap();
        match row.step(&CfiRegisters::new(HOST.columns(), place.0, SP, BP), &mut Some) {
            Step::To(caller) => assert!(up && caller.sp() == SP + 8, "{escape}: {caller:?}"),
            other => assert!(!up, "{escape}: {other:?}"),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// xorshift64*: the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end as u64) as usize
    }
}

#[test]
fn damaged_tables() {
    let folder = folder("damaged");
    for options in [&["-O2"][..], &["-O2", "-Wl,--no-eh-frame-hdr"]] {
        let program = compile(&folder, options);
        let bytes = std::fs::read(&program).unwrap();
        let rows = expected(&program);
        let sections = symbols::sections::read(&Image::parse(Box::new(bytes.clone())).unwrap()).unwrap();
        let place = |name: &str| {
            let section = sections.iter().find(|s| s.name == name)?;
            Some((section.addr.0 as usize, section.size as usize))
        };
        // Linked at their place in the file.
        let places: Vec<_> = [place(".eh_frame_hdr"), place(".eh_frame")].into_iter().flatten().collect();
        let mut random = Random(7);
        for round in 0..3000 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random.below(6) {
                let (start, size) = places[random.below(places.len())];
                let at = start + if round % 3 == 0 { random.below(size.min(32)) } else { random.below(size) };
                bytes[at] = [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5)];
            }
            if round % 17 == 0 {
                let (start, size) = places[0];
                bytes.truncate(start + random.below(2 * size));
            }
            let Ok(image) = Image::parse(Box::new(bytes)) else { continue };
            let mut table = FrameTable::load(image);
            for row in rows.iter().step_by(3) {
                if let Some(found) = table.row(CodeAddr::Pc(LinkAddr(row.addr))) {
                    let step = found.step(&CfiRegisters::new(HOST.columns(), row.addr, SP, BP), &mut |at| {
                        Some(at.rotate_left(7))
                    });
                    assert!(
                        !matches!(step, Step::To(to) if to.sp() == SP || (to.sp() < SP && !found.is_signal()))
                    );
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
