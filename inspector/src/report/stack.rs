//! The answer of `stack`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{channel, sync_channel};

use serde::Serialize;

use super::stack_json as json;
pub use super::stack_json::{Frame, Goroutine as WrittenGoroutine};
use super::traceback::{Level, Printer, header_status, incomplete, wait_minutes};
use crate::memory::ReadCost;
use crate::process::Pid;
use crate::runtime::goroutine::{Goroutine, status};
use crate::runtime::snapshot::{Frames, Slot, Snapshot};
use crate::runtime::view::View;
use crate::stop::StopTimes;
use crate::threads;

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

impl Counts {
    /// The counts of two runtimes together.
    pub fn and(self, other: Counts) -> Self {
        Counts {
            goroutines: self.goroutines + other.goroutines,
            unconfirmed: self.unconfirmed + other.unconfirmed,
            unavailable: self.unavailable + other.unavailable,
            incomplete: self.incomplete + other.incomplete,
        }
    }
}

/// How a goroutine is written.
type Item<'i> = dyn Fn(&mut Printer<'_>, &Slot, &mut Vec<u8>) -> io::Result<()> + Sync + 'i;

/// Goroutines as they are written.
#[derive(Default)]
struct Part {
    text: Vec<u8>,
    counts: Counts,
    /// Nothing more follows of what was to be made at a time.
    is_last: bool,
}

