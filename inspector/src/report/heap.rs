//! Answer of `heap`: memory of a process by objects, spans and stacks.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::io::{self, Write};

use serde::Serialize;

use super::answers::Source;
use super::go_text;
use super::stack::AnswerCost;
use super::traceback::header_status;
use crate::memory::ReadCost;
use crate::printable::printable_str;
use crate::runtime::heap::{Creator, Half, HeapReading};
use crate::runtime::memstats::{Consistency, Taken};
use crate::runtime::view::View;

/// Answer of `heap --json`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapAnswer {
    /// Target that was asked, and who answered.
    #[serde(flatten)]
    pub source: Source,
    /// Consistency of spans and statistics. Goroutines' stacks are always read while the process runs.
    pub consistency: Consistency,
    /// True if the objects found in spans are those that the runtime's own statistics count.
    pub adds_up: bool,
    /// True if the process was not stopped because a stop would have taken longer than allowed.
    pub too_large_to_stop: bool,
    /// Totals of the whole heap.
    pub heap: Totals,
    /// Size classes that have spans, the smallest first.
    pub classes: Vec<SizeClass>,
    /// Objects above 32 KiB. Each has a span to itself.
    pub large: Large,
    /// Memory of stacks.
    pub stacks: StackTotals,
    /// True if a panic, a fatal error or a signal is ending the program: it exits once its traceback is
    /// written. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicking: Option<bool>,
    /// Cost of the answer.
    pub cost: AnswerCost,
}

/// Totals of the heap.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// Bytes of allocated objects, including dead objects not yet swept (`HeapAlloc`).
    pub object_bytes: u64,
    /// Number of allocated objects, including dead objects not yet swept (`HeapObjects`).
    pub objects: u64,
    /// Bytes of the spans that hold objects (`HeapInuse`).
    pub span_bytes: u64,
    /// Part of `span_bytes` that holds no object: fragmentation.
    pub unused_bytes: u64,
    /// Bytes of spans that are not in use (`HeapIdle`).
    pub idle_bytes: u64,
    /// Part of `idle_bytes` that was given back to the system (`HeapReleased`).
    pub released_bytes: u64,
    /// Bytes that the runtime's statistics count as allocated.
    pub counted_bytes: u64,
    /// Number of objects that the runtime's statistics count.
    pub counted_objects: u64,
}

/// Size class of the allocator.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SizeClass {
    /// Maximum size of an object in bytes.
    pub size_bytes: u64,
    /// Bytes in spans of the class that hold no object.
    pub unused_bytes: u64,
    /// Objects that can hold pointers.
    pub scan: Half,
    /// Objects that cannot hold pointers.
    pub noscan: Half,
}

/// Objects above 32 KiB.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Large {
    /// Objects that can hold pointers.
    pub scan: Half,
    /// Objects that cannot hold pointers.
    pub noscan: Half,
    /// Largest objects, in descending order of size.
    pub largest: Vec<Object>,
}

/// Object on the heap.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Object {
    /// Address of the object in the target, hexadecimal.
    pub address: String,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// True if the object can hold pointers.
    pub has_pointers: bool,
}

/// Memory of stacks.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StackTotals {
    /// Bytes of spans for stacks (`StackInuse`).
    pub in_use_bytes: u64,
    /// Number of goroutines, including those of the runtime.
    pub goroutines: u64,
    /// Bytes of the goroutines' stacks.
    pub goroutine_bytes: u64,
    /// Number of ended goroutines whose stacks are kept for new ones.
    pub ended_goroutines: u64,
    /// Bytes of stacks of ended goroutines.
    pub ended_bytes: u64,
    /// Goroutines with the largest stacks, in descending order of size.
    pub largest: Vec<LargeStack>,
    /// Origins of the goroutines whose stacks take most memory together, in descending order.
    pub by_creator: Vec<CreatorSum>,
}

