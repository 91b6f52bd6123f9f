//! Conversion of samples into a profile.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use super::collect::{Collected, Key};
use super::known::{KnownRuntime, SampledProgram};
use super::session::Captured;
use crate::native::frame::{Named, Place};
use crate::profile::{Function, Label, LabelValue, Line, Location, Mapping, Profile, Sample, ValueType};
use crate::runtime::symbolize::{Symbolizer, Symbols};

/// Maximum total size of names and files of all functions of a profile, in bytes: debug information may claim
/// any size.
const MAX_TEXTS: usize = 256 << 20;
/// Maximum depth of a stack, with inlined frames and frames of C.
const MAX_DEPTH: usize = 2048;

/// Makes a profile of a capture. `kernel` names addresses of the kernel.
pub fn profile(captured: &mut Captured, kernel: &dyn Fn(u64) -> Option<Named>) -> Profile {
    let comments = comments(captured);
    let profile = named(&mut captured.known, &captured.collected, captured.rate, kernel);
    let left_out = captured.left_out();
    captured.notes.extend(left_out);
    Profile { time: captured.begun, duration: Some(captured.took), comments, ..profile }
}

/// Makes a profile of samples that refer to `programs`, taken `rate` times a second. The caller sets time and
/// duration.
pub fn named(
    programs: &mut [SampledProgram],
    collected: &Collected,
    rate: u32,
    kernel: &dyn Fn(u64) -> Option<Named>,
) -> Profile {
    let period = i64::from(1_000_000_000 / rate.max(1));
    let mut profile = Profile {
        sample_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_sample_type: 1,
        period: Some((ValueType::new("cpu", "nanoseconds"), period)),
        time: UNIX_EPOCH,
        duration: None,
        mappings: Vec::new(),
        locations: Vec::new(),
        functions: Vec::new(),
        samples: Vec::new(),
        comments: Vec::new(),
    };
    let mut by_program: HashMap<Option<usize>, Vec<(&Key, u64)>> = HashMap::new();
    for (key, count) in collected.samples() {
        by_program.entry(key.known).or_default().push((key, count));
    }
    let mut texts = MAX_TEXTS;
    let several = programs.len() > 1 || by_program.contains_key(&None);
    let mut in_kernel = KernelNames { names: kernel, mapping: None, known: HashMap::new() };
    let programs = programs.iter_mut().map(Some).chain([None]);
    for (index, mut known) in programs.enumerate() {
        let is_this = known.is_some().then_some(index);
        let Some(keys) = by_program.remove(&is_this) else { continue };
        let stacks: Vec<&[Place]> = keys.iter().map(|(key, _)| key.places.as_slice()).collect();
        let name = known.as_ref().map_or("unknown", |known| known.name.as_str()).to_owned();
        let runtimes = known.as_ref().map(|known| known.runtimes.as_slice()).unwrap_or_default();
        let modules: Vec<String> = runtimes.iter().map(|runtime| runtime.name.module.clone()).collect();
        let (symbols, stacks) = match known.as_mut() {
            Some(known) => name_stacks(known, &stacks, &mut texts),
            None => foreign(&stacks, Vec::new(), &mut |_| Vec::new(), &mut texts),
        };
        let base = append(&mut profile, symbols);
        for ((key, count), user) in keys.into_iter().zip(stacks) {
            let mut stack: Vec<usize> =
                key.kernel.iter().map(|&pc| in_kernel.location(&mut profile, pc)).collect();
            stack.extend(user.into_iter().map(|location| location + base));
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut labels: Vec<Label> = key
                .labels
                .iter()
                .map(|(key, value)| Label { key: text(key), value: LabelValue::Text(text(value)) })
                .collect();
            let mut label = |key: &str, value| labels.push(Label { key: key.to_owned(), value });
            let number = |value: i64| LabelValue::Number(value, String::new());
            if let Some(goid) = key.goid {
                label("goroutine", number(i64::try_from(goid).unwrap_or(i64::MAX)));
            }
            if let Some(module) = key.runtime.and_then(|index| modules.get(index)) {
                label("runtime", LabelValue::Text(module.clone()));
            }
            if let Some(tid) = key.tid {
                label("thread", number(tid.into()));
            }
            if several {
                label("pid", number(key.pid.as_raw().into()));
                label("process", LabelValue::Text(name.clone()));
            }
            profile.samples.push(Sample { stack, values: vec![count, count.saturating_mul(period)], labels });
        }
    }
    profile
}