/// Goroutines that one core makes into text at a time.
const PART: usize = 256;
/// Parts that a core makes before the first of them is written.
const PARTS_AHEAD: usize = 2;
/// A part ends early once it has this: ten times what so many goroutines have in earnest, far less than a process that
/// lies can make of them.
const ENOUGH_TEXT: usize = 4 << 20;
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
            return self.each_here(&parts, separator, item, &mut write);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            // Each core makes every so many'th part, and waits while those that it has made are not yet written: memory
            // is bounded, and what was written is used again for the next.
            let makers: Vec<_> = (0..cores)
                .map_while(|core| {
                    let (made, to_write) = sync_channel(PARTS_AHEAD);
                    let (written, to_make) = channel();
                    let (tell, told) = channel();
                    let parts = &parts;
                    let maker = threads::start_in(scope, "text", move || {
                        // How many there are is known when the last has started.
                        let Ok(cores) = told.recv() else { return };
                        let mut printer = Printer::new(self.view, self.level);
                        for &slots in parts.iter().skip(core).step_by(cores) {
                            let mut slots = slots;
                            while !slots.is_empty() {
                                let mut part: Part = to_make.try_recv().unwrap_or_default();
                                let made_of_it = self.part(&mut printer, slots, separator, item, &mut part);
                                slots = *made_of_it.as_ref().unwrap_or(&slots);
                                part.is_last = slots.is_empty();
                                let failed = made_of_it.is_err();
                                // Nobody waits for it where writing has failed.
                                if made.send(made_of_it.map(|_| part)).is_err() || failed {
                                    return;
                                }
                            }
                        }
                    });
                    maker.is_ok().then_some((to_write, written, tell))
                })
                .collect();
            if makers.is_empty() {
                return self.each_here(&parts, separator, item, &mut write);
            }
            for (_, _, tell) in &makers {
                // Where it died, the scope says so.
                let _died = tell.send(makers.len());
            }
            for (to_write, written, _) in makers.iter().cycle().take(parts.len()) {
                // Where its maker died, the scope says so.
                while let Ok(part) = to_write.recv() {
                    let part = part?;
                    write(&part, &mut counts)?;
                    let is_last = part.is_last;
                    let _its_last = written.send(part);
                    if is_last {
                        break;
                    }
                }
            }
            Ok(counts)
        })
    }

    /// As [`StackReport::each`], by this thread alone.
    fn each_here(
        &self,
        parts: &[&[Slot]],
        separator: &[u8],
        item: &Item<'_>,
        write: &mut dyn FnMut(&Part, &mut Counts) -> io::Result<()>,
    ) -> io::Result<Counts> {
        let mut counts = Counts::default();
        let mut printer = Printer::new(self.view, self.level);
        let mut part = Part::default();
        for &slots in parts {
            let mut slots = slots;
            while !slots.is_empty() {
                slots = self.part(&mut printer, slots, separator, item, &mut part)?;
                write(&part, &mut counts)?;
            }
        }
        Ok(counts)
    }

    /// Some goroutines, each with the separator before it: all, or as many as make enough text. Returns the others.
    fn part<'s>(
        &self,
        printer: &mut Printer<'_>,
        slots: &'s [Slot],
        separator: &[u8],
        item: &Item<'_>,
        part: &mut Part,
    ) -> io::Result<&'s [Slot]> {
        let mut text = Vec::new();
        part.text.clear();
        part.counts = Counts::default();
        let (counts, out) = (&mut part.counts, &mut part.text);
        let mut rest = slots;
        while let Some((slot, others)) = rest.split_first().filter(|_| out.len() < ENOUGH_TEXT) {
            rest = others;
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
        Ok(rest)
    }

    /// How many goroutines there are in which state, whatever the filter lets pass.
    pub fn states(&self) -> States {
        let printer = Printer::new(self.view, self.level);
        let included = self.snapshot.slots.iter().filter(|slot| printer.includes(self.snapshot, slot));
        States::of(included.map(|slot| header_status(self.view, &slot.g)))
    }

    /// Whether a header of this release can show this state (`runtime.gStatusStrings`, `runtime.waitReasonStrings`).
    pub fn is_state(&self, name: &str) -> bool {
        status::NAMES.contains(&name) || self.view.table.wait_reasons().iter().any(|reason| reason == name)
    }

    /// Writes the text that Go itself prints, an empty line between goroutines.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.each(b"\n", &|printer, slot, out| printer.write(self.snapshot, slot, out), out)
    }

    /// Writes one JSON object, its goroutines one by one, so that memory stays bounded.
    pub fn write_json(
        &self,
        pid: Pid,
        cost: &AnswerCost,
        panicking: Option<bool>,
        out: &mut dyn Write,
    ) -> io::Result<Counts> {
        let head = json::Head {
            schema: super::SCHEMA,
            pid: Some(pid.as_raw()),
            address: None,
            via: "probe",
            go_version: self.view.version.as_ref().map(|v| v.raw.as_str()),
            consistency: self.snapshot.consistency,
            too_many_threads: self.snapshot.too_many.map(|too_many| json::TooManyThreads {
                threads: too_many.threads,
                expected_us: u64::try_from(too_many.expected.as_micros()).unwrap_or(u64::MAX),
            }),
            panicking,
            cost: Some(cost),
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

    /// Each goroutine that is wanted, as JSON has it. A pattern looks at all that is printed, and is not asked here.
    pub fn goroutines(self) -> impl Iterator<Item = WrittenGoroutine<'v>> {
        let mut printer = Printer::new(self.view, self.level);
        let snapshot = self.snapshot;
        snapshot.slots.iter().filter_map(move |slot| {
            let wanted = printer.includes(snapshot, slot) && self.wants(&slot.g);
            wanted.then(|| self.goroutine(&mut printer, slot))
        })
    }

    /// How many goroutines these are.
    pub fn len(&self) -> usize {
        let printer = Printer::new(self.view, self.level);
        let wanted = |slot: &&Slot| printer.includes(self.snapshot, slot) && self.wants(&slot.g);
        self.snapshot.slots.iter().filter(wanted).count()
    }

    /// Whether these are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn goroutine(&self, printer: &mut Printer<'_>, slot: &'v Slot) -> json::Goroutine<'v> {
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
        json::Goroutine {
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
                .map(|f| json::Frame {
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

/// How many goroutines are in which state, the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States(Vec<(String, usize)>);

impl States {
    /// Counts the states of goroutines.
    pub fn of<'s>(states: impl Iterator<Item = &'s str>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        states.for_each(|state| *counts.entry(state).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().map(|(state, count)| (state.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        States(counts)
    }

    /// The states of two runtimes together.
    pub fn and(self, other: States) -> Self {
        let mut counts = self.0;
        for (state, count) in other.0 {
            match counts.iter_mut().find(|(known, _)| *known == state) {
                Some((_, sum)) => *sum += count,
                None => counts.push((state, count)),
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        States(counts)
    }
}

/// `12 in chan receive, 3 in select`.
impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (state, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} in {state}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What the answer cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Cost"))]
pub struct AnswerCost {
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

/// As `-v` says it, where all threads were stopped at once.
impl fmt::Display for AnswerCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} threads stopped for {} µs ({} µs until all had stopped), {} bytes read in {} calls, {}",
            self.threads_stopped,
            self.stopped_us,
            self.until_stopped_us,
            self.bytes_read,
            self.read_calls,
            self.written(),
        )
    }
}

impl AnswerCost {
    /// How much was written, in words.
    pub fn written(&self) -> String {
        match self.bytes_written {
            0 => "none written".to_owned(),
            bytes => format!("{bytes} written"),
        }
    }

    /// The cost of attaching and of a snapshot.
    pub fn new(attach: ReadCost, snapshot: &Snapshot) -> Self {
        let us = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        AnswerCost {
            stopped_us: us(snapshot.stopped),
            until_stopped_us: us(snapshot.until_stopped),
            threads_stopped: snapshot.threads_stopped,
            bytes_read: attach.bytes + snapshot.cost.bytes,
            read_calls: attach.calls + snapshot.cost.calls,
            bytes_written: 0,
        }
    }

    /// The cost of reading alone.
    pub fn of_reading(reads: ReadCost) -> Self {
        AnswerCost {
            stopped_us: 0,
            until_stopped_us: 0,
            threads_stopped: 0,
            bytes_read: reads.bytes,
            read_calls: reads.calls,
            bytes_written: 0,
        }
    }

    /// The cost of both, one after the other.
    #[must_use]
    pub fn and(self, other: AnswerCost) -> AnswerCost {
        AnswerCost {
            stopped_us: self.stopped_us.max(other.stopped_us),
            until_stopped_us: self.until_stopped_us.max(other.until_stopped_us),
            threads_stopped: self.threads_stopped + other.threads_stopped,
            bytes_read: self.bytes_read + other.bytes_read,
            read_calls: self.read_calls + other.read_calls,
            bytes_written: self.bytes_written + other.bytes_written,
        }
    }

    /// The cost of attaching, and of reading in stops.
    pub fn of_stops(attach: ReadCost, stops: &StopTimes, read: ReadCost) -> Self {
        let us = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        AnswerCost {
            stopped_us: us(stops.total),
            until_stopped_us: us(stops.until_stopped),
            threads_stopped: stops.threads,
            bytes_read: attach.bytes + read.bytes,
            read_calls: attach.calls + read.calls,
            bytes_written: 0,
        }
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
