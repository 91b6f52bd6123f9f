//! Cached facts about instructions for the unwinder.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use symbols::pclntab::args::{ArgToken, arg_tokens};

use super::modules::{Modules, Place};

/// Functions with special treatment in the unwinder or the printer, recognised by name. The runtime changes
/// their ids (`funcID`) between releases, but not their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Function without special treatment.
    No,
    /// `runtime.sigpanic`, and `sigpanic0` which continues in it. A fault interrupted the caller.
    SigPanic,
    /// `runtime.asyncPreempt`, `runtime.debugCallV2`. The caller was interrupted at an arbitrary
    /// instruction.
    Injected,
    /// `runtime.cgocallback`. It switches stacks, and yet both stacks can be unwound through it.
    CgoCallback,
    /// `runtime.gogo`, and its last part, which is a separate function `gogo`. It is about to resume a
    /// goroutine from saved registers.
    Gogo,
    /// `racecall`. It calls the race detector on the system stack.
    RaceCall,
}

/// Facts about one instruction.
#[derive(Debug, Clone)]
pub struct PcInfo {
    /// Runtime address of the function's entry.
    pub entry: u64,
    /// Frame size at this instruction, in bytes. `None` if unknown: the unwinding ends before this frame.
    pub sp_delta: Option<u32>,
    /// True if the function is the outermost of a stack.
    pub top_frame: bool,
    /// True if the function switches stacks. Its frame does not lead to its caller.
    pub writes_sp: bool,
    /// Special treatment of the function.
    pub special: Special,
    /// Words that a traceback prints as arguments: offset from the argument area, and size.
    pub arg_slots: Box<[(u8, u8)]>,
}

impl PcInfo {
    pub(crate) fn of(place: Place<'_>) -> Self {
        let Place { module, func, link } = place;
        let special = match func.name() {
            b"runtime.sigpanic" | b"runtime.sigpanic0" => Special::SigPanic,
            b"runtime.asyncPreempt" | b"runtime.debugCallV2" => Special::Injected,
            b"runtime.cgocallback" => Special::CgoCallback,
            b"gogo" | b"runtime.gogo" => Special::Gogo,
            b"racecall" => Special::RaceCall,
            _ => Special::No,
        };
        let flags = func.flags();
        let arg_slots = arg_tokens(&module.image, func, link).unwrap_or_default();
        PcInfo {
            entry: module.bias.runtime(func.entry()).0,
            sp_delta: func.sp_delta(link),
            top_frame: flags.top_frame(),
            writes_sp: flags.writes_sp() && special != Special::CgoCallback,
            special,
            arg_slots: arg_slots
                .iter()
                .filter_map(|token| match *token {
                    ArgToken::Slot { offset, size, .. } => Some((offset, size)),
                    _ => None,
                })
                .collect(),
        }
    }
}

/// Hasher for addresses. Program counters are already well spread, so one multiplication suffices.
#[derive(Debug, Default, Clone, Copy)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(26) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
}

/// Map keyed by addresses.
pub type AddressMap<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

/// Contents of a [`CodeCache`] without its modules.
#[derive(Debug, Default)]
pub struct KnownCode(AddressMap<Option<PcInfo>>);

/// Cache of facts about instructions.
#[derive(Debug)]
pub struct CodeCache<'m> {
    modules: &'m Modules,
    known: AddressMap<Option<PcInfo>>,
}

impl<'m> CodeCache<'m> {
    /// Creates an empty cache over `modules`.
    pub fn new(modules: &'m Modules) -> Self {
        CodeCache { modules, known: AddressMap::default() }
    }

    /// Creates a cache over `modules` from the contents of an earlier cache over the same modules.
    pub fn resume(modules: &'m Modules, known: KnownCode) -> Self {
        CodeCache { modules, known: known.0 }
    }

    /// Returns the contents, to be stored beside the modules.
    pub fn into_known(self) -> KnownCode {
        KnownCode(self.known)
    }

    /// Modules of the cache.
    pub fn modules(&self) -> &'m Modules {
        self.modules
    }

    /// Returns the facts about the instruction at `pc`, `None` outside of Go code.
    pub fn get(&mut self, pc: u64) -> Option<&PcInfo> {
        // Hostile stacks could otherwise make the cache grow without bound.
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        let modules = self.modules;
        self.known.entry(pc).or_insert_with(|| modules.lookup(pc).map(PcInfo::of)).as_ref()
    }
}

const MAX_KNOWN: usize = 1 << 20;
