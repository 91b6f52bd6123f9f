//! Answer of `stack`.

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

/// Filter of the goroutines of a snapshot.
#[derive(Debug, Default)]
pub struct Filter {
    /// Goroutine number. `None` accepts all.
    pub goid: Option<u64>,
    /// State: wait reason or status, as the header shows it. `None` accepts all.
    pub state: Option<String>,
    /// Pattern that a goroutine's text must match. `None` accepts all.
    pub pattern: Option<regex::bytes::Regex>,
}

impl Filter {
    /// Returns true if all goroutines pass.
    pub fn is_empty(&self) -> bool {
        self.goid.is_none() && self.state.is_none() && self.pattern.is_none()
    }
}

/// Numbers of goroutines in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// Number of goroutines written.
    pub goroutines: usize,
    /// Number of written goroutines that are not proven to have been in this state at the instant of the
    /// snapshot.
    pub unconfirmed: usize,
    /// Number of written goroutines without any frames.
    pub unavailable: usize,
    /// Number of written goroutines whose outermost frames are missing.
    pub incomplete: usize,
}

impl Counts {
    /// Adds the counts of another runtime.
    pub fn and(self, other: Counts) -> Self {
        Counts {
            goroutines: self.goroutines + other.goroutines,
            unconfirmed: self.unconfirmed + other.unconfirmed,
            unavailable: self.unavailable + other.unavailable,
            incomplete: self.incomplete + other.incomplete,
        }
    }
}

/// Function that writes a goroutine.
type Item<'i> = dyn Fn(&mut Printer<'_>, &Slot, &mut Vec<u8>) -> io::Result<()> + Sync + 'i;

/// Goroutines converted to text.
#[derive(Default)]
struct Part {
    text: Vec<u8>,
    counts: Counts,
    /// True if no further text follows of the goroutines that were to be converted together.
    is_last: bool,
}

/// Number of goroutines that one core converts to text at a time.
const PART: usize = 256;
/// Number of parts that a core makes before the first of them is written.
const PARTS_AHEAD: usize = 2;
/// Size in bytes at which a part ends early. Honest processes need a tenth of it for [`PART`] goroutines;
/// hostile ones could need far more than all of it.
const ENOUGH_TEXT: usize = 4 << 20;
/// Number of goroutines from which several cores are used. Fewer are converted before other threads have
/// started.
const WORTH_ALL_CORES: usize = 2048;

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.goroutines += other.goroutines;
        self.unconfirmed += other.unconfirmed;
        self.unavailable += other.unavailable;
        self.incomplete += other.incomplete;
    }

    /// Returns true if goroutines that were asked for have no frames.
    pub fn is_partial(&self) -> bool {
        self.unavailable > 0
    }
}

/// Writer of a snapshot, one goroutine at a time.
#[derive(Debug)]
pub struct StackReport<'v> {
    view: &'v View,
    snapshot: &'v Snapshot,
    filter: &'v Filter,
    level: Level,
}

impl<'v> StackReport<'v> {
    /// Makes a report of the goroutines that `filter` lets pass.
    pub fn new(view: &'v View, snapshot: &'v Snapshot, filter: &'v Filter, level: Level) -> Self {
        StackReport { view, snapshot, filter, level }
    }

    fn wants(&self, g: &Goroutine) -> bool {
        self.filter.goid.is_none_or(|id| id == g.goid)
            && self.filter.state.as_deref().is_none_or(|s| s == header_status(self.view, g))
    }

