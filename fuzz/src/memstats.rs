//! A process that lies about its memory: counters, Ps, caches, spans and lists of stacks, up to the printed numbers.

use std::sync::LazyLock;

use inspector::agent::AgentTarget;
use inspector::memory::{ReadCost, RecordedMemory};
use inspector::report::answers::Source;
use inspector::report::heap::HeapAnswer;
use inspector::report::stats::StatsAnswer;
use inspector::runtime::heap::{HeapReading, Stacks, read_spans};
use inspector::runtime::memstats::{Consistency, Sources, Taken};
use inspector::runtime::stats::Counters;
use inspector::runtime::view::View;

use crate::goroutines::WORLDS;
use crate::input::Input;

/// Where Ps, caches, spans, an arena and stacks are.
const AREA: u64 = 0xd0_0000_0000;
const AREA_SIZE: usize = 256 << 10;
const PS: u64 = 2;

/// The memory of a process that does not lie, and where its numbers are.
struct Numbers {
    view: &'static View,
    sources: Sources,
    counters: Counters<'static>,
    /// Segments and heap, then the area.
    memory: Vec<(u64, Vec<u8>)>,
    /// What is worth changing: variables of the runtime and structs in the area, with their sizes.
    places: Vec<(u64, u64)>,
}

static ALL: LazyLock<[Numbers; 2]> = LazyLock::new(|| [0, 1].map(Numbers::new));

impl Numbers {
    fn new(index: usize) -> Self {
        let world = &WORLDS[index];
        let view = &world.view;
        let table = &view.table;
        let mut memory = world.memory.clone();
        memory.push((AREA, vec![0; AREA_SIZE]));
        let mut put = |at: u64, value: u64, len: usize| {
            let (start, bytes) = memory
                .iter_mut()
                .find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&at))
                .expect("memory that is there");
            let at = (at - *start) as usize;
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        let names = [
            "runtime.memstats",
            "runtime.gcController",
            "runtime.mheap_",
            "runtime.sched",
            "runtime.allp",
            "runtime.gomaxprocs",
            "runtime.gcphase",
        ];
        let found = view.locate(&names);
        let at = |name: &str| found.at(name).unwrap_or_else(|| panic!("{name} is not found")).0;
        let field = |of: &str, name: &str| table.field(of, name).unwrap_or_else(|| panic!("no {of}.{name}"));
        let size = |of: &str| table.size(of).expect("a size");
        // Two Ps, each with a cache; spans; the list of them; an arena whose pages lead to the last one.
        let (p_at, cache_at) = (|i: u64| AREA + 8192 + 20480 * i, |i: u64| AREA + 65536 + 4096 * i);
        let (dummy, span_at) = (AREA + 4096, |i: u64| AREA + 80_000 + 256 * i);
        put(at("runtime.allp"), AREA, 8);
        put(at("runtime.allp") + 8, PS, 8);
        put(at("runtime.gomaxprocs"), PS, 4);
        // The stack span that the flush gives back is one that was taken.
        let counters = at("runtime.memstats") + field("runtime.mstats", "heapStats.stats").offset;
        put(counters + field("runtime.heapStatsDelta", "inStacks").offset, 1 << 20, 8);
        // Up to Go 1.18 all of a cached span counts as allocated until it is flushed.
        put(counters + field("runtime.heapStatsDelta", "smallAllocCount").offset + 8 * 5, 1000, 8);
        let heap = at("runtime.mheap_");
        for (name, value) in [
            ("spanalloc.size", size("runtime.mspan")),
            ("cachealloc.size", size("runtime.mcache")),
            ("allspans.array", AREA + 2048),
            ("allspans.len", 4),
            ("arenas", AREA + 120_000 - 8 * ((AREA + (1 << 47)) >> 26)),
        ] {
            put(heap + field("runtime.mheap", name).offset, value, 8);
        }
        for i in 0..PS {
            put(AREA + 8 * i, p_at(i), 8);
            put(p_at(i) + field("runtime.p", "id").offset, i, 4);
            put(p_at(i) + field("runtime.p", "mcache").offset, cache_at(i), 8);
            let alloc = field("runtime.mcache", "alloc").offset;
            for class in 0..136 {
                let span = if class == 10 { span_at(i) } else { dummy };
                put(cache_at(i) + alloc + 8 * class, span, 8);
            }
            put(cache_at(i) + field("runtime.mcache", "stackcache").offset, AREA + 200_000 + 2048 * i, 8);
        }
        for i in 0..4 {
            put(AREA + 2048 + 8 * i, span_at(i), 8);
            let stacks = i == 3;
            let values = [
                ("startAddr", AREA + 8192 * i),
                ("npages", 1),
                ("nelems", 8192 / 48),
                ("allocCount", if stacks { 1 } else { 5 }),
                ("elemsize", 48),
                ("spanclass", 10),
                ("state", if stacks { 2 } else { 1 }),
            ];
            for (name, value) in values {
                let field = field("runtime.mspan", name);
                put(span_at(i) + field.offset, value, field.size as usize);
            }
        }
        // The arena itself is beyond the area: only the first word of its table is there.
        put(AREA + 120_000, AREA + 130_000 - field("runtime.heapArena", "spans").offset, 8);
        put(AREA + 130_000 + 8 * (200_000 / 8192), span_at(3), 8);
        let mut places: Vec<(u64, u64)> =
            names.iter().map(|name| (at(name), table.size(name).unwrap_or(24).min(16 << 10))).collect();
        // The head of the heap is far into it.
        places.push((heap + field("runtime.mheap", "sweepgen").offset, 200));
        places.push((heap + field("runtime.mheap", "spanalloc.size").offset, 200));
        places.extend(
            (0..PS).flat_map(|i| [(p_at(i), size("runtime.p")), (cache_at(i), size("runtime.mcache"))]),
        );
        places.push((span_at(0), 1024));
        places.push((AREA, AREA_SIZE as u64));
        let sources = Sources::find(view).expect("a process that does not lie");
        let counters = Counters::find(view).expect("a process that does not lie");
        let numbers = Numbers { view, sources, counters, memory, places };
        let read = read_spans(view, &numbers.sources, &recorded(&numbers.memory));
        // Counters of nothing, but objects in caches: the flush is computed, and does not fit.
        let (spans, reading) = read.expect("numbers of a process that does not lie");
        assert_eq!((spans.objects(), reading.stack_spans), (15, 1));
        numbers
    }
}

