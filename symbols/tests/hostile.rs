//! Files that claim absurd sizes: how much of them is read, and how much memory that takes.

#![allow(clippy::expect_used, reason = "a test that cannot begin has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symbols::addr::{CodeAddr, LinkAddr};
use symbols::cfi::FrameTable;
use symbols::image::{Image, Source};
use symbols::moduledata::{self, Moduledata, Range};
use symbols::native::{Links, NativeSymbols};
use symbols::pclntab::header::{self, Header};
use symbols::pclntab::{Pclntab, PclntabError};
use symbols::{buildinfo, program};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// What all tests of this file together may have in memory at any time.
const MEMORY: u64 = 600 * MIB;

/// A file that is a hole but for some parts, and how it was read.
#[derive(Debug, Clone, Default)]
struct Sparse {
    len: u64,
    parts: Vec<(u64, Vec<u8>)>,
    read: Arc<AtomicU64>,
    largest: Arc<AtomicU64>,
}

impl Source for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return false;
        }
        self.read.fetch_add(len, Ordering::Relaxed);
        self.largest.fetch_max(len, Ordering::Relaxed);
        buf.fill(0);
        for (at, bytes) in &self.parts {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(offset + len));
            if from < to {
                let part = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            }
        }
        true
    }
}

#[derive(Clone, Copy)]
struct Part {
    kind: u32,
    flags: u32,
    offset: u64,
    addr: u64,
    size: u64,
}

const READ: u32 = 4;
const WRITE: u32 = 6;

fn load(flags: u32, offset: u64, addr: u64, size: u64) -> Part {
    Part { kind: 1, flags, offset, addr, size }
}

impl Sparse {
    /// An ELF file with these program headers.
    fn elf(len: u64, kind: u16, parts: &[Part]) -> Self {
        let mut head = vec![0u8; 64];
        head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        head[16..18].copy_from_slice(&kind.to_le_bytes());
        head[18] = 62;
        head[32] = 64;
        head[54] = 56;
        head[56..58].copy_from_slice(&(parts.len() as u16).to_le_bytes());
        for p in parts {
            head.extend(p.kind.to_le_bytes());
            head.extend(p.flags.to_le_bytes());
            head.extend(words(&[p.offset, p.addr, p.addr, p.size, p.size, 4096]));
        }
        Sparse { len, parts: vec![(0, head)], ..Sparse::default() }
    }

    fn with(mut self, at: u64, bytes: Vec<u8>) -> Self {
        self.parts.push((at, bytes));
        self
    }

