//! Goroutines as Go's own traceback prints them, byte for byte, in the format of the target's release
//! (`runtime/traceback.go`: `goroutineheader`, `traceback2`, `printcreatedby`; before Go 1.21
//! `gentraceback`).

mod header;
mod plan;
mod template;
mod text_cache;

use std::io::{self, Write};

use symbols::addr::CodeAddr;
use symbols::pclntab::args::{ArgToken, arg_tokens};
use symbols::pclntab::inline::logical_frames_and_pc;

use text_cache::TextCache;

pub use header::{header_status, wait_minutes, write_header};

use crate::printable::printable;
use crate::runtime::code::AddressMap;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::names::{is_shown, printed_name};
use crate::runtime::running::NoStart;
use crate::runtime::snapshot::stacks::{Shape, Stack};
use crate::runtime::snapshot::{Details, Frames, Slot, Snapshot};
use crate::runtime::unwind::{End, MAX_FRAMES, caller_was_interrupted};
use crate::runtime::view::View;
use template::Template;

/// Selection of goroutines and frames to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Selection of `runtime.Stack`: without the runtime's own goroutines and frames (GOTRACEBACK=single,
    /// all).
    User,
    /// Selection of GOTRACEBACK=system.
    System,
}

/// Text of a source-level frame, without arguments and without the parts that depend on the stack's address.
#[derive(Debug)]
struct LogicalText {
    name: Vec<u8>,
    inlined: bool,
    /// True if the frame is printed at [`Level::User`] when it is not the first, regardless of its callee.
    shown: bool,
    /// True for `runtime.gopanic`, which is printed only if it is not the first frame.
    is_panic: bool,
    is_wrapper: bool,
    /// True if wrappers that call this function are printed.
    reveals_wrapper: bool,
    /// Text `\tfile:line`.
    place: Vec<u8>,
}

/// Text printed for an instruction.
#[derive(Debug)]
struct PcText {
    /// Logical frames, innermost first; the last is the function itself.
    frames: Vec<LogicalText>,
    args: Vec<ArgToken>,
    /// Distance from the function's entry in bytes.
    offset: u64,
    /// Size of the frame, to compute the caller's stack pointer.
    frame_size: Option<u64>,
    /// Number of argument words that the walk kept.
    words: usize,
    special: crate::runtime::code::Special,
}

/// Printer of goroutines.
#[derive(Debug)]
pub struct Printer<'v> {
    view: &'v View,
    level: Level,
    kept: TextCache,
    /// Texts by the index of their shape, for snapshots of one process.
    templates: AddressMap<Template>,
    templates_size: usize,
}

/// Maximum size of all templates in bytes. It bounds memory for a program whose goroutines are all at
/// different instructions.
const MAX_TEMPLATES: usize = 8 << 20;

/// Printed frame, for other formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedFrame {
    /// Name of the function as printed.
    pub name: Vec<u8>,
    /// Path of the source file.
    pub file: Vec<u8>,
    /// Line number in the source file.
    pub line: u32,
    /// True if the call was inlined into the next frame.
    pub inlined: bool,
    /// Program counter of the physical frame.
    pub pc: u64,
}

impl<'v> Printer<'v> {
    /// Makes a printer for goroutines of `view`.
    pub fn new(view: &'v View, level: Level) -> Self {
        Printer {
            view,
            level,
            kept: TextCache::default(),
            templates: AddressMap::default(),
            templates_size: 0,
        }
    }

    /// Returns true if the goroutine is printed at the printer's level.
    pub fn includes(&self, snapshot: &Snapshot, slot: &Slot) -> bool {
        !slot.g.is_dead()
            && slot.frames != Frames::Unwanted
            && (self.level == Level::System
                || !self.view.is_system_goroutine(&slot.g, snapshot.finalizer_runs_user_code))
    }