/// Goroutine with a large stack.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LargeStack {
    /// Number of the goroutine.
    pub goroutine: u64,
    /// State in the words of the target's Go release.
    pub state: String,
    /// Size of the stack in bytes.
    pub bytes: u64,
    /// Bytes of the stack in use. Absent while the goroutine runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Origin of the goroutine.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Origin of goroutines. Functions without a known name are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Origin {
    /// Function with which the goroutines began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Function that started the goroutines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Source file and line where the goroutines were started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// Goroutines of one origin.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreatorSum {
    /// Number of goroutines.
    pub goroutines: u64,
    /// Bytes of the goroutines' stacks.
    pub bytes: u64,
    /// Origin of the goroutines.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Origin {
    fn of(view: &View, creator: Creator) -> Self {
        let text = |name: Cow<'_, str>| name.into_owned();
        let begins = view.modules.lookup(creator.startpc);
        // The first goroutine was started by no statement of the program.
        let first = begins.is_some_and(|p| p.func.name() == b"runtime.main");
        let made = view.modules.lookup(creator.gopc).filter(|_| creator.gopc != 0 && !first);
        Origin {
            function: begins.map(|p| text(p.func.name_text())),
            created_by: made.map(|p| text(p.func.name_text())),
            created_at: made.map(|p| {
                // The program counter is behind the call.
                let (file, line) = p.func.file_line(symbols::addr::LinkAddr(p.link.0.saturating_sub(1)));
                format!("{}:{line}", String::from_utf8_lossy(file))
            }),
        }
    }

    fn describe(&self) -> String {
        let unknown = || "?".to_owned();
        let function = self.function.clone().unwrap_or_else(unknown);
        match (&self.created_by, &self.created_at) {
            (Some(by), Some(at)) => format!("{function}, created by {by} at {at}"),
            (Some(by), None) => format!("{function}, created by {by}"),
            _ => function,
        }
    }
}

impl HeapAnswer {
    /// Makes the answer from data read from outside.
    pub fn new(source: Source, view: &View, taken: Taken<HeapReading>, attach: ReadCost) -> Self {
        let cost = AnswerCost::of_stops(attach, &taken.stopped, taken.cost);
        let reading = taken.answer;
        let (spans, stacks) = (&reading.spans, &reading.stacks);
        let stats = &reading.statistics.memstats;
        let total = spans.total();
        let known = |value: Option<u64>| value.unwrap_or(0);
        let used = spans.classes.iter().skip(1).filter(|class| class.both().spans != 0);
        let large = spans.classes.first().copied().unwrap_or_default();
        HeapAnswer {
            source,
            consistency: taken.consistency,
            adds_up: reading.adds_up(),
            too_large_to_stop: reading.too_large_to_stop,
            heap: Totals {
                object_bytes: total.object_bytes,
                objects: total.objects,
                span_bytes: total.span_bytes,
                unused_bytes: total.unused_bytes(),
                idle_bytes: known(stats.heap_idle),
                released_bytes: known(stats.heap_released),
                counted_bytes: known(stats.heap_alloc),
                counted_objects: known(stats.heap_objects),
            },
            classes: used
                .map(|class| SizeClass {
                    size_bytes: class.size,
                    unused_bytes: class.both().unused_bytes(),
                    scan: class.scan,
                    noscan: class.noscan,
                })
                .collect(),
            large: Large {
                scan: large.scan,
                noscan: large.noscan,
                largest: spans
                    .largest
                    .iter()
                    .map(|object| Object {
                        address: format!("{:#x}", object.addr),
                        bytes: object.bytes,
                        has_pointers: !object.noscan,
                    })
                    .collect(),
            },
            stacks: StackTotals {
                in_use_bytes: known(stats.stack_inuse),
                goroutines: stacks.total.goroutines,
                goroutine_bytes: stacks.total.bytes,
                ended_goroutines: stacks.ended.goroutines,
                ended_bytes: stacks.ended.bytes,
                largest: stacks
                    .largest
                    .iter()
                    .map(|stack| LargeStack {
                        goroutine: stack.g.goid,
                        state: header_status(view, &stack.g).to_owned(),
                        bytes: stack.bytes,
                        used_bytes: stack.used,
                        origin: Origin::of(view, Creator { startpc: stack.g.startpc, gopc: stack.g.gopc }),
                    })
                    .collect(),
                by_creator: stacks
                    .by_creator
                    .iter()
                    .map(|&(creator, sum)| CreatorSum {
                        goroutines: sum.goroutines,
                        bytes: sum.bytes,
                        origin: Origin::of(view, creator),
                    })
                    .collect(),
            },
            panicking: None,
            cost,
        }
    }

