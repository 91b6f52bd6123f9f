//! `heap`: what holds the memory of a process.

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

/// What `heap --json` answers.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapAnswer {
    /// Who was asked, and who answered.
    #[serde(flatten)]
    pub source: Source,
    /// How spans and statistics hold together. Goroutines' stacks are always read while the process runs.
    pub consistency: Consistency,
    /// The objects found in spans are those that the runtime's own statistics count.
    pub adds_up: bool,
    /// The process was not stopped, because that would have taken longer than allowed.
    pub too_large_to_stop: bool,
    /// All of the heap.
    pub heap: Totals,
    /// Size classes that have spans, the smallest first.
    pub classes: Vec<SizeClass>,
    /// Objects above 32 KiB, each of which has a span to itself.
    pub large: Large,
    /// Stacks.
    pub stacks: StackTotals,
    /// The program is being brought down, by a panic, a fatal error or a signal, and ends when it has written its
    /// traceback. Absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicking: Option<bool>,
    /// What it took.
    pub cost: AnswerCost,
}

/// Sums of the heap.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// Bytes of allocated objects, those included that are dead and not yet swept (`HeapAlloc`).
    pub object_bytes: u64,
    /// Such objects (`HeapObjects`).
    pub objects: u64,
    /// Bytes of the spans that they are in (`HeapInuse`).
    pub span_bytes: u64,
    /// Of these, bytes that hold no object: fragmentation.
    pub unused_bytes: u64,
    /// Bytes of spans that are not in use (`HeapIdle`).
    pub idle_bytes: u64,
    /// Of these, bytes given back to the system (`HeapReleased`).
    pub released_bytes: u64,
    /// Bytes that the statistics count as allocated.
    pub counted_bytes: u64,
    /// Objects that the statistics count.
    pub counted_objects: u64,
}

/// A size class.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SizeClass {
    /// Bytes of an object at most.
    pub size_bytes: u64,
    /// Bytes of its spans that hold no object.
    pub unused_bytes: u64,
    /// Objects that can hold pointers.
    pub scan: Half,
    /// Objects that cannot.
    pub noscan: Half,
}

/// Large objects.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Large {
    /// Objects that can hold pointers.
    pub scan: Half,
    /// Objects that cannot.
    pub noscan: Half,
    /// The largest, the largest first.
    pub largest: Vec<Object>,
}

/// An object.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Object {
    /// Where it is, hexadecimal.
    pub address: String,
    /// Its bytes.
    pub bytes: u64,
    /// It can hold pointers.
    pub has_pointers: bool,
}

/// Stacks.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StackTotals {
    /// Bytes of spans for stacks (`StackInuse`).
    pub in_use_bytes: u64,
    /// Goroutines, those of the runtime included.
    pub goroutines: u64,
    /// Bytes of their stacks.
    pub goroutine_bytes: u64,
    /// Ended goroutines whose stacks are kept for new ones.
    pub ended_goroutines: u64,
    /// Bytes of those.
    pub ended_bytes: u64,
    /// Goroutines with the largest stacks, the largest first.
    pub largest: Vec<LargeStack>,
    /// Places that started the goroutines whose stacks take most together, those that take most first.
    pub by_creator: Vec<CreatorSum>,
}

/// A goroutine with a large stack.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LargeStack {
    /// Its number.
    pub goroutine: u64,
    /// Its state, in the words of the target's Go release.
    pub state: String,
    /// Bytes of its stack.
    pub bytes: u64,
    /// Of them, those that it uses; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where goroutines come from. What has no name is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Origin {
    /// The function that they began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The function that started them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// File and line of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// Goroutines of one origin.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreatorSum {
    /// How many.
    pub goroutines: u64,
    /// Bytes of their stacks.
    pub bytes: u64,
    /// Where they come from.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Origin {
    fn of(view: &View, creator: Creator) -> Self {
        let text = |name: Cow<'_, str>| name.into_owned();
        let begins = view.modules.lookup(creator.startpc);
        // No statement of the program started the first goroutine.
        let first = begins.is_some_and(|p| p.func.name() == b"runtime.main");
        let made = view.modules.lookup(creator.gopc).filter(|_| creator.gopc != 0 && !first);
        Origin {
            function: begins.map(|p| text(p.func.name_text())),
            created_by: made.map(|p| text(p.func.name_text())),
            created_at: made.map(|p| {
                // The pc is behind the call.
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
    /// What was read from outside.
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

    /// Writes it for people.
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

    /// The table of size classes, those that hold most first.
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
