//! Answers of commands that change a process.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::change::gc::{Collection, Heap};
use crate::change::knob::{NO_LIMIT, Set};
use crate::change::word::{Width, Word};

/// Word of memory that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Written {
    /// Name of the word in the runtime's source.
    pub name: String,
    /// Address of the word in the target, hexadecimal.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub address: u64,
    /// Size of the word in bytes.
    pub bytes: usize,
    /// Value before the write, hexadecimal.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub before: u64,
    /// Value that was written, hexadecimal.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub after: u64,
}

fn hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

impl From<&Word> for Written {
    fn from(word: &Word) -> Self {
        Written {
            name: word.name.clone(),
            address: word.at.0,
            bytes: word.width.bytes(),
            before: word.before,
            after: word.after,
        }
    }
}

/// Text for people: `gcController.gcPercent (4 bytes at 0x5a1f40): 100 -> 50`.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: u64| {
            let signed = match Width::of(self.bytes as u64) {
                Some(Width::Four) => i64::from(u32::try_from(value).unwrap_or_default().cast_signed()),
                _ => value.cast_signed(),
            };
            if (-1..1 << 48).contains(&signed) { signed.to_string() } else { format!("{value:#x}") }
        };
        let Written { name, address, bytes, before, after } = self;
        write!(f, "{name} ({bytes} bytes at {address:#x}): {} -> {}", value(*before), value(*after))
    }
}

/// Effort of a change from outside: stops and writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Effort {
    /// True if nothing was written: the answer states only what would be written.
    pub dry_run: bool,
    /// Number of times that all threads were stopped.
    pub stops: u32,
    /// Total time of all stops, in microseconds.
    pub stopped_us: u64,
    /// Words written, in order. In a dry run: words that would be written.
    pub written: Vec<Written>,
}

/// Answer of `setgc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetGc {
    /// New GC percentage (GOGC). A negative value turns collections off.
    pub percent: i64,
    /// Previous GC percentage (GOGC).
    pub previous_percent: i64,
    /// Effort of the change. Absent if an agent made it.
    #[serde(flatten)]
    pub effort: Option<Effort>,
}

impl SetGc {
    /// Parses the sentence of an agent.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.trim_end().strip_prefix("New GC percent set to ")?.strip_suffix('.')?;
        let (percent, previous) = rest.split_once(". Previous value was ")?;
        Some(SetGc { percent: percent.parse().ok()?, previous_percent: previous.parse().ok()?, effort: None })
    }

    /// Makes the answer for a change made from outside.
    pub fn new(set: &Set<i32>, dry_run: bool) -> Self {
        let effort = Some(Effort::of(set, dry_run));
        SetGc { percent: set.now.into(), previous_percent: set.before.into(), effort }
    }
}

/// Text in the words of an agent.
impl fmt::Display for SetGc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SetGc { percent, previous_percent: previous, effort } = self;
        if effort.as_ref().is_some_and(|effort| effort.dry_run) {
            return write!(f, "GC percent would be set to {percent}. The value is {previous}.");
        }
        write!(f, "New GC percent set to {percent}. Previous value was {previous}.")
    }
}

impl Effort {
    fn of<T>(set: &Set<T>, dry_run: bool) -> Self {
        Effort {
            dry_run,
            stops: set.stops,
            stopped_us: microseconds(set.stopped),
            written: set.written.iter().map(Written::from).collect(),
        }
    }
}

