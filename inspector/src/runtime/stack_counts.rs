//! Counting profiles: goroutines by stacks, and threads by the stacks that created them (`runtime/pprof`:
//! `goroutine`, `threadcreate`; Go 1.18–1.27).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use symbols::addr::RuntimeAddr;

use super::code::CodeCache;
use super::contradiction::{self, Contradiction};
use super::record::RecordError;
use super::snapshot::stacks::Shape;
use super::snapshot::{Details, Frames, Snapshot};
use super::symbolize::Symbolizer;
use super::unwind::caller_was_interrupted;
use super::view::View;
use crate::memory::Memory;
use crate::profile::{Label, LabelValue, Mapping, Profile, Sample, ValueType};

/// Maximum number of frames of a goroutine, if the process does not report it (`debug.profstackdepth`, from
/// Go 1.23).
const DEPTH: usize = 128;
/// Maximum value of `debug.profstackdepth` (`maxProfStackDepth`).
const MAX_DEPTH: usize = 1024;
/// Maximum number of frames before Go 1.23 (`runtime.StackRecord`).
const OLD_DEPTH: usize = 32;

/// Row of a profile: stack entries, labels, and the number of goroutines or threads with both.
type Row = ((Vec<u64>, Vec<Label>), i64);

/// Number of entries in `m.createstack`.
const CREATE_DEPTH: usize = 32;

/// Goroutine profile, and its completeness.
#[derive(Debug, Clone, PartialEq)]
pub struct GoroutineProfile {
    /// Profile of goroutines by stack.
    pub profile: Profile,
    /// Number of goroutines in the profile.
    pub goroutines: usize,
    /// Number of goroutines missing from the profile because their frames could not be read.
    pub unavailable: usize,
}

/// Builds the profile `goroutine` of a snapshot taken at `time`: each stack with each set of labels, and the
/// number of goroutines (`goroutineProfileWithLabels`, `saveg`, `printCountProfile`).
///
/// As in the runtime, system goroutines are excluded, and stacks are cut at the runtime's maximum number of
/// frames.
pub fn goroutine_profile(
    view: &View,
    memory: &dyn Memory,
    snapshot: &Snapshot,
    mappings: Vec<Mapping>,
    time: SystemTime,
) -> GoroutineProfile {
    let depth = depth(view, memory);
    let mut code = CodeCache::new(&view.modules);
    let mut symbolizer = Symbolizer::new(view, mappings);
    // Thousands of goroutines have the same stack.
    let mut by_shape: HashMap<(u32, Vec<Label>), i64> = HashMap::new();
    let (mut goroutines, mut unavailable, mut unconfirmed) = (0, 0, 0);
    for slot in &snapshot.slots {
        if slot.g.is_dead() || view.is_system_goroutine(&slot.g, snapshot.finalizer_runs_user_code) {
            continue;
        }
        let stack = match &slot.frames {
            Frames::Unwanted => continue,
            Frames::Unavailable(_) => {
                unavailable += 1;
                continue;
            }
            Frames::Walked(stack) => stack,
        };
        goroutines += 1;
        unconfirmed += usize::from(!slot.confirmed);
        *by_shape.entry((stack.shape, labels(slot.details.as_deref()))).or_default() += 1;
    }
    // Two stacks may differ only beyond the last frame that is kept.
    let mut rows: HashMap<(Vec<u64>, Vec<Label>), i64> = HashMap::new();
    for ((shape, labels), count) in by_shape {
        let Some(shape) = snapshot.shapes.get(shape) else { continue };
        let entries = symbolizer.expand(&returned(view, &mut code, shape, depth), depth);
        *rows.entry((entries, labels)).or_default() += count;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let mut comments = Vec::new();
    if unavailable > 0 {
        comments.push(format!("{unavailable} goroutines are missing: their frames could not be read"));
    }
    if unconfirmed > 0 {
        comments
            .push(format!("{unconfirmed} goroutines ran while they were read: their stacks are not certain"));
    }
    let profile = counted("goroutine", rows, symbolizer, time, comments);
    GoroutineProfile { profile, goroutines, unavailable }
}

/// Profile of the creation of threads, and doubts about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadProfile {
    /// Profile of threads by the stack that created them.
    pub profile: Profile,
    /// Contradiction that remained after all readings.
    pub doubt: Option<Contradiction>,
}