fn comments(captured: &Captured) -> Vec<String> {
    let quality = captured.collected.quality();
    let mut comments = vec![format!("samples were taken by {}", captured.mode)];
    comments.extend(captured.because.iter().map(|why| format!("not {why}")));
    if captured.counts.lost > 0 {
        comments.push(format!("{} of {} samples were lost", captured.counts.lost, captured.counts.taken));
    }
    if quality.cut > 0 {
        comments.push(format!("{} stacks were too deep to be walked to their end", quality.cut));
    }
    if let Some(why) = captured.early {
        comments.push(format!("it ended early: {why}"));
    }
    comments
}

/// Adds locations, functions and mappings. Returns the index of the first new location.
fn append(profile: &mut Profile, symbols: Symbols) -> usize {
    let (mapping, function, location) =
        (profile.mappings.len(), profile.functions.len(), profile.locations.len());
    profile.mappings.extend(symbols.mappings);
    profile.functions.extend(symbols.functions);
    profile.locations.extend(symbols.locations.into_iter().map(|mut l| {
        l.mapping = l.mapping.map(|m| m + mapping);
        l.lines.iter_mut().for_each(|line| line.function += function);
        l
    }));
    location
}

/// Names the stacks of a process.
fn name_stacks(
    known: &mut SampledProgram,
    stacks: &[&[Place]],
    texts: &mut usize,
) -> (Symbols, Vec<Vec<usize>>) {
    let SampledProgram { runtimes, foreign: native, mappings, .. } = known;
    mappings.extend(native.added());
    let shown = mappings.clone();
    if runtimes.is_empty() {
        return foreign(stacks, shown, &mut |address| native.names(address), texts);
    }
    let (mut symbols, named) = name_go(runtimes, stacks, &shown, *texts);
    *texts = texts.saturating_sub(symbols.functions.iter().map(size).sum());
    add_names(&mut symbols, &mut |address| native.names(address), texts);
    (symbols, named)
}

/// Names the Go code of stacks. Each frame is named by the runtime that owns its code; a frame of no runtime
/// is named by the runtime of the frame below it. `room` is the maximum size of all names in bytes.
fn name_go(
    runtimes: &[KnownRuntime],
    stacks: &[&[Place]],
    mappings: &[Mapping],
    room: usize,
) -> (Symbols, Vec<Vec<usize>>) {
    let share = room / runtimes.len().max(1);
    let mut symbolizers: Vec<Symbolizer<'_>> = runtimes
        .iter()
        .map(|runtime| Symbolizer::new(&runtime.view, mappings.to_vec()).with_room(share))
        .collect();
    let owner = |entry: u64| {
        let of = |runtime: &KnownRuntime| runtime.view.modules.lookup(entry.wrapping_sub(1)).is_some();
        if runtimes.len() == 1 { Some(0) } else { runtimes.iter().position(of) }
    };
    // Index of the runtime and of the location in its symbols, for each frame.
    let mut named: Vec<Vec<(usize, usize)>> = Vec::with_capacity(stacks.len());
    for places in stacks {
        let entries = places.iter().map(|p| p.pc.wrapping_add(u64::from(p.exact)));
        let mut runs: Vec<(Option<usize>, Vec<u64>)> = Vec::new();
        for entry in entries {
            let of = owner(entry);
            match runs.last_mut() {
                Some((last, run)) if of.is_none() || last.is_none() || *last == of => {
                    *last = last.or(of);
                    run.push(entry);
                }
                _ => runs.push((of, vec![entry])),
            }
        }
        let mut stack = Vec::new();
        for (of, run) in runs {
            let of = of.unwrap_or(0);
            if let Some(symbolizer) = symbolizers.get_mut(of) {
                let locations = symbolizer.physical(&run, MAX_DEPTH.saturating_sub(stack.len()));
                stack.extend(locations.into_iter().map(|location| (of, location)));
            }
        }
        named.push(stack);
    }
    let mut all = Symbols { mappings: mappings.to_vec(), ..Symbols::default() };
    let mut bases = Vec::new();
    for symbolizer in symbolizers {
        let Symbols { locations, functions, .. } = symbolizer.finish();
        let (location, function) = (all.locations.len(), all.functions.len());
        bases.push(location);
        all.functions.extend(functions);
        all.locations.extend(locations.into_iter().map(|mut l| {
            l.lines.iter_mut().for_each(|line| line.function += function);
            l
        }));
    }
    let index = |(of, location): (usize, usize)| bases.get(of).map(|base| base + location);
    let stacks = named.into_iter().map(|stack| stack.into_iter().filter_map(index).collect()).collect();
    (all, stacks)
}

