//! Reading many stacks at once and walking them as they come, so that frames are kept and not stack bytes.

use symbols::addr::RuntimeAddr;

use crate::arch::Machine;
use crate::memory::{Memory, MemoryError, Span};
use crate::runtime::code::{AddressMap, CodeCache};
use crate::runtime::unwind::{End, StackWords, Start, Walk, walk};

/// What is read of each stack at first; nearly all are smaller.
const FIRST_READ: u64 = 8 << 10;
/// What is read further up a deep stack at a time.
const NEXT_READ: u64 = 64 << 10;
/// Stacks read by one batch.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_STACKS: usize = 1024;

/// A walked stack as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its program counters, by their index in [`Shapes`].
    pub shape: u32,
    /// Stack pointer of the innermost frame.
    pub sp: u64,
    /// Argument words of the frames, in order.
    pub args: Box<[u64]>,
    /// Frames whose argument words were not kept: see [`Walk::skipped`].
    pub skipped: std::ops::Range<usize>,
    /// Why the walk ended.
    pub end: End,
}

/// Program counters of stacks, each list kept once: thousands of goroutines wait at the same place.
#[derive(Debug, Default)]
pub struct Shapes {
    list: Vec<Shape>,
    by_hash: AddressMap<Vec<u32>>,
}

/// A list of program counters, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Return addresses but for an interrupted innermost frame and callers of injected calls.
    pub pcs: Box<[u64]>,
    /// The first pc is where a thread was interrupted.
    pub interrupted: bool,
}

impl Shapes {
    /// The shape at `index`.
    pub fn get(&self, index: u32) -> Option<&Shape> {
        self.list.get(index as usize)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Keeps a walk.
    pub fn keep(&mut self, walk: &Walk, end: End) -> Stack {
        let shape = self.index_of(&walk.pcs, walk.interrupted);
        Stack { shape, sp: walk.sp, args: walk.args.as_slice().into(), skipped: walk.skipped.clone(), end }
    }

    /// Takes over the shapes of another list, and has `renamed` give the stacks that refer to it the indices that
    /// these have here.
    pub fn adopt(&mut self, others: Shapes, renamed: impl FnOnce(&dyn Fn(u32) -> u32)) {
        let here: Vec<u32> = others.list.iter().map(|s| self.index_of(&s.pcs, s.interrupted)).collect();
        renamed(&|there| here.get(there as usize).copied().unwrap_or(u32::MAX));
    }

    fn index_of(&mut self, pcs: &[u64], interrupted: bool) -> u32 {
        use std::hash::Hasher as _;
        let mut hasher = crate::runtime::code::AddressHasher::default();
        pcs.iter().for_each(|&pc| hasher.write_u64(pc));
        let candidates = self.by_hash.entry(hasher.finish()).or_default();
        let same = |&&i: &&u32| {
            self.list.get(i as usize).is_some_and(|s| s.interrupted == interrupted && *s.pcs == *pcs)
        };
        match candidates.iter().find(same) {
            Some(&index) => index,
            None => {
                let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
                self.list.push(Shape { pcs: pcs.into(), interrupted });
                candidates.push(index);
                index
            }
        }
    }
}

/// Walks stacks out of a process's memory.
#[derive(Debug)]
pub struct StackWalker<'m> {
    machine: &'static dyn Machine,
    code: CodeCache<'m>,
    walk: Walk,
    buffer: Vec<u8>,
    /// What was walked, to be shared with the printer.
    pub shapes: Shapes,
}

impl<'m> StackWalker<'m> {
    /// A walker with nothing known yet.
    pub fn new(machine: &'static dyn Machine, code: CodeCache<'m>) -> Self {
        StackWalker { machine, code, walk: Walk::default(), buffer: Vec::new(), shapes: Shapes::default() }
    }

