//! Inlined calls: the logical frames inside a physical one (`runtime/symtabinl.go:inlineUnwinder`).

use super::Func;
use super::function::{funcdata, pcdata};
use super::header::Format;
use crate::addr::LinkAddr;
use crate::image::Image;

/// Deeper inlining than the compiler does; a bound for cyclic trees.
const MAX_DEPTH: usize = 1 << 10;

/// A call as the source has it: the function itself or one inlined into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalFrame<'t> {
    /// The function's name.
    pub name: &'t [u8],
    /// Its number if the runtime treats it specially; inlined calls have their own.
    pub func_id: u8,
    /// Whether it was inlined: it has no frame of its own.
    pub inlined: bool,
    /// Source file.
    pub file: &'t [u8],
    /// Line.
    pub line: u32,
    /// The line of its `func` keyword, from Go 1.20.
    pub start_line: Option<u32>,
    /// The address in the physical function by which it is looked up: the one asked for in the innermost frame, the
    /// place of an inlined call in the others.
    pub pc: LinkAddr,
}

/// The logical frames at `pc` of `func`, innermost first; the last one is `func` itself.
///
/// `pc` is the address to look up: inside the call for a return address.
pub fn logical_frames<'t>(image: &Image, func: Func<'t>, pc: LinkAddr) -> Vec<LogicalFrame<'t>> {
    logical_frames_and_pc(image, func, pc).0
}

/// As [`logical_frames`], with the address in `func` itself that its own frame is looked up by: where the
/// outermost inlined call stands, or `pc` where nothing is inlined.
pub fn logical_frames_and_pc<'t>(
    image: &Image,
    func: Func<'t>,
    pc: LinkAddr,
) -> (Vec<LogicalFrame<'t>>, LinkAddr) {
    let mut frames = Vec::new();
    let mut pc = pc;
    if let Some(tree) = func.funcdata(funcdata::INL_TREE) {
        for _ in 0..MAX_DEPTH {
            let index = func.pcdata(pcdata::INL_TREE_INDEX, pc);
            let Some(call) = u32::try_from(index).ok().and_then(|i| InlinedCall::read(image, func, tree, i))
            else {
                break;
            };
            let (file, line) = func.file_line(pc);
            frames.push(LogicalFrame {
                name: func.table().name_at(call.name_offset),
                func_id: call.func_id,
                inlined: true,
                file,
                line,
                start_line: call.start_line,
                pc,
            });
            pc = func.entry().plus(u64::from(call.parent_pc));
        }
    }
    let (file, line) = func.file_line(pc);
    frames.push(LogicalFrame {
        name: func.name(),
        func_id: func.func_id(),
        inlined: false,
        file,
        line,
        start_line: func.start_line(),
        pc,
    });
    (frames, pc)
}

struct InlinedCall {
    func_id: u8,
    name_offset: u32,
    parent_pc: u32,
    start_line: Option<u32>,
}

impl InlinedCall {
    /// 20 bytes up to Go 1.19 `{i16 parent, u8 funcID, pad, i32 file, line, name, parentPc}`,
    /// 16 from 1.20 `{u8 funcID, pad, i32 name, parentPc, startLine}`.
    fn read(image: &Image, func: Func<'_>, tree: LinkAddr, index: u32) -> Option<Self> {
        let modern = func.table().format() >= Format::Go120;
        let size: u64 = if modern { 16 } else { 20 };
        let mut bytes = [0u8; 20];
        let entry = bytes.get_mut(..size as usize)?;
        image.read(tree.plus(size * u64::from(index)), entry).ok()?;
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        Some(if modern {
            InlinedCall {
                func_id: bytes[0],
                name_offset: word(4),
                parent_pc: word(8),
                start_line: Some(word(12)),
            }
        } else {
            InlinedCall { func_id: bytes[2], name_offset: word(12), parent_pc: word(16), start_line: None }
        })
    }
}
