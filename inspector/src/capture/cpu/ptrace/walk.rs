//! Stack walk of a stopped thread by frame pointers, with its goroutine: as in `probe-ebpf/bpf/cpu.bpf.c`.

use symbols::addr::RuntimeAddr;

use super::super::source::{GoTarget, MAX_STACK, OnGoroutine};
use crate::arch::page_size;
use crate::memory::{Memory, Span};
use crate::stop::Registers;

/// Result of a stack walk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Walked {
    /// Return addresses, innermost first.
    pub(super) frames: Vec<u64>,
    /// True if the frames begin at the goroutine's call of C.
    pub(super) resumed_after_cgo: bool,
    pub(super) cut: bool,
    /// True if the goroutine's frames follow after the frame that left the goroutine's stack.
    pub(super) crossed: bool,
    pub(super) goroutine: Option<OnGoroutine>,
    /// Copy of the top of the stack.
    pub(super) stack: Vec<u8>,
}

/// Maximum number of frames; the same as in the BPF programs.
const MAX_FRAMES: usize = 512;
/// Size in bytes of each part of a deep stack that is read at once.
const WINDOW: u64 = 16 << 10;
/// Maximum number of parts of a deep stack that are read: the thread is held meanwhile.
const MAX_WINDOWS: usize = 64;
/// Maximum number of steps down. A stack grows down, so frame pointers move up. The stack that Go changes to
/// may lie below: at most once from a signal stack and once from the thread's stack. The stack of C that calls
/// back into Go may lie below too.
const MAX_TURNS: usize = 4;

pub(super) fn walk(registers: &Registers, go: &[GoTarget], memory: &dyn Memory) -> Walked {
    let mut walked = Walked::default();
    let mut bp = registers.fp;
    let on = find_in(registers, go, memory);
    if let Some(found) = on {
        walked.goroutine = Some(found.goroutine);
        if let Some((sp, saved)) = found.left_at {
            // The return address of the call of C is on top of the goroutine's stack.
            walked.resumed_after_cgo = true;
            walked.frames.extend(memory.word(RuntimeAddr(sp)).ok().filter(|&pc| pc != 0));
            bp = saved;
        }
    }
    let top = Part::read(memory, registers.sp, MAX_STACK.into());
    let mut windows = Windows { top, deeper: Part::default(), reads: 0 };
    let mut turns = 0;
    // Place where the goroutine's stack was left, until it is found.
    let mut leaving = on
        .filter(|found| found.on_another_stack)
        .and_then(|found| Some((found, go.get(found.goroutine.runtime)?)));
    loop {
        if bp < page_size() || !bp.is_multiple_of(8) {
            break;
        }
        let Some((next, back)) = windows.frame(bp, memory) else { break };
        if back == 0 {
            break;
        }
        if walked.frames.len() >= MAX_FRAMES {
            walked.cut = true;
            break;
        }
        walked.frames.push(back);
        if let Some((found, go)) = leaving
            && (is_in(go.morestack, back) || is_in(go.systemstack, back))
        {
            let Some(callers) = cross(found.curg, go, is_in(go.morestack, back), memory) else { break };
            walked.crossed = true;
            leaving = None;
            walked.frames.extend(callers.frames);
            bp = callers.bp;
            continue;
        }
        turns += usize::from(next < bp);
        if next == bp || turns > MAX_TURNS {
            break;
        }
        bp = next;
    }
    walked.cut |= windows.reads >= MAX_WINDOWS;
    walked.stack = windows.top.bytes;
    walked
}

fn is_in((start, end): (u64, u64), pc: u64) -> bool {
    (start..end).contains(&pc)
}

/// Callers of the function that left the goroutine's stack.
struct Callers {
    /// Return addresses, innermost first.
    frames: Vec<u64>,
    bp: u64,
}

/// Continues where a goroutine left its stack. The state of the goroutine is in its `sched` meanwhile.
///
/// The function that switches stacks has no frame of its own up to Go 1.20, and in `runtime.morestack`: the
/// return address to its caller is the top of the goroutine's stack. From Go 1.21 on `runtime.systemstack`
/// has a frame: the top of the stack is the frame pointer that it saved, and its own frame pointer points
/// there. If the stack has to grow, the function that called `runtime.morestack` has no frame yet either.
fn cross(curg: u64, go: &GoTarget, grows: bool, memory: &dyn Memory) -> Option<Callers> {
    let word = |at: u64| memory.word(RuntimeAddr(at)).ok().filter(|&word| word != 0);
    let saved = |offset: u32| word(curg.checked_add(offset.into())?);
    let function = if grows { Some(saved(go.g.sched_pc)?) } else { None };
    let sp = saved(go.g.sched_sp)?;
    let bp = saved(go.g.sched_bp).unwrap_or(0);
    let back = if bp == sp { None } else { Some(word(sp)?) };
    Some(Callers { frames: function.into_iter().chain(back).collect(), bp })
}

