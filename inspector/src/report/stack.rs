//! The answer of `stack`.

use std::borrow::Cow;
use std::io::{self, Write};

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

impl Counts {
    /// Whether something that was asked for is missing.
    pub fn is_partial(&self) -> bool {
        self.unavailable > 0
    }
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

    /// Hands out each wanted goroutine with its text.
    fn each(
        &self,
        printer: &mut Printer<'_>,
        mut f: impl FnMut(&mut Printer<'_>, &Slot, &[u8]) -> io::Result<()>,
    ) -> io::Result<Counts> {
        let mut counts = Counts::default();
        let mut text = Vec::with_capacity(4096);
        for slot in &self.snapshot.slots {
            if !printer.includes(self.snapshot, slot) || !self.wants(&slot.g) {
                continue;
            }
            text.clear();
            printer.write(self.snapshot, slot, &mut text)?;
            if self.filter.pattern.as_ref().is_some_and(|p| !p.is_match(&text)) {
                continue;
            }
            counts.goroutines += 1;
            counts.unconfirmed += usize::from(!slot.confirmed);
            counts.unavailable += usize::from(matches!(slot.frames, Frames::Unavailable(_)));
            counts.incomplete +=
                usize::from(matches!(slot.frames, Frames::Walked(_)) && incomplete(&slot.frames).is_some());
            f(printer, slot, &text)?;
        }
        Ok(counts)
    }

    /// Writes the text that Go itself prints, an empty line between goroutines.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        let mut printer = Printer::new(self.view, self.level);
        let mut first = true;
        self.each(&mut printer, |_, _, text| {
            if !std::mem::take(&mut first) {
                out.write_all(b"\n")?;
            }
            out.write_all(text)
        })
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
        let mut printer = Printer::new(self.view, self.level);
        let mut first = true;
        let counts = self.each(&mut printer, |printer, slot, _| {
            out.write_all(if std::mem::take(&mut first) { b"\n" } else { b",\n" })?;
            let goroutine = self.goroutine(printer, slot);
            serde_json::to_writer(&mut *out, &goroutine).map_err(io::Error::from)
        })?;
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
