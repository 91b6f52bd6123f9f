//! Machine-dependent rules for images: references of code to data, the place of g in a thread, and register
//! numbers in call frame information.
//!
//! To add a machine: write a folder beside `amd64` and an arm of [`machine`]. To examine its running
//! programs: also write a definition of [`HOST`]. Code outside of this folder names no instruction and no
//! register.

mod amd64;

/// Instruction mnemonics of the decoder. With a second machine, this type must become an enum.
pub(crate) use amd64::Mnemonic;

use object::elf;

use crate::addr::{CodeAddr, LinkAddr};
use crate::cfi::Row;
use crate::globals::code::Code;
use crate::image::Arch;
use crate::tls::GPlace;

/// Machine-dependent rules for images.
pub trait Machine: Sync + std::fmt::Debug {
    /// Finds the references to static data in the function at `entry`, and computes its fingerprint.
    fn decode(&self, entry: LinkAddr, code: &[u8]) -> Code;

    /// Finds the place of g in thread-local storage, from the code of a function at `entry` that begins with
    /// loading g.
    fn g_place(&self, code: &[u8], entry: LinkAddr) -> Option<GPlace>;

    /// Returns the registers that call frame information describes.
    fn columns(&self) -> &'static Columns;

    /// Returns the row of known code that libraries and linkers write without call frame information. `read`
    /// returns bytes of the image.
    fn row_of_code(&self, at: CodeAddr, read: &dyn Fn(LinkAddr, usize) -> Option<Vec<u8>>) -> Option<Row>;
}

/// Register numbers of a machine in DWARF.
#[derive(Debug, PartialEq, Eq)]
pub struct Columns {
    /// Number of registers that are followed: all registers with a lower number.
    pub count: usize,
    /// Column of the return address.
    pub ip: usize,
    /// Column of the stack pointer.
    pub sp: usize,
    /// Column of the frame pointer.
    pub fp: usize,
    /// Callee-saved registers: functions preserve them even without a rule that says so.
    pub kept: &'static [usize],
}

/// Maximum number of columns of any machine.
pub(crate) const MAX_COLUMNS: usize = amd64::COLUMNS.count;

/// Returns the rules for images of `arch`. `None` if `arch` is not supported.
pub fn machine(arch: Arch) -> Option<&'static dyn Machine> {
    match arch {
        Arch::Amd64 => Some(&amd64::Amd64),
        Arch::Arm64 | Arch::Other(_) => None,
    }
}

/// Rules of the machine that this program runs on. All processes that it can examine have the same machine.
#[cfg(target_arch = "x86_64")]
pub static HOST: &dyn Machine = &amd64::Amd64;

/// Returns the relocation type that adds the load bias, and the two relocation types that name a symbol. More
/// machines are known here than supported: the Go version of an unsupported program can be read too.
pub(crate) fn relocations(arch: Arch) -> Option<(elf::RelocationType, [elf::RelocationType; 2])> {
    match arch {
        Arch::Amd64 => Some((elf::R_X86_64_RELATIVE, [elf::R_X86_64_64, elf::R_X86_64_GLOB_DAT])),
        Arch::Arm64 => Some((elf::R_AARCH64_RELATIVE, [elf::R_AARCH64_ABS64, elf::R_AARCH64_GLOB_DAT])),
        Arch::Other(_) => None,
    }
}