    /// What it knows about instructions.
    pub fn code(&mut self) -> &mut CodeCache<'m> {
        &mut self.code
    }

    /// The machine's rules.
    pub fn machine(&self) -> &'static dyn Machine {
        self.machine
    }

    /// Walks each of `starts` and hands the result out with the index it came with.
    pub fn walk_many(
        &mut self,
        memory: &dyn Memory,
        starts: &[(usize, Start)],
        mut each: impl FnMut(usize, Stack),
    ) -> Result<(), MemoryError> {
        let mut next = 0;
        let mut spans = Vec::new();
        let mut failed = Vec::new();
        while next < starts.len() {
            spans.clear();
            failed.clear();
            let mut total = 0;
            for (_, start) in starts[next..].iter().take(BATCH_STACKS) {
                let len = first_read(start);
                if total + len > BATCH_BYTES {
                    break;
                }
                spans.push(Span { addr: start.sp, len });
                total += len;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(total.max(buffer.len()), 0);
            memory.read_spans(&spans, &mut buffer[..total], &mut failed)?;
            let mut at = 0;
            for (i, span) in spans.iter().enumerate() {
                let (index, start) = starts[next + i];
                let first = if failed.contains(&i) { &[][..] } else { &buffer[at..at + span.len] };
                at += span.len;
                let stack = self.walk_window(memory, start, first);
                each(index, stack);
            }
            next += spans.len().max(1);
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Walks one stack right out of memory.
    pub fn walk_one(&mut self, memory: &dyn Memory, start: Start) -> Stack {
        self.walk_window(memory, start, &[])
    }

    /// Walks one stack of which `first` is a copy from its stack pointer on.
    pub fn walk_window(&mut self, memory: &dyn Memory, start: Start, first: &[u8]) -> Stack {
        let mut window =
            Window { memory, first_at: start.sp, first, more_at: 0, more: Vec::new(), hi: start.hi };
        let end = walk(self.machine, &mut self.code, &mut window, start, &mut self.walk);
        self.shapes.keep(&self.walk, end)
    }
}

/// How much of a stack is read at first.
pub fn first_read(start: &Start) -> usize {
    start.hi.saturating_sub(start.sp).min(FIRST_READ) as usize
}

/// A stack of which the lower part was read with others, and the rest piece by piece as the walk gets there.
struct Window<'a> {
    memory: &'a dyn Memory,
    first_at: u64,
    first: &'a [u8],
    more_at: u64,
    more: Vec<u8>,
    hi: u64,
}

fn word_in(bytes: &[u8], start: u64, addr: u64) -> Option<u64> {
    let at = usize::try_from(addr.checked_sub(start)?).ok()?;
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl StackWords for Window<'_> {
    fn word(&mut self, addr: u64) -> Option<u64> {
        if let Some(word) = word_in(self.first, self.first_at, addr) {
            return Some(word);
        }
        if let Some(word) = word_in(&self.more, self.more_at, addr) {
            return Some(word);
        }
        if addr < self.first_at || addr.checked_add(8)? > self.hi {
            return None;
        }
        let len = (self.hi - addr).min(NEXT_READ) as usize;
        self.more.resize(len, 0);
        self.more_at = addr;
        if self.memory.read(RuntimeAddr(addr), &mut self.more).is_err() {
            self.more.clear();
            return None;
        }
        word_in(&self.more, addr, addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adopted_shapes_keep_what_they_stand_for() {
        let (mut ours, mut theirs) = (Shapes::default(), Shapes::default());
        let a = ours.index_of(&[1, 2], false);
        let there =
            [theirs.index_of(&[3], false), theirs.index_of(&[1, 2], false), theirs.index_of(&[1, 2], true)];
        let mut here = Vec::new();
        ours.adopt(theirs, |rename| here = there.iter().map(|&i| rename(i)).collect());
        assert_eq!(here[1], a);
        let pcs = |i: u32| ours.get(i).map(|s| (s.pcs.to_vec(), s.interrupted));
        assert_eq!(pcs(here[0]), Some((vec![3], false)));
        assert_eq!(pcs(here[2]), Some((vec![1, 2], true)));
        assert_eq!(ours.len(), 3);
    }
}