fn microseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Answer of `setmemlimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetMemLimit {
    /// New memory limit in bytes. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<i64>,
    /// Previous memory limit in bytes. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_limit_bytes: Option<i64>,
    /// Number of bytes that no garbage collection can free.
    pub overhead_bytes: u64,
    /// Number of bytes that the last garbage collection found alive.
    pub heap_marked_bytes: u64,
    /// Effort of the change.
    #[serde(flatten)]
    pub effort: Effort,
}

impl SetMemLimit {
    /// Makes the answer for a change made from outside.
    pub fn new(set: &Set<i64>, needs: crate::change::knob::Needs, dry_run: bool) -> Self {
        let some = |limit: i64| (limit != NO_LIMIT).then_some(limit);
        SetMemLimit {
            limit_bytes: some(set.now),
            previous_limit_bytes: some(set.before),
            overhead_bytes: needs.overhead,
            heap_marked_bytes: needs.marked,
            effort: Effort::of(set, dry_run),
        }
    }
}

impl fmt::Display for SetMemLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |limit: Option<i64>| limit.map_or("off".to_owned(), |limit| limit.to_string());
        let (now, before) = (value(self.limit_bytes), value(self.previous_limit_bytes));
        if self.effort.dry_run {
            return write!(f, "Memory limit would be set to {now}. The value is {before}.");
        }
        write!(f, "New memory limit set to {now}. Previous value was {before}.")
    }
}

/// Answer of `gc`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gc {
    /// True if the collection is done.
    pub collected: bool,
    /// Details of the collection. Absent if an agent started it.
    #[serde(flatten)]
    pub forced: Option<Forced>,
}

/// Garbage collection that was forced from outside.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Forced {
    /// Number of the collection cycle (`NumGC` after it).
    pub cycle: u64,
    /// Time from the request to the end of marking, in microseconds.
    pub duration_us: u64,
    /// True if the cycle's garbage was also swept within `duration_us`.
    pub swept: bool,
    /// Heap sizes before the collection.
    pub before: HeapSizes,
    /// Heap sizes after the collection.
    pub after: HeapSizes,
    /// Number of bytes that the cycle found alive.
    pub heap_marked_bytes: u64,
    /// True if GOGC was off. A value was then set until the cycle had begun.
    pub gogc_was_off: bool,
    /// Effort of the collection.
    #[serde(flatten)]
    pub effort: Effort,
}

/// Sizes of the heap at one time.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapSizes {
    /// Bytes that the last collection found alive or that were allocated since.
    pub live_bytes: u64,
    /// Bytes allocated and not freed. Allocations that single threads have not yet reported are missing. From
    /// Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Bytes in spans in use (`HeapInuse`). From Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use_bytes: Option<u64>,
}

impl From<Heap> for HeapSizes {
    fn from(heap: Heap) -> Self {
        HeapSizes { live_bytes: heap.live, allocated_bytes: heap.allocated, in_use_bytes: heap.in_use }
    }
}

impl Gc {
    /// Makes the answer for a collection forced from outside.
    pub fn new(collection: &Collection, dry_run: bool) -> Self {
        let effort = Effort {
            dry_run,
            stops: collection.stops,
            stopped_us: microseconds(collection.stopped),
            written: collection.written.iter().map(Written::from).collect(),
        };
        let forced = Forced {
            cycle: collection.cycle,
            duration_us: microseconds(collection.duration),
            swept: collection.swept,
            before: collection.before.into(),
            after: collection.after.into(),
            heap_marked_bytes: collection.marked,
            gogc_was_off: collection.was_off,
            effort,
        };
        Gc { collected: !dry_run, forced: Some(forced) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let text = "New GC percent set to 200. Previous value was -1.";
        let said = SetGc::parse(&format!("{text}\n")).unwrap();
        assert_eq!(said, SetGc { percent: 200, previous_percent: -1, effort: None });
        assert_eq!(said.to_string(), text);
        assert_eq!(SetGc::parse("ok"), None);
    }

    #[test]
    fn words() {
        let word = |bytes, before, after| Written { name: "x".to_owned(), address: 16, bytes, before, after };
        assert_eq!(word(4, 0xffff_ffff, 50).to_string(), "x (4 bytes at 0x10): -1 -> 50");
        assert_eq!(word(8, 0, 1 << 63).to_string(), "x (8 bytes at 0x10): 0 -> 0x8000000000000000");
    }
}
