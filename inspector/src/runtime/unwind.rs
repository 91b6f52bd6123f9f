//! Unwinding of a goroutine's stack by frame sizes (`runtime/traceback.go`: `unwinder`, before Go 1.21
//! `gentraceback`). A pure function over stack words; the caller supplies the words.

use std::collections::VecDeque;
use std::ops::Range;

use super::code::{CodeCache, Special};
use super::release::GoRelease;
use crate::arch::Machine;

/// Source of stack words.
pub trait StackWords {
    /// Returns the word at `addr`, `None` if it is outside of the stack or unreadable.
    fn word(&mut self, addr: u64) -> Option<u64>;
}

/// Start point of an unwinding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Upper end of the stack; no frame reaches beyond it.
    pub hi: u64,
    /// True if the pc is the place where a thread was interrupted, and not a return address.
    pub interrupted: bool,
    /// True if the registers were saved on entry to a system call, before any stack switch by the innermost
    /// function.
    pub syscall: bool,
}

/// Reason why an unwinding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Outermost function reached: the stack is complete.
    Complete,
    /// Function that switches stacks. Its caller is not on this stack. Go's own traceback ends there too.
    StackSwitch,
    /// The first pc is not in Go code.
    UnknownPc(u64),
    /// Return address outside of Go code.
    UnexpectedReturn {
        /// Entry of the function with this return address.
        entry: u64,
        /// Unexpected return address.
        ret: u64,
    },
    /// Return address of 0: bottom of the stack without the usual outermost function.
    ZeroReturn,
    /// Code without frame sizes (foreign code linked into the text).
    NoFrameInfo(u64),
    /// Frame beyond the end of the stack, or an unreadable word.
    OutOfStack(u64),
    /// More frames than any stack holds.
    TooManyFrames,
}

impl End {
    /// Returns true if all frames up to the goroutine's first function were found.
    pub fn is_complete(self) -> bool {
        matches!(self, End::Complete)
    }
}

/// Unwound stack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walk {
    /// Program counters of the physical frames, innermost first. They are return addresses, except for the
    /// first one and for callers of injected calls.
    pub pcs: Vec<u64>,
    /// Stack pointer of the innermost frame; those of the others follow from the frame sizes.
    pub sp: u64,
    /// Argument words of all frames that print any, in the order of the frames.
    pub args: Vec<u64>,
    /// Frames without stored argument words: the middle of a very deep stack, which no traceback prints.
    pub skipped: Range<usize>,
    /// Argument words of the last frames of a deep stack, kept during the unwinding.
    tail: VecDeque<Vec<u64>>,
    /// True if the first pc is the place where a thread was interrupted.
    pub interrupted: bool,
}

/// Maximum number of frames. A gigabyte of stack, Go's limit, could hold more of the smallest frames, but
/// real recursions do not.
pub const MAX_FRAMES: usize = 4 << 20;

/// Number of frames at each end of a deep stack whose argument words are kept. A traceback prints 50.
const KEEP_ARGS: usize = 2048;

/// Unwinds the stack from `start`. Overwrites `walk`.
///
/// The end of each frame lies above the previous one, so the unwinding ends at the latest with the stack.
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
    /// Stores the argument words of the frame found last.
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
        // Call of a nil function: starts with the caller.
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
        // Arguments of the outermost frames may lie at the very end of the stack, or beyond it.
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

/// Returns the little-endian value of `size` bytes at `addr`, which may be unaligned.
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

/// Returns true if the caller of `callee` was interrupted at its pc, rather than calling: a fault or an
/// injected preemption (`unwinder.next`; before Go 1.21 only a fault counted).
pub fn caller_was_interrupted(callee: Special, release: GoRelease) -> bool {
    match callee {
        Special::SigPanic => true,
        Special::Injected => release.injects_calls_as_interrupts(),
        _ => false,
    }
}

/// Copy of a part of a stack.
#[derive(Debug, Clone, Copy)]
pub struct StackCopy<'b> {
    /// Address of the first byte of the copy.
    pub start: u64,
    /// Bytes of the copy.
    pub bytes: &'b [u8],
}

impl StackWords for StackCopy<'_> {
    fn word(&mut self, addr: u64) -> Option<u64> {
        let at = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        Some(u64::from_le_bytes(self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}