/// Names stacks without any Go code.
fn foreign(
    stacks: &[&[Place]],
    mappings: Vec<Mapping>,
    names: &mut dyn FnMut(u64) -> Vec<Named>,
    texts: &mut usize,
) -> (Symbols, Vec<Vec<usize>>) {
    let mut symbols = Symbols { mappings, ..Symbols::default() };
    let mut known: HashMap<u64, usize> = HashMap::new();
    let stacks = stacks
        .iter()
        .map(|places| {
            let addresses = places.iter().map(|p| if p.exact { p.pc } else { p.pc.wrapping_sub(1) });
            addresses
                .map(|address| {
                    *known.entry(address).or_insert_with(|| {
                        let within = |m: &Mapping| (m.start..m.end).contains(&address);
                        let mapping = symbols.mappings.iter().position(within);
                        symbols.locations.push(Location { mapping, address, lines: Vec::new() });
                        symbols.locations.len() - 1
                    })
                })
                .collect()
        })
        .collect();
    add_names(&mut symbols, names, texts);
    (symbols, stacks)
}

/// Returns the size of the texts of a function, in bytes.
fn size(function: &Function) -> usize {
    function.name.len() + function.system_name.len() + function.file.len()
}

/// Names the locations that have no name yet, while there is room for their texts.
fn add_names(symbols: &mut Symbols, names: &mut dyn FnMut(u64) -> Vec<Named>, texts: &mut usize) {
    let Symbols { locations, functions, .. } = symbols;
    let mut known: HashMap<Function, usize> = HashMap::new();
    // Addresses are sorted, so one file follows the other: not all files may be in memory at a time.
    let mut unnamed: Vec<&mut Location> = locations.iter_mut().filter(|l| l.lines.is_empty()).collect();
    unnamed.sort_by_key(|location| location.address);
    for location in unnamed {
        for Named { function, line } in names(location.address) {
            if !known.contains_key(&function) {
                // The function is stored twice.
                let Some(left) = texts.checked_sub(2 * size(&function)) else { break };
                *texts = left;
            }
            let function = *known.entry(function).or_insert_with_key(|function| {
                functions.push(function.clone());
                functions.len() - 1
            });
            location.lines.push(Line { function, line });
        }
    }
    mark_symbolized(symbols);
}

/// Marks each mapping as symbolized if any of its locations has function, file and line.
///
/// For a mapping with this mark, readers such as `go tool pprof` do not look for its file and name its
/// locations again, from other addresses than those found here. (`runtime/pprof/proto.go:locForPC` requires
/// all locations to be named; but samples may be anywhere.)
fn mark_symbolized(symbols: &mut Symbols) {
    let Symbols { mappings, locations, functions } = symbols;
    let is_named = |line: &Line| {
        line.line > 0
            && functions.get(line.function).is_some_and(|f| !f.name.is_empty() && !f.file.is_empty())
    };
    mappings.iter_mut().for_each(|mapping| mapping.symbolized = false);
    for location in locations.iter().filter(|location| location.lines.iter().any(is_named)) {
        if let Some(mapping) = location.mapping.and_then(|index| mappings.get_mut(index)) {
            mapping.symbolized = true;
        }
    }
}

/// Locations in the kernel.
struct KernelNames<'n> {
    names: &'n dyn Fn(u64) -> Option<Named>,
    mapping: Option<usize>,
    known: HashMap<u64, usize>,
}

impl KernelNames<'_> {
    fn location(&mut self, profile: &mut Profile, pc: u64) -> usize {
        if let Some(&location) = self.known.get(&pc) {
            return location;
        }
        let mapping = *self.mapping.get_or_insert_with(|| {
            // The kernel is in this range on every machine.
            profile.mappings.push(Mapping {
                start: 1 << 63,
                end: u64::MAX,
                offset: 0,
                file: "[kernel.kallsyms]".to_owned(),
                build_id: String::new(),
                symbolized: true,
            });
            profile.mappings.len() - 1
        });
        let lines = (self.names)(pc).into_iter().map(|Named { function, line }| {
            profile.functions.push(function);
            Line { function: profile.functions.len() - 1, line }
        });
        let lines = lines.collect();
        profile.locations.push(Location { mapping: Some(mapping), address: pc, lines });
        self.known.insert(pc, profile.locations.len() - 1);
        profile.locations.len() - 1
    }
}