/// Maximum number of readings of the list of threads if it contradicts the scheduler's count.
const TRIES: u32 = 6;
/// Delay between readings. A starting or ending thread is both counted and listed in less time.
const BETWEEN: Duration = Duration::from_millis(10);

/// Builds the profile `threadcreate`: the stacks that created threads, and the number of threads of each
/// (`runtime.ThreadCreateProfile`). Most threads have no such stack.
///
/// From Go 1.23, `runtime/pprof` pads each of these stacks with places outside of any code; this profile
/// omits the padding.
///
/// # Errors
/// Returns a [`RecordError`] if the struct of a thread cannot be read or is implausible.
pub fn thread_profile(
    view: &View,
    memory: &dyn Memory,
    mappings: Vec<Mapping>,
) -> Result<ThreadProfile, RecordError> {
    let place = created_by(view)?;
    let count = ThreadCount::find(view);
    let mut tries = 0;
    let (time, rows, doubt) = loop {
        tries += 1;
        let time = SystemTime::now();
        let before = count.as_ref().and_then(|count| count.read(memory));
        let rows = created(view, memory, place);
        let after = count.as_ref().and_then(|count| count.read(memory));
        let doubt = match (&rows, before.zip(after)) {
            (Ok(rows), Some((before, after))) => {
                let listed = rows.iter().map(|(_, count)| count.unsigned_abs()).sum();
                contradiction::of_threads(before, listed, after)
            }
            _ => None,
        };
        // Another use may overwrite the struct of a thread that ends meanwhile.
        if (rows.is_ok() && doubt.is_none()) || tries >= TRIES {
            break (time, rows?, doubt);
        }
        std::thread::sleep(BETWEEN);
    };
    let comments = doubt.iter().map(|doubt| format!("this is doubtful: {}", doubt.why)).collect();
    let profile = counted("threadcreate", rows, Symbolizer::new(view, mappings), time, comments);
    Ok(ThreadProfile { profile, doubt })
}

/// Returns the stacks that created threads, and the number of threads of each.
fn created(view: &View, memory: &dyn Memory, place: u64) -> Result<Vec<Row>, RecordError> {
    let mut counts: HashMap<(Vec<u64>, Vec<Label>), i64> = HashMap::new();
    for m in view.read_ms(memory) {
        let mut words = [0; 8 * CREATE_DEPTH];
        memory.read(RuntimeAddr(m.addr).plus(place), &mut words)?;
        let words = words.chunks_exact(8).filter_map(|w| w.try_into().ok().map(u64::from_le_bytes));
        let stack: Vec<u64> = words.take_while(|&pc| pc != 0).collect();
        // A real stack has only known functions, and starts in the runtime, because only the runtime creates
        // threads. Anything else means that the layout is wrong.
        let name = |pc: u64| view.modules.lookup(pc.saturating_sub(1)).map(|place| place.func.name());
        let by_runtime = |pc: &u64| name(*pc).is_some_and(|name| name.starts_with(b"runtime."));
        if stack.iter().any(|&pc| name(pc).is_none()) || !stack.first().is_none_or(by_runtime) {
            return Err(no_stacks());
        }
        *counts.entry((stack, Vec::new())).or_default() += 1;
    }
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    Ok(rows)
}

/// Number of threads by the scheduler's count (`runtime.mcount`).
struct ThreadCount {
    /// Address of `sched.mnext`: the id of the next thread.
    next: RuntimeAddr,
    /// Address of `sched.nmfreed`: the number of ended threads.
    freed: RuntimeAddr,
}

