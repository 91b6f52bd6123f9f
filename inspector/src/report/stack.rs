//! The answer of `stack`.

use std::borrow::Cow;
use std::io::{self, Write};

use rayon::prelude::*;
use serde::Serialize;

use super::traceback::{Level, Printer, header_status, incomplete, wait_minutes};
use crate::memory::ReadCost;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::snapshot::{Consistency, Frames, Slot, Snapshot};
use crate::runtime::view::{Evidence, View};

/// Which goroutines of a snapshot are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    /// Only this one.
    pub goid: Option<u64>,
    /// Only those in this state: a wait reason or status as the header shows it.
    pub state: Option<String>,
    /// Only those whose text matches.
    pub pattern: Option<regex::bytes::Regex>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// Goroutines written.
    pub goroutines: usize,
    /// Of them, those that are not proven to have been so at the snapshot's instant.
    pub unconfirmed: usize,
    /// Of them, those without any frames.
    pub unavailable: usize,
    /// Of them, those whose outermost frames are missing.
    pub incomplete: usize,
}

/// Goroutines that are made into text before any of it is written.
const BLOCK: usize = 8192;
/// Goroutines that one core makes into text at a time.
const PART: usize = 512;
/// A part ends early once it has this: ten times what so many goroutines have in earnest, far less than a process that
/// lies can make of them.
const ENOUGH_TEXT: usize = 8 << 20;
/// Fewer are done before other threads have started.
const WORTH_ALL_CORES: usize = 2048;

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.goroutines += other.goroutines;
        self.unconfirmed += other.unconfirmed;
        self.unavailable += other.unavailable;
        self.incomplete += other.incomplete;
    }

    /// Whether something that was asked for is missing.
    pub fn is_partial(&self) -> bool {
        self.unavailable > 0
    }
}

/// What was made of some goroutines.
#[derive(Debug, Default)]
struct Part {
    text: Vec<u8>,
    counts: Counts,
    /// How many goroutines were gone through.
    slots: usize,
}

/// Writes a snapshot, a goroutine at a time.
#[derive(Debug)]
pub struct StackReport<'v> {
    view: &'v View,
    snapshot: &'v Snapshot,
    filter: &'v Filter,
    level: Level,
}

impl<'v> StackReport<'v> {
    /// A report of what `filter` lets pass.
    pub fn new(view: &'v View, snapshot: &'v Snapshot, filter: &'v Filter, level: Level) -> Self {
        StackReport { view, snapshot, filter, level }
    }

    fn wants(&self, g: &Goroutine) -> bool {
        self.filter.goid.is_none_or(|id| id == g.goid)
            && self.filter.state.as_deref().is_none_or(|s| s == header_status(self.view, g))
    }

    /// Writes each wanted goroutine as `item` makes it of the goroutine and its text, with `separator` in between:
    /// block by block, so that memory stays bounded, each by all cores where there are many.
    fn each(
        &self,
        separator: &[u8],
        item: impl Fn(&mut Printer<'_>, &Slot, &[u8], &mut Vec<u8>) -> io::Result<()> + Sync,
        out: &mut dyn Write,
    ) -> io::Result<Counts> {
        let mut counts = Counts::default();
        let printer = || Printer::new(self.view, self.level);
        let part = |printer: &mut Printer<'_>, slots: &[Slot]| self.part(printer, slots, separator, &item);
        let mut alone = printer();
        for block in self.snapshot.slots.chunks(BLOCK) {
            let (size, parts) = if block.len() < WORTH_ALL_CORES {
                (BLOCK, vec![part(&mut alone, block)?])
            } else {
                (PART, block.par_chunks(PART).map_init(printer, part).collect::<io::Result<_>>()?)
            };
            for (slots, first) in block.chunks(size).zip(parts) {
                let mut next = first;
                let mut done = 0;
                loop {
                    let begins = if counts.goroutines == 0 { separator.len() } else { 0 };
                    out.write_all(next.text.get(begins..).unwrap_or_default())?;
                    counts.add(&next.counts);
                    done += next.slots;
                    let Some(rest) = slots.get(done..).filter(|rest| !rest.is_empty()) else { break };
                    next = part(&mut alone, rest)?;
                }
            }
        }
        Ok(counts)
    }

    /// Some goroutines, each with the separator before it: all, or as many as make enough text.
    fn part(
        &self,
        printer: &mut Printer<'_>,
        slots: &[Slot],
        separator: &[u8],
        item: &impl Fn(&mut Printer<'_>, &Slot, &[u8], &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<Part> {
        let mut part = Part::default();
        let mut text = Vec::with_capacity(4096);
        for slot in slots {
            if part.text.len() >= ENOUGH_TEXT {
                break;
            }
            part.slots += 1;
            if !printer.includes(self.snapshot, slot) || !self.wants(&slot.g) {
                continue;
            }
            text.clear();
            printer.write(self.snapshot, slot, &mut text)?;
            if self.filter.pattern.as_ref().is_some_and(|p| !p.is_match(&text)) {
                continue;
            }
            let counts = &mut part.counts;
            counts.goroutines += 1;
            counts.unconfirmed += usize::from(!slot.confirmed);
            counts.unavailable += usize::from(matches!(slot.frames, Frames::Unavailable(_)));
            counts.incomplete +=
                usize::from(matches!(slot.frames, Frames::Walked(_)) && incomplete(&slot.frames).is_some());
            part.text.extend_from_slice(separator);
            item(printer, slot, &text, &mut part.text)?;
        }
        Ok(part)
    }

    /// Writes the text that Go itself prints, an empty line between goroutines.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.each(
            b"\n",
            |_, _, text, out| {
                out.extend_from_slice(text);
                Ok(())
            },
            out,
        )
    }

