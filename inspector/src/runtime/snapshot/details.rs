//! Data for a goroutine's header that lies outside of its g: labels, ancestors, bubble id.

use symbols::addr::RuntimeAddr;

use crate::memory::Memory;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::view::View;

/// Recorded ancestor (`runtime.ancestorInfo`, with GODEBUG=tracebackancestors).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Goroutine id of the ancestor.
    pub goid: u64,
    /// Program counter of the `go` statement that created the ancestor.
    pub gopc: u64,
    /// Return addresses of the ancestor at the creation of its child, innermost first.
    pub pcs: Vec<u64>,
}

/// Profiler labels in the order of the runtime.
pub type Labels = Vec<(Vec<u8>, Vec<u8>)>;

/// Data that a g refers to: labels, ancestors, bubble id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Profiler labels in the order of the runtime.
    pub labels: Labels,
    /// Ancestors, parent first.
    pub ancestors: Vec<Ancestor>,
    /// Id of the synctest bubble (from Go 1.25) or of its root goroutine (Go 1.24).
    pub bubble: Option<u64>,
}

const MAX_LABELS: u64 = 1 << 10;
const MAX_LABEL: u64 = 1 << 16;
const MAX_ANCESTORS: u64 = 1 << 10;
/// Maximum number of recorded program counters (`tracebackInnerFrames`, before Go 1.21 100), rounded up.
const MAX_ANCESTOR_PCS: u64 = 128;

impl Details {
    /// Returns true if `g` refers to labels, ancestors or a bubble.
    pub fn has_any(g: &Goroutine) -> bool {
        g.labels != 0 || g.ancestors != 0 || g.bubble != 0
    }

    /// Reads the data that `g` refers to; `None` if there is none.
    pub fn read(view: &View, memory: &dyn Memory, g: &Goroutine) -> Option<Box<Details>> {
        if !Details::has_any(g) {
            return None;
        }
        let details = Details {
            labels: labels(view, memory, g.labels).unwrap_or_default(),
            ancestors: ancestors(memory, g.ancestors).unwrap_or_default(),
            bubble: bubble(view, memory, g.bubble),
        };
        (details != Details::default()).then(|| Box::new(details))
    }
}

fn word(memory: &dyn Memory, addr: u64) -> Option<u64> {
    memory.word(RuntimeAddr(addr)).ok()
}

fn slice(memory: &dyn Memory, header: u64, max: u64) -> Option<(u64, u64)> {
    let (array, len) = (word(memory, header)?, word(memory, header.wrapping_add(8))?);
    (len <= max).then_some((array, len))
}

fn string(memory: &dyn Memory, header: u64) -> Option<Vec<u8>> {
    let (array, len) = slice(memory, header, MAX_LABEL)?;
    if len == 0 {
        return Some(Vec::new());
    }
    memory.bytes(RuntimeAddr(array), usize::try_from(len).ok()?).ok()
}

/// Reads the labels, a list of key–value strings: `label.Set` from Go 1.26, `pprof.LabelSet` in Go 1.24 and
/// 1.25 (with a list as its first field). Before Go 1.24, labels are a pointer to a map.
pub fn labels(view: &View, memory: &dyn Memory, at: u64) -> Option<Labels> {
    if at == 0 {
        return None;
    }
    if !view.release.keeps_labels_in_list() {
        return label_map(memory, word(memory, at)?);
    }
    let (array, len) = slice(memory, at, MAX_LABELS)?;
    (0..len)
        .map(|i| {
            let entry = array.wrapping_add(32 * i);
            Some((string(memory, entry)?, string(memory, entry.wrapping_add(16))?))
        })
        .collect()
}

/// Reads a `map[string]string` of Go 1.18–1.23 (`runtime/map.go`: `hmap`, `bmap`), sorted by keys. Maps of
/// labels never change once they are in a g.
fn label_map(memory: &dyn Memory, map: u64) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    /// Size of a bucket in bytes: eight hashes, eight keys, eight values, and the next bucket.
    const BUCKET: u64 = 8 + 8 * 16 + 8 * 16 + 8;
    /// Minimum hash of a used entry. Smaller values mark an empty or removed entry.
    const MIN_HASH: u8 = 5;
    if map == 0 {
        return None;
    }
    let count = word(memory, map).filter(|count| *count <= MAX_LABELS)?;
    let [flags, log, ..] = word(memory, map.wrapping_add(8))?.to_le_bytes();
    let buckets = 1u64.checked_shl(log.into()).filter(|n| *n <= MAX_LABELS)?;
    // While a map grows, entries not moved yet are in the old buckets: half as many, or equally many
    // (`sameSizeGrow`).
    let [now, before] = [word(memory, map.wrapping_add(16))?, word(memory, map.wrapping_add(24))?];
    let old = match before {
        0 => 0,
        _ if flags & 8 != 0 => buckets,
        _ => buckets / 2,
    };
    let starts = (0..buckets).map(|i| now.wrapping_add(i * BUCKET));
    let mut pending: Vec<u64> = starts.chain((0..old).map(|i| before.wrapping_add(i * BUCKET))).collect();
    let mut looked_at = 0;
    let mut labels = Vec::new();
    while let Some(at) = pending.pop() {
        looked_at += 1;
        if labels.len() as u64 == count || looked_at > 4 * MAX_LABELS {
            break;
        }
        let Ok(bucket) = memory.bytes(RuntimeAddr(at), BUCKET as usize) else { continue };
        for slot in (0..8u64).filter(|&i| bucket.get(i as usize).is_some_and(|&hash| hash >= MIN_HASH)) {
            let key = string(memory, at.wrapping_add(8 + 16 * slot))?;
            let value = string(memory, at.wrapping_add(8 + 8 * 16 + 16 * slot))?;
            labels.push((key, value));
        }
        let next = bucket.get(BUCKET as usize - 8..).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        pending.extend(next.filter(|&next| next != 0));
    }
    labels.sort();
    labels.dedup_by(|a, b| a.0 == b.0);
    Some(labels)
}

/// Reads `*[]ancestorInfo{pcs []uintptr, goid, gopc}`.
fn ancestors(memory: &dyn Memory, at: u64) -> Option<Vec<Ancestor>> {
    if at == 0 {
        return None;
    }
    let (array, len) = slice(memory, at, MAX_ANCESTORS)?;
    (0..len)
        .map(|i| {
            let info = array.wrapping_add(40 * i);
            let (pcs, count) = slice(memory, info, MAX_ANCESTOR_PCS)?;
            let bytes = memory.bytes(RuntimeAddr(pcs), 8 * usize::try_from(count).ok()?).ok()?;
            Some(Ancestor {
                goid: word(memory, info.wrapping_add(24))?,
                gopc: word(memory, info.wrapping_add(32))?,
                pcs: bytes
                    .chunks_exact(8)
                    .map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default()))
                    .collect(),
            })
        })
        .collect()
}

fn bubble(view: &View, memory: &dyn Memory, at: u64) -> Option<u64> {
    if at == 0 {
        return None;
    }
    if view.release.has_synctest_bubbles() {
        let id = view.table.field("runtime.synctestBubble", "id")?;
        return word(memory, at.wrapping_add(id.offset));
    }
    let root = view.table.field("runtime.synctestGroup", "root")?;
    let root = word(memory, at.wrapping_add(root.offset))?;
    view.read_g(memory, root).map(|g| g.goid)
}
