//! A function's code as recipes see it, whatever the machine: that decodes it ([`crate::arch::Machine::decode`]).

use std::fmt;
use std::str::FromStr;

use crate::addr::LinkAddr;
use crate::arch;
use crate::image::Image;
use crate::pclntab::Func;

/// No function of the runtime comes near; a larger one is a damaged table.
const MAX_CODE: u64 = 256 << 10;

/// What an instruction does, shown as its decoder names it: `Mov`, `Lea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub(crate) arch::Mnemonic);

impl Operation {
    /// Whether that is its name.
    pub fn is(self, name: &str) -> bool {
        self.to_string() == name
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An operand that names static data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The address that it names.
    pub target: LinkAddr,
    /// What the instruction does.
    pub operation: Operation,
}

/// The references of a function, in order, and its fingerprint.
#[derive(Debug, Clone, Default)]
pub struct Code {
    /// By address of the instruction.
    pub references: Vec<Reference>,
    /// Of all its instructions.
    pub fingerprint: Fingerprint,
}

/// A hash of a function's instructions without what linking decides: displacements of references and the targets
/// of calls. The same source compiled by the same compiler with the same options has the same one in every program.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// FNV-1a: it is written into tables, so it must never change.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 16).map(Fingerprint)
    }
}

/// Decodes a function of the image. `None` for a machine that there is no decoder for, or where there is no code.
pub fn decode(image: &Image, func: Func<'_>) -> Option<Code> {
    let machine = arch::machine(image.arch())?;
    let size = func.end().since(func.entry()).filter(|s| *s <= MAX_CODE)?;
    let bytes = image.read_vec(func.entry(), usize::try_from(size).ok()?).ok()?;
    Some(machine.decode(func.entry(), &bytes))
}