fn recorded(memory: &[(u64, Vec<u8>)]) -> RecordedMemory {
    memory.iter().fold(RecordedMemory::default(), |m, (at, bytes)| m.with(*at, bytes.clone()))
}

/// The bytes choose a program and what is wrong in its memory.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let numbers = &ALL[usize::from(kind & 1)];
    let mut memory = numbers.memory.clone();
    for _ in 0..input.u8() % 24 {
        change(&mut memory, numbers, &mut input);
    }
    let memory = recorded(&memory);
    let view = numbers.view;
    if let Ok(stats) = numbers.counters.read(&memory) {
        let more = numbers.counters.more(&memory).ok();
        let mut text = Vec::new();
        StatsAnswer::new(view, &stats, more, None).write_text(&mut text).expect("room in memory");
        check(text);
    }
    if let (Ok((spans, statistics)), Ok(stacks)) =
        (read_spans(view, &numbers.sources, &memory), Stacks::read(view, &memory, 5))
    {
        let _ = (statistics.is_exact(), statistics.is_plausible());
        let answer = HeapReading { spans, stacks, statistics, too_large_to_stop: false };
        let taken = Taken {
            answer,
            consistency: Consistency::Instant,
            stopped: inspector::stop::StopTimes::default(),
            stops: 1,
            cost: ReadCost::default(),
        };
        let pid = AgentTarget::Process("1".parse().expect("a pid"));
        let mut text = Vec::new();
        HeapAnswer::new(Source::new(&pid, "probe"), view, taken, ReadCost::default())
            .write_text(&mut text)
            .expect("room in memory");
        check(text);
    }
}

fn check(text: Vec<u8>) {
    let text = String::from_utf8(text).expect("text");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

fn change(memory: &mut [(u64, Vec<u8>)], numbers: &Numbers, input: &mut Input<'_>) {
    let kind = input.u8();
    let (start, len) = numbers.places[usize::from(input.u8()) % numbers.places.len()];
    let at = start
        + 8 * (u64::from(input.u16()) % (len / 8).max(1))
        + u64::from(kind >> 4 & 7) * u64::from(kind >> 7);
    let value = match kind & 15 {
        0..=3 => AREA + 8 * u64::from(input.u16()),
        4..=6 => u64::from(input.u8()),
        7 => u64::from(input.u32()),
        8 => u64::MAX - u64::from(input.u8()),
        9 => 1 << (input.u8() & 63),
        10 => u64::from(input.u16()) << 13,
        _ => input.u64(),
    };
    let Some((start, bytes)) =
        memory.iter_mut().find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&at))
    else {
        return;
    };
    let at = (at - *start) as usize;
    let len = bytes.len().min(at + 8) - at;
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}
