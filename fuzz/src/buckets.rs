//! A process whose profiles lie: lists of buckets, their stacks and records, the variables around them.

use std::sync::LazyLock;

use inspector::memory::RecordedMemory;
use inspector::profile::{Mapping, Profile};
use inspector::runtime::buckets::{
    Profilers, Tables, allocs_profile, block_profile, heap_profile, mutex_profile, read_block, read_memory,
    read_mutex,
};
use inspector::runtime::symbolize::Symbolizer;

use crate::goroutines::{HEAP, HEAP_SIZE, WORLDS, World};
use crate::input::Input;
use crate::unwind::code_address;

/// A program with the memory of a process, and where its profiles are in it.
struct Prepared {
    world: &'static World,
    tables: Tables<'static>,
}

static PREPARED: LazyLock<[Prepared; 2]> = LazyLock::new(|| {
    [0, 1].map(|i| {
        let world = &WORLDS[i];
        let tables = Tables::locate(&world.view);
        for name in ["runtime.mbuckets", "runtime.bbuckets", "runtime.xbuckets"] {
            assert!(tables.located().at(name).is_some(), "{name} is not found");
        }
        Prepared { world, tables }
    })
});

/// What the runtime keeps a bucket by.
fn hash(stack: &[u64], size: u64) -> u64 {
    let mut h = stack.iter().chain([&size]).fold(0u64, |h, word| {
        let h = h.wrapping_add(*word);
        let h = h.wrapping_add(h << 10);
        h ^ (h >> 6)
    });
    h = h.wrapping_add(h << 3);
    h ^ (h >> 11)
}

fn put(memory: &mut [(u64, Vec<u8>)], at: u64, bytes: &[u8]) {
    for (start, piece) in memory {
        let offset = at.checked_sub(*start).and_then(|o| usize::try_from(o).ok());
        if let Some(piece) = offset.and_then(|o| piece.get_mut(o..o.checked_add(bytes.len())?)) {
            piece.copy_from_slice(bytes);
        }
    }
}