impl ThreadCount {
    /// Finds the scheduler's variables. Returns `None` if they are not found; nothing can be compared then.
    fn find(view: &View) -> Option<Self> {
        let at = view.locate(&["runtime.sched"]).at("runtime.sched")?;
        let field = |name| {
            let field = view.table.field("runtime.sched", name).filter(|field| field.size == 8)?;
            Some(at.plus(field.offset))
        };
        Some(ThreadCount { next: field("mnext")?, freed: field("nmfreed")? })
    }

    fn read(&self, memory: &dyn Memory) -> Option<u64> {
        let (next, freed) = (memory.word(self.next).ok()?, memory.word(self.freed).ok()?);
        Some(next.wrapping_sub(freed))
    }
}

/// Returns the offset of `createstack` in an m. If the list of ms is linked at another offset than in the
/// layout (of a neighbouring release), fields shortly after the link have moved with it.
fn created_by(view: &View) -> Result<u64, RecordError> {
    view.confirm_layouts().map_err(|_| no_stacks())?;
    let field = |name| view.table.field("runtime.m", name).ok_or_else(no_stacks);
    let (stack, link) = (field("createstack")?, field("alllink")?);
    if stack.size != 8 * CREATE_DEPTH as u64 {
        return Err(no_stacks());
    }
    let behind = stack.offset.checked_sub(link.offset).ok_or_else(no_stacks)?;
    Ok(view.m.alllink as u64 + behind)
}

fn no_stacks() -> RecordError {
    RecordError::NoField { of: "runtime.m".to_owned(), field: "createstack".to_owned() }
}

fn counted(
    kind: &str,
    rows: Vec<Row>,
    mut symbolizer: Symbolizer<'_>,
    time: SystemTime,
    comments: Vec<String>,
) -> Profile {
    let sample = |((stack, labels), count): Row| Sample {
        stack: symbolizer.logical(&stack),
        values: vec![count],
        labels,
    };
    let samples = rows.into_iter().map(sample).collect();
    let symbols = symbolizer.finish();
    Profile {
        sample_types: vec![ValueType::new(kind, "count")],
        default_sample_type: 0,
        period: Some((ValueType::new(kind, "count"), 1)),
        time,
        duration: None,
        mappings: symbols.mappings,
        locations: symbols.locations,
        functions: symbols.functions,
        samples,
        comments,
    }
}

/// Returns the program counters of an unwound stack as if all were return addresses: one more than the
/// address of the instruction (`unwinder.symPC`).
fn returned(view: &View, code: &mut CodeCache<'_>, shape: &Shape, depth: usize) -> Vec<u64> {
    let mut interrupted = shape.interrupted;
    // Each frame has at least one entry, except frames of wrappers.
    let wanted = shape.pcs.iter().take(depth.saturating_mul(2));
    wanted
        .map(|&pc| {
            let info = code.get(pc);
            let at_entry = info.is_some_and(|info| info.entry == pc);
            let entry = if interrupted || at_entry { pc.wrapping_add(1) } else { pc };
            interrupted = info.is_some_and(|info| caller_was_interrupted(info.special, view.release));
            entry
        })
        .collect()
}

fn depth(view: &View, memory: &dyn Memory) -> usize {
    if !view.release.has_profile_depth() {
        return OLD_DEPTH;
    }
    let read = || {
        view.confirm_layouts().ok()?;
        let at = view.locate(&["runtime.debug"]).at("runtime.debug")?;
        let place = view.table.field("runtime.debug", "profstackdepth").filter(|f| f.size == 4)?;
        let mut word = [0; 4];
        memory.read(at.plus(place.offset), &mut word).ok()?;
        usize::try_from(i32::from_le_bytes(word)).ok().filter(|depth| *depth <= MAX_DEPTH)
    };
    read().unwrap_or(DEPTH)
}

fn labels(details: Option<&Details>) -> Vec<Label> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let labels = details.map_or(&[][..], |d| &d.labels);
    labels.iter().map(|(key, value)| Label { key: text(key), value: LabelValue::Text(text(value)) }).collect()
}