    /// Writes one goroutine: header, frames, creator. No empty line follows. All goroutines of one printer
    /// must be of one snapshot.
    pub fn write(&mut self, snapshot: &Snapshot, slot: &Slot, out: &mut Vec<u8>) -> io::Result<()> {
        let details = slot.details.as_deref();
        write_header(self.view, snapshot, slot, self.level, out)?;
        match &slot.frames {
            Frames::Walked(stack) => match snapshot.shapes.get(stack.shape) {
                Some(shape) => self.write_stack(&slot.g, stack, shape, out)?,
                None => self.write_unavailable(out)?,
            },
            Frames::Unavailable(_) | Frames::Unwanted => self.write_unavailable(out)?,
        }
        self.write_created_by(&slot.g, out)?;
        details.map_or(Ok(()), |d| self.write_ancestors(d, out))
    }

    fn write_unavailable(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.write_all(b"\tgoroutine running on other thread; stack unavailable\n")
    }

    fn write_stack(
        &mut self,
        g: &Goroutine,
        stack: &Stack,
        shape: &Shape,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let key = u64::from(stack.shape);
        let usual = stack.skipped.is_empty() && stack.end != End::TooManyFrames;
        match self.templates.get(&key).filter(|_| usual) {
            Some(template) => template.fill(&stack.args, stack.sp, out),
            None => {
                let template = self.template(stack, shape);
                template.fill(&stack.args, stack.sp, out);
                if usual && self.templates_size + template.size() <= MAX_TEMPLATES {
                    self.templates_size += template.size();
                    self.templates.insert(key, template);
                }
            }
        }
        self.write_end(g, stack, out)
    }

    /// Makes the lines of a stack, without its argument words.
    fn template(&mut self, stack: &Stack, shape: &Shape) -> Template {
        let physical = self.physical(stack, shape);
        let show_all = self.level == Level::System;
        let texts = &self.kept;
        let mut lines = plan::plan(texts, &physical, show_all, self.view.release);
        if lines.printed == 0 && !show_all {
            // Nothing would be left of the stack: print all of it instead.
            lines = plan::plan(texts, &physical, true, self.view.release);
        }
        if stack.end == End::TooManyFrames {
            // Neither the number of further frames nor the last frames are known.
            let inner = lines.lines.iter().position(|l| !matches!(l, plan::Line::Frame { .. }));
            lines.lines.truncate(inner.unwrap_or(lines.lines.len()));
        }
        let mut template = Template::default();
        for line in &lines.lines {
            match *line {
                plan::Line::Frame { physical: p, logical: l } => {
                    let Some(frame) = physical.get(p) else { continue };
                    let Some(text) = texts.get(frame) else { continue };
                    let Some(logical) = text.frames.get(l) else { continue };
                    template.push(&logical.name);
                    if logical.inlined {
                        template.push(b"(...)\n");
                        template.push(&logical.place);
                    } else {
                        template.push(b"(");
                        template.push_args(&text.args, frame.args);
                        template.push(b")\n");
                        template.push(&logical.place);
                        if text.offset > 0 {
                            template.push(format!(" +{:#x}", text.offset).as_bytes());
                        }
                        if show_all {
                            let from_first = |address: u64| address.wrapping_sub(stack.sp);
                            template.push_addresses(from_first(frame.fp), from_first(frame.sp), frame.pc);
                        }
                    }
                    template.push(b"\n");
                }
                plan::Line::Elided(n) => template.push(format!("...{n} frames elided...\n").as_bytes()),
                plan::Line::AdditionalElided => template.push(b"...additional frames elided...\n"),
            }
        }
        template
    }