    /// Writes each wanted goroutine as `item` makes it, with `separator` in between. Work is done part by
    /// part, by all cores if there are many goroutines.
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
            // Each core makes every n-th part, n being the number of cores. It waits while its finished parts
            // are not yet written: memory is bounded. Written buffers are used again.
            let makers: Vec<_> = (0..cores)
                .map_while(|core| {
                    let (made, to_write) = sync_channel(PARTS_AHEAD);
                    let (written, to_make) = channel();
                    let (tell, told) = channel();
                    let parts = &parts;
                    let maker = threads::start_in(scope, "text", move || {
                        // The number of cores is known when the last thread has started.
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
                                // The receiver is gone if writing has failed.
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
                // If the thread died, the scope reports it.
                let _died = tell.send(makers.len());
            }
            for (to_write, written, _) in makers.iter().cycle().take(parts.len()) {
                // If the thread died, the scope reports it.
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

    /// Does the same as [`StackReport::each`], on the calling thread alone.
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

    /// Converts goroutines to text, each with the separator before it, until all are done or the text is
    /// large enough. Returns the remaining goroutines.
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

    /// Counts the goroutines in each state, regardless of the filter.
    pub fn states(&self) -> States {
        let printer = Printer::new(self.view, self.level);
        let included = self.snapshot.slots.iter().filter(|slot| printer.includes(self.snapshot, slot));
        States::of(included.map(|slot| header_status(self.view, &slot.g)))
    }

    /// Returns true if a header of this release can show the state `name` (`runtime.gStatusStrings`,
    /// `runtime.waitReasonStrings`).
    pub fn is_state(&self, name: &str) -> bool {
        status::NAMES.contains(&name) || self.view.table.wait_reasons().iter().any(|reason| reason == name)
    }

    /// Writes the text that Go itself prints, with an empty line between goroutines.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.each(b"\n", &|printer, slot, out| printer.write(self.snapshot, slot, out), out)
    }

    /// Writes one JSON object. Goroutines are written one by one, so that memory stays bounded.
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
        // Goroutines are appended within the same object.
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

    /// Returns the wanted goroutines in their JSON form. The filter's pattern is ignored: it matches the
    /// printed text.
    pub fn goroutines(self) -> impl Iterator<Item = WrittenGoroutine<'v>> {
        let mut printer = Printer::new(self.view, self.level);
        let snapshot = self.snapshot;
        snapshot.slots.iter().filter_map(move |slot| {
            let wanted = printer.includes(snapshot, slot) && self.wants(&slot.g);
            wanted.then(|| self.goroutine(&mut printer, slot))
        })
    }

    /// Counts the goroutines of [`StackReport::goroutines`].
    pub fn len(&self) -> usize {
        let printer = Printer::new(self.view, self.level);
        let wanted = |slot: &&Slot| printer.includes(self.snapshot, slot) && self.wants(&slot.g);
        self.snapshot.slots.iter().filter(wanted).count()
    }

    /// Returns true if [`StackReport::goroutines`] is empty.
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

/// Number of goroutines in each state, the most frequent state first.
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

    /// Adds the states of another runtime.
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

/// Text such as `12 in chan receive, 3 in select`.
impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (state, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} in {state}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Cost of an answer for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Cost"))]
pub struct AnswerCost {
    /// Total time that all threads were stopped, in microseconds. Without a pause: longest stop of a single
    /// thread.
    pub stopped_us: u64,
    /// Part of `stopped_us` until the last thread had stopped, in microseconds.
    pub until_stopped_us: u64,
    /// Number of threads that were stopped.
    pub threads_stopped: usize,
    /// Bytes read from the target's memory.
    pub bytes_read: u64,
    /// System calls made to read the target's memory.
    pub read_calls: u64,
    /// Bytes written to the target's memory.
    pub bytes_written: u64,
}

/// Text for `-v` where all threads were stopped at once.
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
    /// Describes the number of bytes written, in words.
    pub fn written(&self) -> String {
        match self.bytes_written {
            0 => "none written".to_owned(),
            bytes => format!("{bytes} written"),
        }
    }

    /// Makes the cost of attaching and of a snapshot.
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

    /// Makes the cost of reading without stops.
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

    /// Adds the cost of another answer that was made before or after.
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

    /// Makes the cost of attaching, and of reading during stops.
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
