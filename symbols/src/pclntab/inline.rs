//! Inlined calls: the logical frames inside a physical frame (`runtime/symtabinl.go:inlineUnwinder`).

use super::Func;
use super::function::{funcdata, pcdata};
use super::header::Format;
use crate::addr::LinkAddr;
use crate::image::Image;

/// Maximum depth of inlining, against cyclic trees. The compiler inlines less deeply.
const MAX_DEPTH: usize = 1 << 10;

/// Logical frame: a call as in the source. The function is the physical one or one inlined into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalFrame<'t> {
    /// Name of the function.
    pub name: &'t [u8],
    /// Number of a function that the runtime treats specially. Inlined calls have numbers of their own.
    pub func_id: u8,
    /// True if the function was inlined and has no physical frame.
    pub inlined: bool,
    /// Source file.
    pub file: &'t [u8],
    /// Line in the source file.
    pub line: u32,
    /// Line of the `func` keyword, from Go 1.20 on.
    pub start_line: Option<u32>,
    /// Look-up address in the physical function. For the innermost frame, it is the requested address. For
    /// the others, it is the place of an inlined call.
    pub pc: LinkAddr,
}

/// Returns the logical frames at `pc` of `func`, innermost first. The last frame is `func` itself.
///
/// `pc` is the address to look up: inside the call instruction for a return address.
pub fn logical_frames<'t>(image: &Image, func: Func<'t>, pc: LinkAddr) -> Vec<LogicalFrame<'t>> {
    logical_frames_and_pc(image, func, pc).0
}

/// Returns the frames like [`logical_frames`], and the look-up address for the frame of `func` itself. That
/// address is the place of the outermost inlined call, or `pc` if nothing is inlined.
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
    /// Reads an entry of the inline tree. Up to Go 1.19, an entry has 20 bytes:
    /// `{i16 parent, u8 funcID, pad, i32 file, line, name, parentPc}`. From Go 1.20 on, it has 16 bytes:
    /// `{u8 funcID, pad, i32 name, parentPc, startLine}`.
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
