//! What a goroutine's header needs from outside its g: labels, ancestors, the number of its bubble.

use symbols::addr::RuntimeAddr;

use crate::memory::Memory;
use crate::runtime::goroutine::Goroutine;
use crate::runtime::view::View;

/// A recorded ancestor (`runtime.ancestorInfo`, with GODEBUG=tracebackancestors).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Its number.
    pub goid: u64,
    /// The pc of the `go` statement that created it.
    pub gopc: u64,
    /// Where it was when it created its child: return addresses, innermost first.
    pub pcs: Vec<u64>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Profiler labels in the order in which the runtime keeps them.
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    /// Ancestors, parent first.
    pub ancestors: Vec<Ancestor>,
    /// The synctest bubble's id (from Go 1.25) or its root goroutine (1.24).
    pub bubble: Option<u64>,
}

const MAX_LABELS: u64 = 1 << 10;
const MAX_LABEL: u64 = 1 << 16;
const MAX_ANCESTORS: u64 = 1 << 10;
/// As many as the runtime records at most (`tracebackInnerFrames`, before Go 1.21 100).
const MAX_ANCESTOR_PCS: u64 = 128;

impl Details {
    /// Whether `g` refers to any.
    pub fn has_any(g: &Goroutine) -> bool {
        g.labels != 0 || g.ancestors != 0 || g.bubble != 0
    }

    /// Reads what `g` refers to; `None` where that is nothing.
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

/// A list of key–value strings: `label.Set` from Go 1.26, `pprof.LabelSet` in 1.24 and 1.25 (with a list as its
/// first field). Before that a map, which no header shows.
fn labels(view: &View, memory: &dyn Memory, at: u64) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if at == 0 || view.minor < 24 {
        return None;
    }
    let (array, len) = slice(memory, at, MAX_LABELS)?;
    (0..len)
        .map(|i| {
            let entry = array.wrapping_add(32 * i);
            Some((string(memory, entry)?, string(memory, entry.wrapping_add(16))?))
        })
        .collect()
}

/// `*[]ancestorInfo{pcs []uintptr, goid, gopc}`.
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
    if view.minor >= 25 {
        let id = view.table.field("runtime.synctestBubble", "id")?;
        return word(memory, at.wrapping_add(id.offset));
    }
    let root = view.table.field("runtime.synctestGroup", "root")?;
    let root = word(memory, at.wrapping_add(root.offset))?;
    view.read_g(memory, root).map(|g| g.goid)
}