    /// Writes the line that Go prints if its stack walk fails.
    fn write_end(&self, g: &Goroutine, stack: &Stack, out: &mut Vec<u8>) -> io::Result<()> {
        match stack.end {
            End::UnexpectedReturn { entry, ret } => {
                let name = self.view.modules.lookup(entry).map(|p| printable(p.func.name()).into_owned());
                if self.view.release.names_goroutine_of_unknown_pc() {
                    write!(out, "runtime: g {}: unexpected return pc for ", g.goid)?;
                } else {
                    write!(out, "runtime: unexpected return pc for ")?;
                }
                out.write_all(name.unwrap_or_default().as_bytes())?;
                writeln!(out, " called from {ret:#x}")
            }
            End::UnknownPc(pc) if self.view.release.names_g_of_unknown_pc() => {
                writeln!(out, "runtime: g {} gp={:#x}: unknown pc {pc:#x}", g.goid, g.addr)
            }
            End::UnknownPc(pc) if self.view.release.names_goroutine_of_unknown_pc() => {
                writeln!(out, "runtime: g {}: unknown pc {pc:#x}", g.goid)
            }
            End::UnknownPc(pc) => writeln!(out, "runtime: unknown pc {pc:#x}"),
            End::TooManyFrames => writeln!(out, "...more than {MAX_FRAMES} frames elided..."),
            _ => Ok(()),
        }
    }

    /// Returns the physical frames of a stack, and makes the text of each known to the cache.
    fn physical(&mut self, stack: &Stack, shape: &Shape) -> Vec<Physical> {
        self.kept.forget_if_many();
        let view = self.view;
        let mut frames = Vec::with_capacity(shape.pcs.len());
        let (mut sp, mut args) = (stack.sp, 0);
        let mut interrupted = shape.interrupted;
        for (index, &pc) in shape.pcs.iter().enumerate() {
            let step = self.kept.step(pc, interrupted, || pc_text(view, pc, interrupted));
            let fp = sp.wrapping_add(step.frame_size.unwrap_or(0));
            frames.push(Physical { pc, interrupted, sp, fp, args });
            if !stack.skipped.contains(&index) {
                args += step.words;
            }
            sp = fp;
            interrupted = caller_was_interrupted(step.special, self.view.release);
        }
        frames
    }

    fn write_created_by(&mut self, g: &Goroutine, out: &mut Vec<u8>) -> io::Result<()> {
        if g.goid == 1 {
            return Ok(());
        }
        let (view, level) = (self.view, self.level);
        let text = self.kept.created_by(g.gopc, || {
            let text = pc_text(view, g.gopc, false);
            let function = text.frames.last().filter(|f| level == Level::System || f.shown)?;
            Some(created_by_parts(view, g.gopc, function, text.offset))
        });
        let Some(text) = text else { return Ok(()) };
        let end = text.iter().position(|&b| b == b'\n').unwrap_or(text.len());
        out.write_all(b"created by ")?;
        out.write_all(text.get(..end).unwrap_or_default())?;
        if g.parent_goid != 0 {
            write!(out, " in goroutine {}", g.parent_goid)?;
        }
        out.write_all(text.get(end..).unwrap_or_default())
    }

    fn write_ancestors(&self, details: &Details, out: &mut Vec<u8>) -> io::Result<()> {
        let most = self.view.release.ancestor_frames();
        for ancestor in &details.ancestors {
            writeln!(out, "[originating from goroutine {}]:", ancestor.goid)?;
            for (i, &pc) in ancestor.pcs.iter().enumerate() {
                // The runtime looks up these program counters as they are, not one byte before.
                let text = pc_text(self.view, pc, true);
                // The function decides whether the frame is shown; the innermost inlined call is printed.
                let (Some(function), Some(innermost)) = (text.frames.last(), text.frames.first()) else {
                    continue;
                };
                let show = function.shown || (function.is_panic && i > 0);
                if self.level == Level::System || (show && !function.is_wrapper) {
                    out.write_all(&innermost.name)?;
                    out.write_all(b"(...)\n")?;
                    out.write_all(&innermost.place)?;
                    write_offset(text.offset, out)?;
                }
            }
            if ancestor.pcs.len() == most {
                out.write_all(b"...additional frames elided...\n")?;
            }
            let text = pc_text(self.view, ancestor.gopc, false);
            if let Some(function) = text.frames.last()
                && ancestor.goid != 1
                && (self.level == Level::System || function.shown)
            {
                out.write_all(b"created by ")?;
                out.write_all(&created_by_parts(self.view, ancestor.gopc, function, text.offset))?;
            }
        }
        Ok(())
    }