    fn image(&self) -> Image {
        Image::parse(Box::new(self.clone())).expect("an image")
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A header of Go 1.20 or later, without the tables that it promises.
fn header(nfunc: u64, pcln: u64) -> Vec<u8> {
    let mut bytes = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    bytes.extend(words(&[nfunc, 1, 0, 72, 80, 88, 96, pcln]));
    bytes
}

fn module(text: u64) -> Moduledata {
    let range = |start: u64, end: u64| Range { start: LinkAddr(start), end: LinkAddr(end) };
    Moduledata {
        addr: LinkAddr(0),
        pcs: range(0x1000, 0x1000 + text),
        text: range(0x1000, 0x1000 + text),
        gofunc: LinkAddr(0),
        types: range(0, 0),
        data: [range(0, 0); 4],
        text_sections: Vec::new(),
        minors: (27, 27),
    }
}

/// The most memory that this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("our own peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn assert_little_memory() {
    assert!(peak() < MEMORY, "{} MiB", peak() / MIB);
}

#[test]
fn many_writable_segments_over_one_hole() {
    let table = 0x10_0000;
    let mut parts = vec![load(READ, 4 * MIB, table, MIB)];
    // Each a terabyte of the same file.
    parts.extend((1..1000).map(|i| load(WRITE, 8 * MIB, i * 2 * TIB, TIB)));
    let file = Sparse::elf(2 * TIB, 2, &parts).with(4 * MIB, header(1000, 4096));
    let image = file.image();
    let candidates = header::candidates(&image);
    assert_eq!(candidates.iter().map(|h| h.addr.0).collect::<Vec<_>>(), [table]);
    assert!(file.read() <= 2 * GIB + 16 * MIB, "{} MiB", file.read() / MIB);
    let before = file.read();
    assert_eq!(moduledata::confirm(&image, &candidates, None), None);
    assert!(file.read() - before <= 2 * GIB + 16 * MIB, "{} MiB", (file.read() - before) / MIB);
    assert!(file.largest.load(Ordering::Relaxed) <= MIB + 4096);
    assert_little_memory();
}

#[test]
fn words_that_look_like_moduledata_everywhere() {
    // A megabyte of nothing but references to the header and its tables, each of which would be looked at in full:
    // with a list of four thousand text sections.
    let (table, data) = (0x10_0000u64, 0x100_0000u64);
    let offsets = [0u64, 72, 80, 88, 96, 4096];
    let mut one = [0u64; 80];
    for (at, offset) in [0, 1, 4, 7, 10, 13].into_iter().zip(offsets) {
        one[at] = table + offset;
    }
    one[17] = 1001;
    for shape in [39, 41, 42, 45] {
        one[shape] = data;
        one[shape + 1] = 4096;
    }
    let all: Vec<u8> = (0..4096).flat_map(|_| words(&one)).collect();
    let size = all.len() as u64;
    let parts = [load(READ, 4 * MIB, table, MIB), load(WRITE, 8 * MIB, data, size)];
    let file = Sparse::elf(16 * MIB, 2, &parts).with(4 * MIB, header(1000, 4096)).with(8 * MIB, all);
    assert_eq!(moduledata::find(&file.image(), None), None);
    assert!(file.read() < 256 * MIB, "{} MiB", file.read() / MIB);
}

#[test]
fn what_is_kept_of_an_image() {
    let size = 4 * GIB;
    let file = Sparse::elf(size, 2, &[load(READ, 0, 0, size)]);
    let image = file.image();
    let before = file.read();
    let each = || (0..4096u64).map(|i| image.word(LinkAddr(i * MIB + 4096)).unwrap()).collect::<Vec<_>>();
    assert_eq!(each()[1..], vec![0; 4095]);
    // 1,024 blocks of 64 KiB; from then on, the eight bytes that are asked for.
    assert_eq!(file.read() - before, 64 * MIB + 3072 * 8);
    let before = file.read();
    assert_eq!(each()[1..], vec![0; 4095]);
    assert_eq!(file.read() - before, 3072 * 8);
    assert_little_memory();
}

#[test]
fn relocations_of_a_hole() {
    let dynamic = words(&[7, 0x1_0000, 8, TIB, 0, 0]);
    let parts = [
        load(WRITE, 0, 0, TIB),
        Part { kind: 2, flags: WRITE, offset: 4096, addr: 4096, size: dynamic.len() as u64 },
    ];
    let file = Sparse::elf(2 * TIB, 3, &parts).with(4096, dynamic);
    assert_eq!(file.image().read_relocated(LinkAddr(0x8000), 64).unwrap(), [0; 64]);
    // 24 bytes for each of 8 Mi relocations.
    assert!(file.read() <= 24 * 8 * MIB + MIB, "{} MiB", file.read() / MIB);
    assert!(file.largest.load(Ordering::Relaxed) <= 2 * MIB);
    assert_little_memory();
}

#[test]
fn the_last_of_many_relocations_for_one_place() {
    let at = 0x8000u64;
    let many: Vec<u8> = (0..100_000u64).flat_map(|i| words(&[at, 8, i])).collect();
    let dynamic = words(&[7, 0x1_0000, 8, many.len() as u64, 0, 0]);
    let parts = [
        load(WRITE, 0, 0, 16 * MIB),
        Part { kind: 2, flags: WRITE, offset: 4096, addr: 4096, size: dynamic.len() as u64 },
    ];
    let file = Sparse::elf(16 * MIB, 3, &parts).with(4096, dynamic).with(0x1_0000, many);
    assert_eq!(file.image().read_relocated(LinkAddr(at), 8).unwrap(), words(&[99_999]));
}

#[test]
fn a_function_table_in_a_hole() {
    let base = 0x10_0000;
    let parts = [load(READ, base, base, 16 * GIB)];
    let nfunc = 1u64 << 26;
    // A hole: no function has a record.
    let file = Sparse::elf(64 * GIB, 2, &parts).with(base, header(nfunc, 2 * GIB));
    let parsed = Header::parse(LinkAddr(base), &header(nfunc, 2 * GIB)).unwrap();
    let loaded = Pclntab::load(&file.image(), &parsed, &module(GIB));
    assert_eq!(loaded.unwrap_err(), PclntabError::FunctionTable);
    // The first and the last function have one, gigabytes further.
    let (first, last) = ((8 * nfunc + 4) << 32, 0xf000_0000 << 32);
    let table = base + 2 * GIB;
    let file = file.with(table, words(&[first])).with(table + 8 * (nfunc - 1), words(&[last]));
    let loaded = Pclntab::load(&file.image(), &parsed, &module(GIB));
    assert!(matches!(loaded, Err(PclntabError::Size(_))), "{loaded:?}");
    // More functions than the text has bytes.
    let loaded = Pclntab::load(&file.image(), &parsed, &module(MIB));
    assert_eq!(loaded.unwrap_err(), PclntabError::FunctionTable);
    assert!(file.read() < MIB, "{}", file.read());
    assert_little_memory();
}

#[test]
fn magic_numbers_of_build_infos_everywhere() {
    // Each followed by a string that is no version, and by one of sixteen megabytes.
    let mut one = b"\xff Go buildinf:\x08\x02".to_vec();
    one.resize(32, 0);
    one.extend(b"\x04none\x80\x80\x80\x08");
    one.resize(48, 0);
    let file = Sparse::elf(32 * MIB, 2, &[load(WRITE, 0, 0, 32 * MIB)]).with(4096, one.repeat(8192));
    assert_eq!(buildinfo::find(&file.image()), None);
    assert!(file.read() < 64 * MIB, "{} MiB", file.read() / MIB);
}

#[test]
fn a_build_info_of_nothing_but_lines() {
    let lines = [b"dep\n".repeat(1 << 19), b"build\ta=\n".repeat(1 << 18)].concat();
    let text = [&[0; 16], lines.as_slice(), b"\n", &[0; 16]].concat();
    let mut blob = b"\xff Go buildinf:\x08\x02".to_vec();
    blob.resize(32, 0);
    blob.extend(b"\x08go1.26.3");
    let len = text.len();
    blob.extend([0, 7, 14].map(|shift| (len >> shift) as u8 | 0x80));
    blob.push((len >> 21) as u8);
    blob.extend(text);
    let file = Sparse::elf(32 * MIB, 2, &[load(WRITE, 0, 0, 32 * MIB)]).with(4096, blob);
    let info = buildinfo::find(&file.image()).unwrap();
    assert_eq!((info.version.as_str(), info.deps.len(), info.settings.len()), ("go1.26.3", 1 << 16, 1 << 12));
}

#[test]
fn identification_of_a_hole() {
    let parts: Vec<Part> = (1..4000).map(|i| load(WRITE, 4 * MIB, i * 2 * TIB, TIB)).collect();
    let file = Sparse::elf(2 * TIB, 2, &parts);
    assert!(program::recognise(&file.image()).is_none());
    assert!(file.read() < 5 * GIB, "{} MiB", file.read() / MIB);
    assert_little_memory();
}

/// A file with these sections: name, type, flags, offset, size; the first is that of the names.
fn sections(len: u64, list: &[(&str, u32, u64, u64, u64)]) -> Sparse {
    let (table, names) = (8 * MIB, 9 * MIB);
    let (mut headers, mut strings) = (Vec::new(), Vec::new());
    for &(name, kind, flags, offset, size) in list {
        headers.extend((strings.len() as u32).to_le_bytes());
        headers.extend(kind.to_le_bytes());
        // Each is linked to the second, which is the table of strings.
        headers.extend(words(&[flags, 0, offset, size, 1, 1, 24]));
        strings.extend(name.as_bytes());
        strings.push(0);
    }
    headers[24..40].copy_from_slice(&words(&[names, strings.len() as u64]));
    let mut file = Sparse::elf(len, 2, &[load(READ, 0, 0, MIB)]);
    let head = &mut file.parts[0].1;
    head[40..48].copy_from_slice(&table.to_le_bytes());
    head[58..60].copy_from_slice(&64u16.to_le_bytes());
    head[60..62].copy_from_slice(&(list.len() as u16).to_le_bytes());
    file.with(table, headers).with(names, strings)
}

#[test]
fn symbols_and_lines_of_a_hole() {
    const COMPRESSED: u64 = 0x800;
    let part = |name, kind, flags| (name, kind, flags, 16 * MIB, TIB);
    let all = [
        (".shstrtab", 3, 0, 0, 0),
        part(".strtab", 3, 0),
        part(".symtab", 2, 0),
        part(".dynsym", 11, 0),
        part(".debug_info", 1, COMPRESSED),
        part(".debug_abbrev", 1, 0),
        part(".debug_line", 1, 0),
        part(".note.gnu.build-id", 7, 0),
        part(".gnu_debuglink", 1, 0),
        part(".gnu_debugaltlink", 1, COMPRESSED),
    ];
    let file = sections(2 * TIB, &all);
    let links = Links::read(&file);
    assert_eq!(links, Links { has_dwarf: true, ..Links::default() });
    let names = NativeSymbols::parse(
        Box::new(file.clone()),
        Some(Box::new(file.clone())),
        Some(Box::new(file.clone())),
    );
    assert!(names.is_empty() && names.frames(LinkAddr(0x1000)).is_empty());
    assert!(file.read() < MIB, "{}", file.read());
    assert_little_memory();
}

#[test]
fn lines_that_unpack_to_more_than_they_can() {
    const COMPRESSED: u64 = 0x800;
    let small = |name, at: u64| (name, 1, COMPRESSED, at * MIB, 4096);
    let all = [(".shstrtab", 3, 0, 0, 0), small(".debug_info", 16), small(".debug_abbrev", 17)];
    // A header of ELF compression: zlib, 700 megabytes.
    let head = [&1u32.to_le_bytes()[..], &[0; 4], &words(&[700 * MIB, 1])].concat();
    let file = sections(32 * MIB, &all).with(16 * MIB, head.clone()).with(17 * MIB, head);
    let names = NativeSymbols::parse(Box::new(file.clone()), None, None);
    assert!(names.frames(LinkAddr(0x1000)).is_empty());
    assert_little_memory();
}

/// A program header of `.eh_frame_hdr`.
fn frame_header(addr: u64) -> Part {
    Part { kind: 0x6474_e550, flags: READ, offset: addr, addr, size: 64 }
}

#[test]
fn call_frame_information_in_a_hole() {
    let at = MIB;
    let parts = [load(5, 0, 0, TIB), frame_header(at)];
    for count in [u32::MAX, 8 << 20, 1000] {
        // As linkers write it, with the section right behind: zeros, which end it.
        let head = [&[1, 0x1b, 0x03, 0x3b][..], &60u32.to_le_bytes(), &count.to_le_bytes()].concat();
        let file = Sparse::elf(2 * TIB, 2, &parts).with(at, head);
        let mut table = FrameTable::load(file.image());
        assert!(file.read() <= 128 * MIB + MIB, "{} MiB", file.read() / MIB);
        for pc in (0..TIB).step_by(1 << 34) {
            assert_eq!(table.row(CodeAddr::Pc(LinkAddr(pc))), None);
        }
    }
    assert_little_memory();
}

#[test]
fn call_frame_information_of_nothing_but_references() {
    let at = MIB;
    let parts = [load(5, 0, 0, 64 * MIB), frame_header(at)];
    let head = [&[1, 0x1b, 0xff, 0xff][..], &60u32.to_le_bytes()].concat();
    // One entry with what functions have in common, whose text has no end, and a million that refer to it.
    let mut section = [&60_000u32.to_le_bytes()[..], &0u32.to_le_bytes(), &[1], &[b'z'; 59_995]].concat();
    while section.len() < 16 << 20 {
        let back = section.len() as u32 + 4;
        section.extend([16, back, 0x1000, 0x10, 0].into_iter().flat_map(u32::to_le_bytes));
    }
    let file = Sparse::elf(64 * MIB, 2, &parts).with(at, head).with(at + 64, section);
    let begun = std::time::Instant::now();
    let mut table = FrameTable::load(file.image());
    assert!(table.is_empty());
    assert_eq!(table.row(CodeAddr::Pc(LinkAddr(0x1008))), None);
    // Hours without a limit; far below a second with it.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
}