    /// Writes one JSON object, its goroutines one by one, so that memory stays bounded.
    pub fn write_json(&self, cost: &Cost, out: &mut dyn Write) -> io::Result<Counts> {
        let head = Head {
            schema: super::SCHEMA,
            pid: self.view.pid,
            go_version: self.view.version.as_ref().map(|v| v.raw.as_str()),
            consistency: self.snapshot.consistency,
            cost,
            evidence: &self.view.evidence,
            unknown: &self.view.unknown,
        };
        let head = serde_json::to_string(&head)?;
        // The goroutines are appended within the same object.
        out.write_all(head.strip_suffix('}').unwrap_or(&head).as_bytes())?;
        out.write_all(b",\"goroutines\":[")?;
        let item = |printer: &mut Printer<'_>, slot: &Slot, _: &[u8], out: &mut Vec<u8>| {
            let goroutine = self.goroutine(printer, slot);
            serde_json::to_writer(out, &goroutine).map_err(io::Error::from)
        };
        out.write_all(b"\n")?;
        let counts = self.each(b",\n", item, out)?;
        out.write_all(b"\n],\"counts\":")?;
        serde_json::to_writer(&mut *out, &counts)?;
        out.write_all(b"}\n")?;
        Ok(counts)
    }

    fn goroutine<'s>(&'s self, printer: &mut Printer<'_>, slot: &'s Slot) -> GoroutineJson<'s> {
        let g = &slot.g;
        let (frames, left_out) = match &slot.frames {
            Frames::Walked(stack) => match self.snapshot.shapes.get(stack.shape) {
                Some(shape) => printer.frames(stack, shape),
                None => Default::default(),
            },
            _ => Default::default(),
        };
        let details = slot.details.as_deref();
        let m = self.snapshot.ms.iter().find(|m| g.m != 0 && m.addr == g.m);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let created_by = self.view.modules.lookup(g.gopc).filter(|_| g.goid != 1);
        GoroutineJson {
            id: g.goid,
            state: header_status(self.view, g),
            address: hex(g.addr),
            parent: (g.parent_goid != 0).then_some(g.parent_goid),
            created_by: created_by.map(|p| p.func.name_text()),
            wait_minutes: Some(wait_minutes(self.snapshot, g)).filter(|&m| m > 0),
            locked_to_thread: g.lockedm != 0,
            thread: m.map(|m| m.procid).filter(|&id| id != 0),
            bubble: details.and_then(|d| d.bubble),
            labels: details.map_or_else(Vec::new, |d| {
                d.labels.iter().map(|(k, v)| [text(k.clone()), text(v.clone())]).collect()
            }),
            confirmed: slot.confirmed,
            incomplete: incomplete(&slot.frames),
            frames_left_out: (left_out > 0).then_some(left_out),
            frames: frames
                .into_iter()
                .map(|f| FrameJson {
                    function: text(f.name),
                    file: text(f.file),
                    line: f.line,
                    inlined: f.inlined,
                    pc: hex(f.pc),
                })
                .collect(),
        }
    }
}

/// What the answer cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cost {
    /// How long all threads were stopped, or without a pause the longest that one was, in microseconds.
    pub stopped_us: u64,
    /// Of that, until the last thread had stopped.
    pub until_stopped_us: u64,
    /// How many threads were stopped.
    pub threads_stopped: usize,
    /// Bytes read from the target's memory.
    pub bytes_read: u64,
    /// System calls for that.
    pub read_calls: u64,
    /// Bytes written to the target.
    pub bytes_written: u64,
}

impl Cost {
    /// The cost of attaching and of a snapshot.
    pub fn new(attach: ReadCost, snapshot: &Snapshot) -> Self {
        let us = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Cost {
            stopped_us: us(snapshot.stopped),
            until_stopped_us: us(snapshot.until_stopped),
            threads_stopped: snapshot.threads_stopped,
            bytes_read: attach.bytes + snapshot.cost.bytes,
            read_calls: attach.calls + snapshot.cost.calls,
            bytes_written: 0,
        }
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

#[derive(Serialize)]
struct Head<'a> {
    schema: u32,
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<&'a str>,
    consistency: Consistency,
    cost: &'a Cost,
    evidence: &'a [Evidence],
    unknown: &'a [String],
}

#[derive(Serialize)]
struct GoroutineJson<'a> {
    id: u64,
    state: &'a str,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_minutes: Option<i64>,
    locked_to_thread: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bubble: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<[String; 2]>,
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
    /// How many frames in the middle of a very deep stack are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_left_out: Option<usize>,
    frames: Vec<FrameJson>,
}

#[derive(Serialize)]
struct FrameJson {
    function: String,
    file: String,
    line: u32,
    inlined: bool,
    pc: String,
}
