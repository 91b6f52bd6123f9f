//! A process that lies in its memory: the lists of goroutines and threads, their structs, labels, ancestors and stacks,
//! from attaching to the printed text.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use inspector::memory::{Memory as _, ReadCost, RecordedMemory};
use inspector::process::maps::Mapping;
use inspector::report::stack::{AnswerCost, Filter, StackReport};
use inspector::report::traceback::Level;
use inspector::runtime::attach::{AttachTarget, LoadedImage, LoadedImages, attach};
use inspector::runtime::calibrate::{check_gs, check_ms, find_alllink};
use inspector::runtime::code::CodeCache;
use inspector::runtime::discover;
use inspector::runtime::known::KnownProgram;
use inspector::runtime::running::saved_start;
use inspector::runtime::snapshot::glist::GList;
use inspector::runtime::snapshot::stacks::StackWalker;
use inspector::runtime::snapshot::{Consistency, Details, Frames, Slot, Snapshot};
use inspector::runtime::view::View;
use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::image::Segment;

use crate::base::{self, BASES, Base, Patched};
use crate::input::Input;
use crate::unwind::{code_address, words};

pub(crate) const HEAP: u64 = 0xc0_0000_0000;
pub(crate) const HEAP_SIZE: usize = 48 << 10;
const STACK: u64 = 0xc000_0100_0000;
const STACK_SIZE: u64 = 8 << 10;
const TIDS: [u64; 2] = [100, 101];
const GS: u64 = 4;

/// A program with the memory of a process that runs it, well-behaved.
pub(crate) struct World {
    base: &'static Base,
    pub(crate) view: View,
    /// Writable segments, then heap.
    pub(crate) memory: Vec<(u64, Vec<u8>)>,
}

pub(crate) static WORLDS: LazyLock<[World; 2]> =
    LazyLock::new(|| [World::new(&BASES[0]), World::new(&BASES[1])]);

impl World {
    fn new(base: &'static Base) -> Self {
        let (image, table) = base.tables();
        let version = base.program.build_info.as_ref().map(|b| b.version.clone()).expect("build info");
        let version = symbols::version::GoVersion::parse(&version).expect("a version");
        let wanted = ["runtime.allglen", "runtime.allgptr", "runtime.allm"];
        let globals = symbols::globals::solve(&image, &table, &version, &wanted);
        let layout = symbols::layout::lookup(symbols::image::Arch::Amd64, &version).expect("a table").table;
        let segments: Vec<Segment> = image.segments().iter().filter(|s| s.writable).copied().collect();
        let mut memory: Vec<(u64, Vec<u8>)> = segments
            .iter()
            .map(|s| {
                let mut bytes = image.read_relocated(s.start, s.file_size as usize).expect("its bytes");
                bytes.resize(s.mem_size as usize, 0);
                (s.start.0, bytes)
            })
            .collect();
        memory.push((HEAP, vec![0; HEAP_SIZE]));
        let mut put = |at: u64, value: u64| {
            let (start, bytes) = memory
                .iter_mut()
                .find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&at))
                .expect("memory that is there");
            let at = (at - *start) as usize;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        let global = |name: &str| globals.address(name).unwrap_or_else(|| panic!("{name} is not found")).0;
        let g = |name: &str| layout.field("runtime.g", name).map(|f| f.offset);
        let m = |name: &str| layout.field("runtime.m", name).map(|f| f.offset);
        let (g_at, m_at) = (|i: u64| HEAP + 4096 + 1024 * i, |i: u64| HEAP + 16384 + 4096 * i);
        let parked = table.find("runtime.gopark").expect("a function").entry().0 + 64;
        put(global("runtime.allglen"), GS);
        put(global("runtime.allgptr"), HEAP);
        put(global("runtime.allm"), m_at(0));
        for i in 0..GS {
            put(HEAP + 8 * i, g_at(i));
            let fields = [
                ("stack.lo", STACK),
                ("stack.hi", STACK + STACK_SIZE),
                ("m", if i < 2 { m_at(i) } else { 0 }),
                ("sched.sp", STACK + 256),
                ("sched.pc", parked),
                ("goid", i + 1),
                ("gopc", parked + 32),
                ("startpc", table.find("main.main").expect("a function").entry().0),
                ("labels", HEAP + 40960),
                ("ancestors", HEAP + 41984),
            ];
            for (name, value) in fields {
                put(g_at(i) + g(name).expect("a field"), value);
            }
            put(
                (g_at(i) + g("atomicstatus").expect("a field")) & !7,
                4 << (8 * (g("atomicstatus").expect("a field") & 7)),
            );
        }
        for i in 0..2 {
            put(m_at(i) + m("g0").expect("a field"), g_at(i));
            put(m_at(i) + m("gsignal").expect("a field"), g_at(i));
            put(m_at(i) + m("procid").expect("a field"), TIDS[i as usize]);
            put(m_at(i) + m("curg").expect("a field"), g_at(i));
            put(m_at(i) + m("alllink").expect("a field"), if i == 0 { m_at(1) } else { 0 });
        }
        // Labels: a list of one pair; ancestors: a list of one.
        for (at, value) in
            [(0, HEAP + 41000), (8, 1), (40, HEAP + 41100), (48, 5), (56, HEAP + 41100), (64, 3)]
        {
            put(HEAP + 40960 + at, value);
        }
        for (at, value) in [(0, HEAP + 42000), (8, 1), (16, HEAP + 42100), (24, 2), (40, 77), (48, parked)] {
            put(HEAP + 41984 + at, value);
        }
        put(HEAP + 42104, parked);
        let stack = (STACK, vec![0; STACK_SIZE as usize]);
        let recorded = memory
            .iter()
            .chain([&stack])
            .fold(RecordedMemory::default(), |m, (at, bytes)| m.with(*at, bytes.clone()));
        let view = attach(&target(&[]), loaded(base), &recorded).expect("a process that does not lie");
        World { base, view, memory }
    }
}

