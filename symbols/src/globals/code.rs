//! Code of a function for recipes, independent of the machine. The machine decodes it
//! ([`crate::arch::Machine::decode`]).

use std::fmt;
use std::str::FromStr;

use crate::addr::LinkAddr;
use crate::arch;
use crate::image::Image;
use crate::pclntab::Func;

/// Maximum size of a function in bytes. Functions of the runtime are much smaller; a larger one means a
/// damaged table.
const MAX_CODE: u64 = 256 << 10;

/// Operation of an instruction. `Display` shows the decoder's name for it: `Mov`, `Lea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub(crate) arch::Mnemonic);

impl Operation {
    /// Returns true if `name` is the name of the operation.
    pub fn is(self, name: &str) -> bool {
        self.to_string() == name
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Operand that refers to static data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Link address that the operand refers to.
    pub target: LinkAddr,
    /// Operation of the instruction.
    pub operation: Operation,
}

/// References and fingerprint of a function.
#[derive(Debug, Clone, Default)]
pub struct Code {
    /// References, in the order of their instructions.
    pub references: Vec<Reference>,
    /// Fingerprint of all instructions.
    pub fingerprint: Fingerprint,
}

/// Hash of a function's instructions. It leaves out the values that linking decides: displacements of
/// references and targets of calls. The same source, compiler and options give the same hash in every
/// program.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds bytes to the hash, by FNV-1a. The algorithm must never change, because the tables contain its
    /// results.
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

/// Decodes a function of the image. `None` if the machine has no decoder, or the function no code.
pub fn decode(image: &Image, func: Func<'_>) -> Option<Code> {
    let machine = arch::machine(image.arch())?;
    let size = func.end().since(func.entry()).filter(|s| *s <= MAX_CODE)?;
    let bytes = image.read_vec(func.entry(), usize::try_from(size).ok()?).ok()?;
    Some(machine.decode(func.entry(), &bytes))
}