    /// Returns the frames of a stack that pass the printer's filter, innermost first, and the number of
    /// physical frames left out. Frames are left out in the middle of a very deep stack, and if their text is
    /// too long.
    pub fn frames(&mut self, stack: &Stack, shape: &Shape) -> (Vec<PrintedFrame>, usize) {
        let physical = self.physical(stack, shape);
        let texts = &self.kept;
        let mut left_out = physical.len().saturating_sub(2 * MAX_AT_EACH_END);
        let (deep, mut room) = (left_out > 0, MAX_STRUCTURED);
        let ends = physical
            .iter()
            .enumerate()
            .filter(|(i, _)| !deep || *i < MAX_AT_EACH_END || *i >= physical.len() - MAX_AT_EACH_END);
        let mut out = Vec::new();
        let mut callee_reveals_wrapper = false;
        for (_, frame) in ends {
            let Some(text) = texts.get(frame) else { continue };
            let Some(rest) = room.checked_sub(text.size()) else {
                left_out += 1;
                continue;
            };
            room = rest;
            for logical in &text.frames {
                let shown = self.level == Level::System
                    || plan::shows(logical, out.is_empty(), callee_reveals_wrapper);
                callee_reveals_wrapper = logical.reveals_wrapper;
                if shown {
                    let (file, line) = split_place(&logical.place);
                    out.push(PrintedFrame {
                        name: logical.name.clone(),
                        file,
                        line,
                        inlined: logical.inlined,
                        pc: frame.pc,
                    });
                }
            }
        }
        (out, left_out)
    }
}

/// Maximum size of a stack's text in structured output, in bytes. It is thirty times what the frames of a
/// real stack can have.
const MAX_STRUCTURED: usize = 32 << 20;
/// Number of frames at each end of a stack that structured output keeps. Deeper stacks lose the frames in the
/// middle.
const MAX_AT_EACH_END: usize = 2048;

fn split_place(place: &[u8]) -> (Vec<u8>, u32) {
    let place = place.strip_prefix(b"\t").unwrap_or(place);
    let colon = place.iter().rposition(|&b| b == b':').unwrap_or(place.len());
    let line = place.get(colon + 1..).and_then(|l| std::str::from_utf8(l).ok()?.parse().ok()).unwrap_or(0);
    (place.get(..colon).unwrap_or_default().to_vec(), line)
}

/// Makes the text `NAME
/// \tFILE:LINE +0xOFFSET
/// ` of a `go` statement. NAME is always the function itself, even if the statement is in a call inlined into
/// it.
fn created_by_parts(view: &View, gopc: u64, function: &LogicalText, offset: u64) -> Vec<u8> {
    let mut text = function.name.clone();
    text.push(b'\n');
    if let Some(place) = view.modules.lookup(gopc) {
        let entry = place.func.entry();
        let (file, line) = place.func.file_line(CodeAddr::Return(place.link).lookup(entry));
        text.push(b'\t');
        text.extend_from_slice(printable(file).as_bytes());
        text.extend_from_slice(format!(":{line}").as_bytes());
    }
    if offset > 0 {
        text.extend_from_slice(format!(" +{offset:#x}").as_bytes());
    }
    text.push(b'\n');
    text
}

fn write_offset(offset: u64, out: &mut Vec<u8>) -> io::Result<()> {
    if offset > 0 { writeln!(out, " +{offset:#x}") } else { out.write_all(b"\n") }
}

/// Physical frame: a frame with stack memory of its own.
#[derive(Debug, Clone, Copy)]
struct Physical {
    pc: u64,
    interrupted: bool,
    sp: u64,
    fp: u64,
    /// Index of the frame's first argument word among those of the stack.
    args: usize,
}