#[derive(Debug, Clone, Copy)]
struct FoundGoroutine {
    goroutine: OnGoroutine,
    /// Address of the goroutine's `g`.
    curg: u64,
    /// True if the thread is on its own stack or on the signal stack.
    on_another_stack: bool,
    /// Stack pointer and frame pointer of the goroutine, if it has called C.
    left_at: Option<(u64, u64)>,
    /// Start of the system stack of the thread, for functions that the goroutine calls.
    system_sp: u64,
}

/// Finds the goroutine in the runtime whose code runs. In C, finds it in the runtime that called C: among
/// runtimes that left a goroutine for the system stack, the last one, which is furthest down on that stack
/// (`runtime.cgocallback` notes the place).
fn find_in(registers: &Registers, go: &[GoTarget], memory: &dyn Memory) -> Option<FoundGoroutine> {
    let found = |(index, go): (usize, &GoTarget)| {
        let found = find_goroutine(registers, go, memory)?;
        Some(FoundGoroutine { goroutine: OnGoroutine { runtime: index, ..found.goroutine }, ..found })
    };
    let mut all = go.iter().enumerate();
    if let [_] = go {
        return all.next().and_then(found);
    }
    match all.clone().find(|(_, go)| go.has_code(registers.pc)) {
        Some(this) => found(this),
        None => {
            // The vDSO is called while the thread still has the goroutine.
            let begins =
                |found: &FoundGoroutine| if found.on_another_stack { found.system_sp } else { registers.sp };
            let outside = all.filter_map(found);
            let outside = outside.filter(|found| found.left_at.is_some() || !found.on_another_stack);
            outside.filter(|found| begins(found) >= registers.sp).min_by_key(begins)
        }
    }
}

fn find_goroutine(registers: &Registers, go: &GoTarget, memory: &dyn Memory) -> Option<FoundGoroutine> {
    let word = |base: u64, offset: u32| {
        memory.word(RuntimeAddr(base.checked_add(offset.into())?)).ok().filter(|&word| word != 0)
    };
    let place = registers.tls.checked_add_signed(go.tls_g).filter(|_| registers.tls != 0)?;
    let g = word(place, 0)?;
    let curg = word(word(g, go.g.m)?, go.m_curg)?;
    let goroutine = OnGoroutine {
        goid: word(curg, go.g.goid)?,
        labels: word(curg, go.g.labels).unwrap_or(0),
        runtime: 0,
    };
    let in_go = go.has_code(registers.pc);
    let left_at = (curg != g && !in_go)
        .then(|| Some((word(curg, go.g.sched_sp)?, word(curg, go.g.sched_bp).unwrap_or(0))))
        .flatten();
    Some(FoundGoroutine {
        goroutine,
        curg,
        on_another_stack: curg != g,
        left_at,
        system_sp: word(g, go.g.sched_sp).unwrap_or(0),
    })
}

