//! What the unwinder has to know about an instruction, looked up once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use symbols::pclntab::args::{ArgToken, arg_tokens};

use super::modules::{Modules, Place};

/// Functions that the unwinder or the printer treats specially, recognised by their name: the runtime's numbers
/// for them change between releases, their names do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Nothing special.
    No,
    /// `runtime.sigpanic`, and `sigpanic0` that goes on to it: its caller was interrupted by a fault.
    SigPanic,
    /// `runtime.asyncPreempt`, `runtime.debugCallV2`: their caller was interrupted at an arbitrary instruction.
    Injected,
    /// `runtime.cgocallback`: switches stacks, yet both can be walked through it.
    CgoCallback,
    /// `runtime.gogo`, whose last part is a function of its own, `gogo`: about to continue a goroutine from its saved registers.
    Gogo,
    /// `racecall`: calls the race detector on the system stack.
    RaceCall,
}

/// What holds at an instruction.
#[derive(Debug, Clone)]
pub struct PcInfo {
    /// Runtime address of the function's entry.
    pub entry: u64,
    /// Frame size at this instruction; `None` where unknown: the walk ends before this frame.
    pub sp_delta: Option<u32>,
    /// The outermost function of a stack.
    pub top_frame: bool,
    /// Switches stacks: its caller is not found by its frame.
    pub writes_sp: bool,
    /// Special treatment.
    pub special: Special,
    /// The words that a traceback prints as arguments: offset from the argument area, size.
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

/// Program counters are well spread already: one multiplication is hash enough.
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

/// A map keyed by addresses.
pub type AddressMap<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

/// What a [`CodeCache`] knew.
#[derive(Debug, Default)]
pub struct KnownCode(AddressMap<Option<PcInfo>>);

/// Instructions seen so far.
#[derive(Debug)]
pub struct CodeCache<'m> {
    modules: &'m Modules,
    known: AddressMap<Option<PcInfo>>,
}

impl<'m> CodeCache<'m> {
    /// An empty cache over `modules`.
    pub fn new(modules: &'m Modules) -> Self {
        CodeCache { modules, known: AddressMap::default() }
    }

    /// A cache over `modules` that goes on with what an earlier one knew of them.
    pub fn resume(modules: &'m Modules, known: KnownCode) -> Self {
        CodeCache { modules, known: known.0 }
    }

    /// What it knows, to be kept beside the modules.
    pub fn into_known(self) -> KnownCode {
        KnownCode(self.known)
    }

    /// The modules that it looks into.
    pub fn modules(&self) -> &'m Modules {
        self.modules
    }

    /// What holds at `pc`, `None` outside of Go code.
    pub fn get(&mut self, pc: u64) -> Option<&PcInfo> {
        // Hostile stacks could make this grow without bound.
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        let modules = self.modules;
        self.known.entry(pc).or_insert_with(|| modules.lookup(pc).map(PcInfo::of)).as_ref()
    }
}

const MAX_KNOWN: usize = 1 << 20;