/// Maximum size of the text for all calls at one instruction, in bytes; further names are cut. It suffices
/// for a thousand calls with names of a hundred bytes. No compiler inlines a thousand calls into each other.
const MAX_TEXT: usize = 256 << 10;
const CUT: usize = 64;

fn pc_text(view: &View, pc: u64, interrupted: bool) -> PcText {
    let nothing = PcText {
        frames: Vec::new(),
        args: Vec::new(),
        offset: 0,
        frame_size: None,
        words: 0,
        special: crate::runtime::code::Special::No,
    };
    let Some(place) = view.modules.lookup(pc) else { return nothing };
    let entry = place.func.entry();
    let at = if interrupted { CodeAddr::Pc(place.link) } else { CodeAddr::Return(place.link) };
    let lookup = at.lookup(entry);
    let image = &place.module.image;
    let (logical, own_pc) = logical_frames_and_pc(image, place.func, lookup);
    let mut room = MAX_TEXT;
    let frames = logical
        .iter()
        .map(|frame| {
            let raw = frame.name;
            let rest = room.checked_sub(raw.len() + frame.file.len());
            room = rest.unwrap_or(0);
            let (name, file) = match rest {
                Some(_) => (raw, frame.file),
                None => (cut(raw), cut(frame.file)),
            };
            let mut text = vec![b'\t'];
            text.extend_from_slice(printable(file).as_bytes());
            text.extend_from_slice(format!(":{}", frame.line).as_bytes());
            LogicalText {
                // Names written by a Go compiler are not changed by this.
                name: printable(&printed_name(name, view.release)).into_owned().into_bytes(),
                inlined: frame.inlined,
                shown: is_shown(raw, view.release),
                is_panic: raw == b"runtime.gopanic",
                is_wrapper: frame.func_id == view.wrapper_id,
                reveals_wrapper: matches!(
                    raw,
                    b"runtime.gopanic" | b"runtime.sigpanic" | b"runtime.panicwrap"
                ),
                place: text,
            }
        })
        .collect();
    // The walk looked up the argument slots at the pc itself; which slots exist does not depend on that.
    // Their liveness may be looked up at the place of the outermost inlined call.
    let live_at = if view.release.looks_up_arguments_at_call() { lookup } else { own_pc };
    let args = arg_tokens(image, place.func, live_at).unwrap_or_default();
    let info = crate::runtime::code::PcInfo::of(place);
    let frame_size = info.sp_delta.and_then(|d| view.machine.frame_end(0, d));
    PcText {
        frames,
        words: info.arg_slots.len(),
        args,
        offset: place.link.since(entry).unwrap_or(0),
        frame_size,
        special: info.special,
    }
}

fn cut(text: &[u8]) -> &[u8] {
    text.get(..CUT).unwrap_or(text)
}

/// Returns the reason why a goroutine has no frames or not all of them, in words. `None` if it has all.
pub fn incomplete(frames: &Frames) -> Option<String> {
    match frames {
        Frames::Unwanted => None,
        Frames::Unavailable(why) => Some(why_unavailable(*why)),
        Frames::Walked(stack) => match stack.end {
            End::Complete => None,
            End::StackSwitch => Some("its caller is on another stack".to_owned()),
            End::UnknownPc(pc) => Some(format!("{pc:#x} is not in Go code")),
            End::UnexpectedReturn { ret, .. } => {
                Some(format!("the return address {ret:#x} is not in Go code"))
            }
            End::ZeroReturn => Some("a return address of 0".to_owned()),
            End::NoFrameInfo(pc) => Some(format!("no frame size is known at {pc:#x}")),
            End::OutOfStack(at) => Some(format!("a frame at {at:#x} is not within its stack")),
            End::TooManyFrames => Some("more frames than are followed".to_owned()),
        },
    }
}

fn why_unavailable(why: NoStart) -> String {
    why.to_string()
}
