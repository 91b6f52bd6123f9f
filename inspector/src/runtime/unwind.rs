//! Walking a goroutine's stack by frame sizes (`runtime/traceback.go`: `unwinder`, before Go 1.21
//! `gentraceback`). A pure function over stack words: where they come from is the caller's business.

use std::collections::VecDeque;
use std::ops::Range;

use super::code::{CodeCache, Special};
use super::release::GoRelease;
use crate::arch::Machine;

/// Where the walk reads the stack.
pub trait StackWords {
    /// The word at `addr`, `None` where it is not part of the stack or cannot be read.
    fn word(&mut self, addr: u64) -> Option<u64>;
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// The stack's upper end; no frame reaches beyond.
    pub hi: u64,
    /// The pc is where a thread was interrupted, not where a call returns to.
    pub interrupted: bool,
    /// The registers were saved on entry to a system call: a stack switch of the innermost function came later.
    pub syscall: bool,
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the outermost function: complete.
    Complete,
    /// At a function that switches stacks: what called it is not on this stack. Go's own traceback ends there too.
    StackSwitch,
    /// The pc to begin with is not in Go code.
    UnknownPc(u64),
    /// A return address that is not in Go code, and the function that has it.
    UnexpectedReturn {
        /// Entry of the function whose return address it is.
        entry: u64,
        /// The return address.
        ret: u64,
    },
    /// A return address of 0: the stack's bottom without the usual outermost function.
    ZeroReturn,
    /// Code without frame sizes (foreign code linked into the text).
    NoFrameInfo(u64),
    /// A frame beyond the stack's end, or a word that could not be read.
    OutOfStack(u64),
    /// More frames than any stack holds.
    TooManyFrames,
}

impl End {
    /// Whether all frames up to the goroutine's first function were found.
    pub fn is_complete(self) -> bool {
        matches!(self, End::Complete)
    }
}

/// A walked stack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walk {
    /// Program counters of the physical frames, innermost first: return addresses but for the first one and
    /// for callers of injected calls.
    pub pcs: Vec<u64>,
    /// The stack pointer of the innermost frame; the others follow from the frame sizes.
    pub sp: u64,
    /// The argument words of the frames that print any, in order of the frames.
    pub args: Vec<u64>,
    /// Frames whose argument words were not kept: the middle of a stack so deep that nobody prints it.
    pub skipped: Range<usize>,
    /// Argument words of the last frames of a deep stack, until it ends.
    tail: VecDeque<Vec<u64>>,
    /// Whether the first pc is where a thread was interrupted.
    pub interrupted: bool,
}

/// A gigabyte of stack, Go's limit, in smallest frames would be more; real recursions are not.
pub const MAX_FRAMES: usize = 4 << 20;

/// Of a deep stack, the argument words of so many frames are kept at each end. A traceback prints 50.
const KEEP_ARGS: usize = 2048;

/// Walks the stack from `start`. `walk` is overwritten.
///
/// Each frame's end lies above the one before, so the walk ends with the stack at the latest.
pub fn walk(
    machine: &dyn Machine,
    code: &mut CodeCache<'_>,
    stack: &mut dyn StackWords,
    start: Start,
    walk: &mut Walk,
) -> End {
    walk.pcs.clear();
    walk.args.clear();
    walk.skipped = KEEP_ARGS..KEEP_ARGS;
    walk.tail.clear();
    let end = frames(machine, code, stack, start, walk);
    let Walk { args, tail, .. } = walk;
    tail.iter().for_each(|frame| args.extend_from_slice(frame));
    end
}

impl Walk {
    /// Keeps the argument words of the frame that was found last.
    fn keep_args(&mut self, words: impl Iterator<Item = u64>) {
        if self.pcs.len() <= KEEP_ARGS {
            self.args.extend(words);
            return;
        }
        let mut frame = if self.tail.len() < KEEP_ARGS {
            Vec::new()
        } else {
            self.skipped.end += 1;
            self.tail.pop_front().unwrap_or_default()
        };
        frame.clear();
        frame.extend(words);
        self.tail.push_back(frame);
    }
}

fn frames(
    machine: &dyn Machine,
    code: &mut CodeCache<'_>,
    stack: &mut dyn StackWords,
    start: Start,
    walk: &mut Walk,
) -> End {
    let Start { mut pc, mut sp, hi, interrupted, syscall } = start;
    if pc == 0 {
        // A call of a nil function: begin with the caller.
        match stack.word(sp) {
            Some(ret) => pc = ret,
            None => return End::OutOfStack(sp),
        }
        sp = sp.wrapping_add(8);
    }
    walk.sp = sp;
    walk.interrupted = interrupted && pc == start.pc;
    let mut caller_of: Option<u64> = None;
    loop {
        let Some(info) = code.get(pc) else {
            return match caller_of {
                None => End::UnknownPc(pc),
                Some(entry) => End::UnexpectedReturn { entry, ret: pc },
            };
        };
        let Some(delta) = info.sp_delta else { return End::NoFrameInfo(pc) };
        let innermost = caller_of.is_none();
        let Some(fp) = machine.frame_end(sp, delta).filter(|&fp| fp > sp && fp <= hi) else {
            return End::OutOfStack(sp);
        };
        walk.pcs.push(pc);
        let args = machine.args(fp);
        // The arguments of the outermost frames may lie at the very end of the stack, or beyond.
        let words = info.arg_slots.iter();
        walk.keep_args(
            words.map(|&(offset, size)| slot(stack, args.wrapping_add(u64::from(offset)), size, hi)),
        );
        if info.top_frame {
            return End::Complete;
        }
        if info.writes_sp && !(innermost && syscall) {
            return End::StackSwitch;
        }
        let Some(ret) = stack.word(machine.return_slot(fp)) else { return End::OutOfStack(fp) };
        if ret == 0 {
            return End::ZeroReturn;
        }
        if walk.pcs.len() >= MAX_FRAMES {
            return End::TooManyFrames;
        }
        caller_of = Some(info.entry);
        pc = ret;
        sp = fp;
    }
}

/// The little-endian value of `size` bytes at `addr`, which need not be aligned to a word.
fn slot(stack: &mut dyn StackWords, addr: u64, size: u8, hi: u64) -> u64 {
    let base = addr & !7;
    let shift = (addr & 7) * 8;
    let low = if base < hi { stack.word(base).unwrap_or(0) } else { 0 };
    let mut value = low >> shift;
    if shift != 0 && base.wrapping_add(8) < hi && u64::from(size) * 8 + shift > 64 {
        value |= stack.word(base.wrapping_add(8)).unwrap_or(0) << (64 - shift);
    }
    if size < 8 { value & ((1 << (8 * u32::from(size))) - 1) } else { value }
}

/// Whether the frame at `pc`, called by the one at `callee`, was interrupted there rather than calling: a fault
/// or an injected preemption (`unwinder.next`; before Go 1.21 only a fault counted).
pub fn caller_was_interrupted(callee: Special, release: GoRelease) -> bool {
    match callee {
        Special::SigPanic => true,
        Special::Injected => release.injects_calls_as_interrupts(),
        _ => false,
    }
}

/// A copy of a part of a stack, from its address on.
#[derive(Debug, Clone, Copy)]
pub struct StackCopy<'b> {
    /// Where the copy begins.
    pub start: u64,
    /// Its bytes.
    pub bytes: &'b [u8],
}

impl StackWords for StackCopy<'_> {
    fn word(&mut self, addr: u64) -> Option<u64> {
        let at = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        Some(u64::from_le_bytes(self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}