/// The bytes say which buckets there are, and what is wrong with them.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let prepared = &PREPARED[usize::from(kind & 1)];
    let (view, tables) = (&prepared.world.view, &prepared.tables);
    let mut memory = prepared.world.memory.clone();
    let global = |name: &str| tables.located().at(name).map(|at| at.0);
    if let Some(at) = global("runtime.ticks") {
        // Else each input would be a tenth of a second of calibration.
        let offset = view.table.field("runtime.ticks", "val").map_or(0, |f| f.offset);
        put(&mut memory, at + offset, &2_000_000_000u64.to_le_bytes());
    }
    let lists = ["runtime.mbuckets", "runtime.bbuckets", "runtime.xbuckets"];
    let mut at = HEAP;
    let mut heads = [0u64; 3];
    for _ in 0..input.u8() % 64 {
        let which = usize::from(input.u8() % 3);
        let depth = usize::from(input.u8() % 40);
        let size = u64::from(input.u16());
        let stack: Vec<u64> = (0..depth).map(|_| code_address(&view.modules, &mut input)).collect();
        let head = [0, heads[which], which as u64 + 1, hash(&stack, size), size, depth as u64];
        let record: Vec<u64> = (0..if which == 0 { 16 } else { 2 })
            .map(|_| if input.u8() < 0x80 { u64::from(input.u8()) } else { input.u64() })
            .collect();
        let bytes: Vec<u8> = head.iter().chain(&stack).chain(&record).flat_map(|w| w.to_le_bytes()).collect();
        if at + bytes.len() as u64 > HEAP + HEAP_SIZE as u64 {
            break;
        }
        put(&mut memory, at, &bytes);
        heads[which] = at;
        at += bytes.len() as u64;
    }
    for (name, head) in lists.iter().zip(heads) {
        if let Some(at) = global(name) {
            put(&mut memory, at, &head.to_le_bytes());
        }
    }
    for _ in 0..input.u8() % 16 {
        let value = match input.u8() % 6 {
            0 => HEAP + 8 * u64::from(input.u16() & 0x1fff),
            1 => code_address(&view.modules, &mut input),
            2 => u64::from(input.u8()),
            3 => u64::MAX - u64::from(input.u8()),
            4 => 1 << (input.u8() & 63),
            _ => input.u64(),
        };
        let variables = [
            "runtime.MemProfileRate",
            "runtime.mutexprofilerate",
            "runtime.blockprofilerate",
            "runtime.disableMemoryProfiling",
            "runtime.mProf",
            "runtime.mProfCycle",
            "runtime.debug",
            "runtime.mbuckets",
        ];
        let choice = usize::from(input.u8());
        match variables.get(choice).and_then(|name| global(name)) {
            Some(at) => {
                let within = 4 * u64::from(input.u8() & 31);
                let within = if choice == 6 { within } else { 0 };
                put(&mut memory, at + within, &value.to_le_bytes());
            }
            None => put(&mut memory, HEAP + u64::from(input.u16()) % HEAP_SIZE as u64, &value.to_le_bytes()),
        }
    }
    let memory = memory.into_iter().fold(RecordedMemory::default(), |m, (at, bytes)| m.with(at, bytes));
    let mappings = vec![mapping(0, 0x50_0000), mapping(0x50_0000, u64::MAX)];
    let _ = Profilers::read(tables, &memory);
    if let Ok(buckets) = read_memory(tables, &memory) {
        let heap = heap_profile(tables, &buckets, mappings.clone());
        check(&heap, 4, buckets.buckets.len());
        let allocs = allocs_profile(tables, &buckets, mappings.clone());
        assert_eq!(heap.samples, allocs.samples);
    }
    // Without a use of it, the older program does not have it, and each input would calibrate.
    let ticks = global("runtime.ticks").is_some();
    if ticks && let Ok(buckets) = read_block(tables, &memory) {
        check(&block_profile(tables, &buckets, mappings.clone()), 2, buckets.buckets.len());
    }
    if ticks && let Ok(buckets) = read_mutex(tables, &memory) {
        check(&mutex_profile(tables, &buckets, mappings.clone()), 2, buckets.buckets.len());
    }
    stacks(prepared, &mut input, mappings);
}

fn mapping(start: u64, end: u64) -> Mapping {
    Mapping { start, end, offset: 0, file: String::new(), build_id: String::new(), symbolized: false }
}

/// Stacks of all kinds through one symbolizer, which remembers what it saw.
fn stacks(prepared: &Prepared, input: &mut Input<'_>, mappings: Vec<Mapping>) {
    let view = &prepared.world.view;
    let mut symbolizer = Symbolizer::new(view, mappings);
    let mut seen = 0;
    while !input.is_empty() {
        let kind = input.u8();
        let stack: Vec<u64> = (0..input.u8() % 48).map(|_| code_address(&view.modules, input)).collect();
        let limit = usize::from(kind >> 2);
        let found = match kind & 3 {
            0 => symbolizer.logical(&stack),
            1 => symbolizer.physical(&stack, limit),
            2 => {
                let expanded = symbolizer.expand_partial(&stack, limit);
                assert!(expanded.len() <= limit.max(1));
                symbolizer.logical(&expanded)
            }
            _ => {
                stack.iter().for_each(|&entry| _ = symbolizer.is_of_runtime(entry));
                Vec::new()
            }
        };
        seen = found.into_iter().fold(seen, |seen, location| seen.max(location + 1));
    }
    let symbols = symbolizer.finish();
    assert_eq!(seen, symbols.locations.len());
}

fn check(profile: &Profile, values: usize, rows: usize) {
    assert_eq!(profile.samples.len(), rows);
    assert_eq!(profile.sample_types.len(), values);
    for sample in &profile.samples {
        assert_eq!(sample.values.len(), values);
        assert!(sample.stack.iter().all(|&location| location < profile.locations.len()));
    }
    for location in &profile.locations {
        assert!(location.mapping.is_none_or(|m| m < profile.mappings.len()));
        assert!(location.lines.iter().all(|line| line.function < profile.functions.len()));
    }
}
