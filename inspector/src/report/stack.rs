//! The answer of `stack`.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::mpsc::{channel, sync_channel};

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

impl Filter {
    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.goid.is_none() && self.state.is_none() && self.pattern.is_none()
    }
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

/// How a goroutine is written.
type Item<'i> = dyn Fn(&mut Printer<'_>, &Slot, &mut Vec<u8>) -> io::Result<()> + Sync + 'i;

/// Goroutines as they are written.
#[derive(Default)]
struct Part {
    text: Vec<u8>,
    counts: Counts,
}

/// Goroutines that one core makes into text at a time.
const PART: usize = 256;
/// Parts that a core makes before the first of them is written.
const PARTS_AHEAD: usize = 2;
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

    /// Writes each wanted goroutine as `item` makes it, with `separator` in between: part by part, by all cores where
    /// there are many.
    fn each(&self, separator: &[u8], item: &Item<'_>, out: &mut dyn Write) -> io::Result<Counts> {
        let parts: Vec<&[Slot]> = self.snapshot.slots.chunks(PART).collect();
        let mut counts = Counts::default();
        let mut write = |part: &Part, counts: &mut Counts| {
            let begins = if counts.goroutines == 0 { separator.len() } else { 0 };
            counts.add(&part.counts);
            out.write_all(part.text.get(begins..).unwrap_or_default())
        };
        if self.snapshot.slots.len() < WORTH_ALL_CORES {
            let mut printer = Printer::new(self.view, self.level);
            let mut part = Part::default();
            for slots in parts {
                self.part(&mut printer, slots, separator, item, &mut part)?;
                write(&part, &mut counts)?;
            }
            return Ok(counts);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            // Each core makes every so many'th part, and waits while those that it has made are not yet written: memory
            // is bounded, and what was written is used again for the next.
            let makers: Vec<_> = (0..cores)
                .map(|core| {
                    let (made, to_write) = sync_channel(PARTS_AHEAD);
                    let (written, to_make) = channel();
                    let parts = &parts;
                    scope.spawn(move || {
                        let mut printer = Printer::new(self.view, self.level);
                        for slots in parts.iter().skip(core).step_by(cores) {
                            let mut part: Part = to_make.try_recv().unwrap_or_default();
                            let done = self.part(&mut printer, slots, separator, item, &mut part);
                            // Nobody waits for it where writing has failed.
                            if made.send(done.map(|()| part)).is_err() {
                                break;
                            }
                        }
                    });
                    (to_write, written)
                })
                .collect();
            for (to_write, written) in makers.iter().cycle().take(parts.len()) {
                // Where its maker died, the scope says so.
                let Ok(part) = to_write.recv() else { break };
                let part = part?;
                write(&part, &mut counts)?;
                let _its_last = written.send(part);
            }
            Ok(counts)
        })
    }

    /// Some goroutines, each with the separator before it.
    fn part(
        &self,
        printer: &mut Printer<'_>,
        slots: &[Slot],
        separator: &[u8],
        item: &Item<'_>,
        part: &mut Part,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        part.text.clear();
        part.counts = Counts::default();
        let (counts, out) = (&mut part.counts, &mut part.text);
        for slot in slots {
            if !printer.includes(self.snapshot, slot) || !self.wants(&slot.g) {
                continue;
            }
            if let Some(pattern) = &self.filter.pattern {
                text.clear();
                printer.write(self.snapshot, slot, &mut text)?;
                if !pattern.is_match(&text) {
                    continue;
                }
            }
            counts.goroutines += 1;
            counts.unconfirmed += usize::from(!slot.confirmed);
            counts.unavailable += usize::from(matches!(slot.frames, Frames::Unavailable(_)));
            counts.incomplete +=
                usize::from(matches!(slot.frames, Frames::Walked(_)) && incomplete(&slot.frames).is_some());
            out.extend_from_slice(separator);
            item(printer, slot, out)?;
        }
        Ok(())
    }

    /// Writes the text that Go itself prints, an empty line between goroutines.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.each(b"\n", &|printer, slot, out| printer.write(self.snapshot, slot, out), out)
    }

    /// Writes one JSON object, its goroutines one by one, so that memory stays bounded.
    pub fn write_json(&self, cost: &Cost, out: &mut dyn Write) -> io::Result<Counts> {
        let head = Head {
            schema: super::SCHEMA,
            pid: self.view.pid,
            via: "probe",
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
        let item = |printer: &mut Printer<'_>, slot: &Slot, out: &mut Vec<u8>| {
            let goroutine = self.goroutine(printer, slot);
            serde_json::to_writer(out, &goroutine).map_err(io::Error::from)
        };
        out.write_all(b"\n")?;
        let counts = self.each(b",\n", &item, out)?;
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
            address: Some(hex(g.addr)),
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
                    pc: Some(hex(f.pc)),
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
    via: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<&'a str>,
    consistency: Consistency,
    cost: &'a Cost,
    evidence: &'a [Evidence],
    unknown: &'a [String],
}

/// A goroutine as it is written; also one that was read back from a dump, which says less.
#[derive(Serialize)]
pub(super) struct GoroutineJson<'a> {
    pub(super) id: u64,
    pub(super) state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_by: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wait_minutes: Option<i64>,
    pub(super) locked_to_thread: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bubble: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<[String; 2]>,
    pub(super) confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) incomplete: Option<String>,
    /// How many frames in the middle of a very deep stack are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) frames_left_out: Option<usize>,
    pub(super) frames: Vec<FrameJson>,
}

#[derive(Serialize)]
pub(super) struct FrameJson {
    pub(super) function: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) inlined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pc: Option<String>,
}