    /// Writes the answer as text for people.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let heap = &self.heap;
        let bytes = go_text::bytes;
        writeln!(out, "objects: {}, {}", heap.objects, bytes(heap.object_bytes))?;
        writeln!(out, "spans in use: {}", bytes(heap.span_bytes))?;
        let percent = 100.0 * heap.unused_bytes as f64 / (heap.span_bytes.max(1)) as f64;
        writeln!(out, "unused in them: {}, {percent:.1}%", bytes(heap.unused_bytes))?;
        writeln!(out, "spans idle: {}", bytes(heap.idle_bytes))?;
        writeln!(out, "released of them: {}", bytes(heap.released_bytes))?;
        let stacks = &self.stacks;
        writeln!(out, "stacks in use: {}", bytes(stacks.in_use_bytes))?;
        writeln!(out, "stacks of {} goroutines: {}", stacks.goroutines, bytes(stacks.goroutine_bytes))?;
        writeln!(out, "stacks of {} ended ones: {}", stacks.ended_goroutines, bytes(stacks.ended_bytes))?;
        self.write_classes(out)?;
        if !self.large.largest.is_empty() {
            writeln!(out, "\nlargest objects:")?;
        }
        for object in &self.large.largest {
            let pointers = if object.has_pointers { "with pointers" } else { "without pointers" };
            writeln!(out, "  {} at {}, {pointers}", bytes(object.bytes), object.address)?;
        }
        if !stacks.largest.is_empty() {
            writeln!(out, "\nlargest stacks:")?;
        }
        for stack in &stacks.largest {
            let used = stack.used_bytes.map_or_else(String::new, |used| format!(", {used} used"));
            let line = format!(
                "  {}{used}: goroutine {} [{}], {}",
                bytes(stack.bytes),
                stack.goroutine,
                stack.state,
                stack.origin.describe(),
            );
            writeln!(out, "{}", printable_str(&line))?;
        }
        if !stacks.by_creator.is_empty() {
            writeln!(out, "\nstacks by origin:")?;
        }
        for sum in &stacks.by_creator {
            let line = format!("  {} of {}: {}", bytes(sum.bytes), sum.goroutines, sum.origin.describe());
            writeln!(out, "{}", printable_str(&line))?;
        }
        Ok(())
    }

    /// Writes the table of size classes, in descending order of bytes in objects.
    fn write_classes(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows: Vec<(String, Half, Half)> =
            self.classes.iter().map(|c| (c.size_bytes.to_string(), c.scan, c.noscan)).collect();
        rows.push(("large".to_owned(), self.large.scan, self.large.noscan));
        rows.retain(|(_, scan, noscan)| scan.spans + noscan.spans != 0);
        rows.sort_by_key(|(_, scan, noscan)| Reverse(scan.object_bytes.saturating_add(noscan.object_bytes)));
        writeln!(
            out,
            "\n{:>6} {:>12} {:>14} {:>12} {:>14} {:>8} {:>12}",
            "size", "with ptrs", "bytes", "without", "bytes", "spans", "unused"
        )?;
        for (size, scan, noscan) in rows {
            let unused = scan.unused_bytes().saturating_add(noscan.unused_bytes());
            writeln!(
                out,
                "{size:>6} {:>12} {:>14} {:>12} {:>14} {:>8} {unused:>12}",
                scan.objects,
                scan.object_bytes,
                noscan.objects,
                noscan.object_bytes,
                scan.spans.saturating_add(noscan.spans),
            )?;
        }
        Ok(())
    }
}
