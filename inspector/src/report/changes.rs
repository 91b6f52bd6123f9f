//! What commands say that change a process.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::change::gc::{Collection, Heap};
use crate::change::knob::{NO_LIMIT, Set};
use crate::change::word::{Width, Word};

/// A word that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Written {
    /// Its name in the runtime's source.
    pub name: String,
    /// Where it is.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub address: u64,
    /// How many bytes.
    pub bytes: usize,
    /// What it held.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub before: u64,
    /// What was written.
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

/// A word as people read it: `gcController.gcPercent (4 bytes at 0x5a1f40): 100 -> 50`.
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

/// What it took to change a process from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Effort {
    /// Nothing was written: only what would be is said.
    pub dry_run: bool,
    /// How often all threads were stopped.
    pub stops: u32,
    /// For how many microseconds, all stops together.
    pub stopped_us: u64,
    /// What was written, in order; in a dry run, what would be.
    pub written: Vec<Written>,
}

/// What `setgc` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetGc {
    /// The percentage from now on; negative: no collections.
    pub percent: i64,
    /// That before.
    pub previous_percent: i64,
    /// From outside only: what it took.
    #[serde(flatten)]
    pub effort: Option<Effort>,
}

impl SetGc {
    /// Reads the sentence of an agent.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.trim_end().strip_prefix("New GC percent set to ")?.strip_suffix('.')?;
        let (percent, previous) = rest.split_once(". Previous value was ")?;
        Some(SetGc { percent: percent.parse().ok()?, previous_percent: previous.parse().ok()?, effort: None })
    }

    /// What was done from outside.
    pub fn new(set: &Set<i32>, dry_run: bool) -> Self {
        let effort = Some(Effort::of(set, dry_run));
        SetGc { percent: set.now.into(), previous_percent: set.before.into(), effort }
    }
}

/// As an agent says it.
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

/// What `setmemlimit` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetMemLimit {
    /// The limit from now on, in bytes; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<i64>,
    /// That before; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_limit_bytes: Option<i64>,
    /// Bytes that no collection can free.
    pub overhead_bytes: u64,
    /// Bytes that the last collection found alive.
    pub heap_marked_bytes: u64,
    /// What it took.
    #[serde(flatten)]
    pub effort: Effort,
}

impl SetMemLimit {
    /// What was done from outside.
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

/// What `gc` says.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gc {
    /// The collection is done.
    pub collected: bool,
    /// From outside only: what it was.
    #[serde(flatten)]
    pub forced: Option<Forced>,
}

/// A collection that was forced from outside.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Forced {
    /// The number of the cycle (`NumGC` after it).
    pub cycle: u64,
    /// From the request to the end of marking, in microseconds.
    pub duration_us: u64,
    /// The cycle's garbage was freed within the time, too.
    pub swept: bool,
    /// The heap before.
    pub before: HeapSizes,
    /// The heap after.
    pub after: HeapSizes,
    /// Bytes that the cycle found alive.
    pub heap_marked_bytes: u64,
    /// GOGC was off, and was set for the moment until the cycle had begun.
    pub gogc_was_off: bool,
    /// What it took.
    #[serde(flatten)]
    pub effort: Effort,
}

/// Sizes of the heap.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapSizes {
    /// Bytes that live or were allocated since the last collection.
    pub live_bytes: u64,
    /// Bytes allocated and not freed, without what single threads have not yet reported; from Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Bytes in spans in use (`HeapInuse`); from Go 1.19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use_bytes: Option<u64>,
}

impl From<Heap> for HeapSizes {
    fn from(heap: Heap) -> Self {
        HeapSizes { live_bytes: heap.live, allocated_bytes: heap.allocated, in_use_bytes: heap.in_use }
    }
}

impl Gc {
    /// What was done from outside.
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