/// Copies memory from an address on, up to the first unmapped page.
fn copy(memory: &dyn Memory, from: u64, length: u64) -> Vec<u8> {
    let Some(end) = from.checked_add(length) else { return Vec::new() };
    let page = page_size();
    let mut spans = Vec::new();
    let mut at = from;
    while at < end {
        let next = (at - at % page).checked_add(page).map_or(end, |page| page.min(end));
        spans.push(Span { addr: at, len: usize::try_from(next - at).unwrap_or(0) });
        at = next;
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut failed = Vec::new();
    if memory.read_spans(&spans, &mut bytes, &mut failed).is_err() {
        return Vec::new();
    }
    let good = failed.iter().min().copied().unwrap_or(spans.len());
    bytes.truncate(spans.iter().take(good).map(|span| span.len).sum());
    bytes
}

/// Parts of the stack that were read.
struct Windows {
    top: Part,
    deeper: Part,
    /// Number of reads of a deeper part.
    reads: usize,
}

impl Windows {
    /// Returns the two words at a frame pointer.
    fn frame(&mut self, bp: u64, memory: &dyn Memory) -> Option<(u64, u64)> {
        if let Some(words) = self.top.words(bp).or_else(|| self.deeper.words(bp)) {
            return Some(words);
        }
        if self.reads >= MAX_WINDOWS {
            return None;
        }
        self.reads += 1;
        self.deeper = Part::read(memory, bp, WINDOW);
        self.deeper.words(bp)
    }
}

#[derive(Default)]
struct Part {
    start: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn read(memory: &dyn Memory, start: u64, length: u64) -> Self {
        Part { start, bytes: copy(memory, start, length) }
    }

    fn words(&self, at: u64) -> Option<(u64, u64)> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let (first, rest) = self.bytes.get(from..)?.split_first_chunk::<8>()?;
        let second = rest.first_chunk::<8>()?;
        Some((u64::from_le_bytes(*first), u64::from_le_bytes(*second)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::cpu::source::GoOffsets;
    use crate::memory::MemoryError;

    /// Memory for tests: pages of words from an address on.
    #[derive(Debug, Clone)]
    struct Words(u64, Vec<u64>);

    fn words(mut words: Vec<u64>) -> Words {
        words.resize(words.len().next_multiple_of(512), 0);
        Words(BASE, words)
    }

    impl Memory for Words {
        fn another(&self) -> Box<dyn Memory> {
            Box::new(self.clone())
        }

        fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError> {
            for (i, byte) in buf.iter_mut().enumerate() {
                let at = addr.0.checked_add(i as u64).and_then(|at| at.checked_sub(self.0));
                let word = at.and_then(|at| self.1.get(usize::try_from(at / 8).unwrap()));
                let unmapped = MemoryError::Unmapped(addr);
                *byte = word.ok_or(unmapped)?.to_le_bytes()[usize::try_from(at.unwrap() % 8).unwrap()];
            }
            Ok(())
        }
    }

    const BASE: u64 = 0x10000;

    #[test]
    fn what_a_goroutine_did_when_it_left_its_stack() {
        let go = |morestack, systemstack| GoTarget {
            text: vec![(0x400, 0x1000)],
            morestack,
            systemstack,
            tls_g: -8,
            g: GoOffsets { m: 0, goid: 8, labels: 16, sched_pc: 24, sched_sp: 32, sched_bp: 40 },
            m_curg: 0,
        };
        // Layout, as word indexes: g0 at 64, its m at 80, the goroutine at 96; the thread's frame at 16 and
        // the goroutine's at 800.
        let at = |index: u64| BASE + 8 * index;
        let mut memory = vec![0; 1024];
        memory[2..4].copy_from_slice(&[at(4), 0x601]);
        memory[4..6].copy_from_slice(&[at(900), 0x501]);
        memory[64] = at(80);
        memory[80] = at(96);
        memory[96..102].copy_from_slice(&[at(80), 7, 0, 0x701, at(790), at(800)]);
        memory[790] = 0x702;
        memory[800..802].copy_from_slice(&[0, 0x703]);
        memory[900..902].copy_from_slice(&[0, 0x999]);
        memory[49] = at(64);
        let registers = Registers { tls: at(50), ..registers(BASE, at(2)) };
        let walked = |go: &GoTarget| walk(&registers, std::slice::from_ref(go), &words(memory.clone()));
        let grows = walked(&go((0x500, 0x510), (0, 0)));
        assert_eq!((grows.frames, grows.crossed), (vec![0x601, 0x501, 0x701, 0x702, 0x703], true));
        let works = walked(&go((0, 0), (0x500, 0x510)));
        assert_eq!((works.frames, works.crossed), (vec![0x601, 0x501, 0x702, 0x703], true));
        assert_eq!(works.goroutine.map(|g| g.goid), Some(7));
        let neither = walked(&go((0, 0), (0, 0)));
        assert_eq!((neither.frames, neither.crossed), (vec![0x601, 0x501, 0x999], false));
        // `runtime.systemstack` with its own frame.
        memory[96 + 4] = at(790);
        memory[96 + 5] = at(790);
        memory[790..792].copy_from_slice(&[at(800), 0x702]);
        let framed = walk(&registers, &[go((0, 0), (0x500, 0x510))], &words(memory.clone()));
        assert_eq!((framed.frames, framed.crossed), (vec![0x601, 0x501, 0x702, 0x703], true));
    }

    fn registers(sp: u64, fp: u64) -> Registers {
        Registers { pc: 0x400, sp, fp, ..Registers::default() }
    }

    #[test]
    fn a_chain_of_frames() {
        let mut memory = vec![0; 4096];
        memory[2..4].copy_from_slice(&[BASE + 8 * 3000, 0x501]);
        memory[3000..3002].copy_from_slice(&[0, 0x502]);
        let walked = walk(&registers(BASE, BASE + 16), &[], &words(memory));
        assert_eq!(walked.frames, [0x501, 0x502]);
        assert_eq!((walked.stack.len(), walked.cut), (16 << 10, false));
        assert_eq!(walked.stack[24..26], [0x01, 0x05]);
    }

    #[test]
    fn chains_that_go_wrong() {
        // Frame pointers that lead to themselves, in a circle, and out of memory.
        let itself = walk(&registers(BASE, BASE), &[], &words(vec![BASE, 0x501]));
        assert_eq!(itself.frames, [0x501]);
        let round = walk(&registers(BASE, BASE), &[], &words(vec![BASE + 16, 1, BASE, 2]));
        assert_eq!((round.frames.len(), round.cut), (2 * MAX_TURNS + 2, false));
        for bp in [0, 7, u64::MAX, u64::MAX - 7, BASE + 4096 - 8] {
            let lost = walk(&registers(u64::MAX - 3, bp), &[], &words(vec![1]));
            assert_eq!((lost.frames.len(), lost.stack.len()), (0, 0));
        }
    }
}