fn target(mappings: &[Mapping]) -> AttachTarget<'_> {
    AttachTarget { mappings, tids: &|| TIDS.to_vec(), monotonic_offset: 0 }
}

fn loaded(base: &Base) -> LoadedImages {
    let image = base::image(Patched::new(&base.bytes)).expect("an ELF file");
    let known = Arc::new(KnownProgram::new(&image, base.program.clone()));
    let main = LoadedImage { known, image, name: String::new(), bias: LoadBias(0) };
    LoadedImages { main, others: Vec::new() }
}

/// The bytes choose a program, what is wrong in its memory, and the words of its stacks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let world = &WORLDS[usize::from(kind & 1)];
    let mut memory = world.memory.clone();
    for _ in 0..input.u8() % 32 {
        change(&mut memory, world, &mut input);
    }
    let fill = kind & 2 != 0;
    let mut stack = words(&world.view.modules, &mut input);
    if !fill {
        // Something to return to, else most walks end at once.
        stack.resize(stack.len().max(STACK_SIZE as usize), 0);
    }
    let memory = memory
        .into_iter()
        .fold(RecordedMemory::default(), |m, (at, bytes)| m.with(at, bytes))
        .with(STACK, stack);
    if kind & 0xe0 == 0 {
        // Attaching anew is slow.
        if let Ok(view) = attach(&target(&[]), loaded(world.base), &memory) {
            dump(&view, &memory, kind);
        }
        return;
    }
    if kind & 0xf0 == 0x20 {
        let _ = discover::find_allgs(&memory, &world.view.modules, &world.view.g);
        let _ = discover::find_allm(&memory, &world.view.modules, &world.view.m, &world.view.g);
    }
    dump(&world.view, &memory, kind);
}

fn change(memory: &mut [(u64, Vec<u8>)], world: &World, input: &mut Input<'_>) {
    let last = memory.len() - 1;
    let kind = input.u8();
    let offset = usize::from(input.u16());
    let heap = kind & 0x80 == 0;
    let piece = if heap { last } else { usize::from(kind >> 4 & 7) % memory.len() };
    let value = match kind & 15 {
        0..=3 => HEAP + 8 * u64::from(input.u16() & 0x1fff),
        4 => STACK + u64::from(input.u16()),
        5..=6 => code_address(&world.view.modules, input),
        7..=9 => u64::from(input.u8()),
        10 => u64::from(input.u32()),
        11 => u64::MAX - u64::from(input.u8()),
        12 => 1 << (input.u8() & 63),
        _ => input.u64(),
    };
    let bytes = &mut memory[piece].1;
    let at = (if heap { offset } else { offset * 8 }) % bytes.len();
    let len = bytes.len().min(at + 8) - at;
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

/// All goroutines that there seem to be, printed in every way.
fn dump(view: &View, memory: &RecordedMemory, kind: u8) {
    let _ = check_gs(memory, &view.modules, &view.g, &view.allgs);
    let head = view.allm.and_then(|at| memory.word(RuntimeAddr(at.0)).ok()).unwrap_or(0);
    let _ = check_ms(memory, &view.m, &view.g, head, &TIDS);
    let _ = find_alllink(memory, &view.m, &view.g, head, &TIDS);
    let ms = view.read_ms(memory);
    assert!(ms.len() <= HEAP_SIZE);
    let Ok(addrs) = view.allgs.read(memory, 0) else { return };
    let list = GList::new(addrs, view.g.size);
    let mut slots = Vec::new();
    list.read_all(memory, &mut Vec::new(), |_, addr, bytes| {
        let Some(bytes) = bytes else { return };
        let g = inspector::runtime::goroutine::Goroutine::parse(&view.g, addr, bytes);
        slots.push(Slot { g, frames: Frames::Unwanted, confirmed: true, details: None });
    })
    .expect("memory whose holes are no errors");
    slots.truncate(64);
    let mut walker = StackWalker::new(view.machine, CodeCache::new(&view.modules));
    for slot in &mut slots {
        slot.frames = match saved_start(&slot.g) {
            Ok(start) => Frames::Walked(walker.walk_one(memory, start)),
            Err(why) => Frames::Unavailable(why),
        };
        slot.details = Details::read(view, memory, &slot.g);
    }
    let snapshot = Snapshot {
        slots,
        shapes: walker.shapes,
        ms,
        consistency: Consistency::EachByItself,
        taken_at: 1 << 40,
        finalizer_runs_user_code: view.finalizer_runs_user_code(memory),
        stopped: Duration::ZERO,
        until_stopped: Duration::ZERO,
        too_many: None,
        threads_stopped: 0,
        cost: ReadCost::default(),
    };
    let level = if kind & 4 == 0 { Level::User } else { Level::System };
    let filter = Filter::default();
    let report = StackReport::new(view, &snapshot, &filter, level);
    let mut text = Vec::new();
    report.write_text(&mut text).expect("room in memory");
    let text = String::from_utf8(text).expect("text");
    let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.chars().any(acts), "{text:?}");
    let mut json = Vec::new();
    let pid = "1".parse().expect("a pid");
    report
        .write_json(pid, &AnswerCost::new(ReadCost::default(), &snapshot), None, &mut json)
        .expect("room in memory");
    let json = String::from_utf8(json).expect("text");
    assert!(!json.chars().any(|c| c.is_control() && c != '\n'), "{json:?}");
}
