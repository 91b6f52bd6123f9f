//! Batched reading and unwinding of many stacks, which keeps frames and no stack bytes.

use symbols::addr::RuntimeAddr;

use crate::arch::Machine;
use crate::memory::{Memory, MemoryError, Span};
use crate::runtime::code::{AddressMap, CodeCache};
use crate::runtime::unwind::{End, StackWords, Start, Walk, walk};

/// Maximum number of bytes first read of each stack. Nearly all stacks are smaller.
const FIRST_READ: u64 = 8 << 10;
/// Number of bytes per further read of a deep stack.
const NEXT_READ: u64 = 64 << 10;
/// Maximum number of bytes read by one batch. `BATCH_STACKS` is the maximum number of stacks.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_STACKS: usize = 1024;

/// Unwound stack in stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Index in [`Shapes`] of the program counters.
    pub shape: u32,
    /// Stack pointer of the innermost frame.
    pub sp: u64,
    /// Argument words of the frames, in order.
    pub args: Box<[u64]>,
    /// Frames without stored argument words: see [`Walk::skipped`].
    pub skipped: std::ops::Range<usize>,
    /// Reason why the unwinding ended.
    pub end: End,
}

/// Program counters of stacks. Each list is stored once, because thousands of goroutines wait at the same
/// place.
#[derive(Debug, Default)]
pub struct Shapes {
    list: Vec<Shape>,
    by_hash: AddressMap<Vec<u32>>,
}

/// List of program counters, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Return addresses, except for an interrupted innermost frame and callers of injected calls.
    pub pcs: Box<[u64]>,
    /// True if the first pc is the place where a thread was interrupted.
    pub interrupted: bool,
}

impl Shapes {
    /// Returns the shape at `index`.
    pub fn get(&self, index: u32) -> Option<&Shape> {
        self.list.get(index as usize)
    }

    /// Returns the number of shapes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there are no shapes.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Stores an unwound stack.
    pub fn keep(&mut self, walk: &Walk, end: End) -> Stack {
        let shape = self.index_of(&walk.pcs, walk.interrupted);
        Stack { shape, sp: walk.sp, args: walk.args.as_slice().into(), skipped: walk.skipped.clone(), end }
    }

    /// Adopts the shapes of another list. Calls `renamed` with a function from indices in the other list to
    /// indices in this list.
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

/// Unwinder of stacks in a process's memory.
#[derive(Debug)]
pub struct StackWalker<'m> {
    machine: &'static dyn Machine,
    code: CodeCache<'m>,
    walk: Walk,
    buffer: Vec<u8>,
    /// Shapes of all unwound stacks, shared with the printer.
    pub shapes: Shapes,
}

impl<'m> StackWalker<'m> {
    /// Creates a walker with empty shapes.
    pub fn new(machine: &'static dyn Machine, code: CodeCache<'m>) -> Self {
        StackWalker { machine, code, walk: Walk::default(), buffer: Vec::new(), shapes: Shapes::default() }
    }

    /// Cache of facts about instructions.
    pub fn code(&mut self) -> &mut CodeCache<'m> {
        &mut self.code
    }

    /// Rules of the machine.
    pub fn machine(&self) -> &'static dyn Machine {
        self.machine
    }

    /// Unwinds the stack of each of `starts`. Calls `each` with the given index and the result.
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

    /// Unwinds one stack directly from memory.
    pub fn walk_one(&mut self, memory: &dyn Memory, start: Start) -> Stack {
        self.walk_window(memory, start, &[])
    }

    /// Unwinds one stack. `first` is a copy of its part from the stack pointer on.
    pub fn walk_window(&mut self, memory: &dyn Memory, start: Start, first: &[u8]) -> Stack {
        let mut window =
            Window { memory, first_at: start.sp, first, more_at: 0, more: Vec::new(), hi: start.hi };
        let end = walk(self.machine, &mut self.code, &mut window, start, &mut self.walk);
        self.shapes.keep(&self.walk, end)
    }
}

/// Returns the number of bytes first read of a stack.
pub fn first_read(start: &Start) -> usize {
    start.hi.saturating_sub(start.sp).min(FIRST_READ) as usize
}

/// Window on a stack. Its lower part was read together with other stacks; the rest is read piece by piece
/// during the unwinding.
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
