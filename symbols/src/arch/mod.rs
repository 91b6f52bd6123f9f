//! What depends on the machine that an image is for: how its code refers to data, where a thread keeps its goroutine, the
//! numbers of registers in call frame information.
//!
//! A machine is a folder beside `amd64`, an arm of [`machine`] and, where programs of it are looked at while they run, one of
//! [`HOST`]. Nothing outside of this folder knows an instruction or a register.

mod amd64;

/// Names of instructions, as the decoder of the only machine has them; of several it has to be an enum.
pub(crate) use amd64::Mnemonic;

use object::elf;

use crate::addr::{CodeAddr, LinkAddr};
use crate::cfi::Row;
use crate::globals::code::Code;
use crate::image::Arch;
use crate::tls::GPlace;

/// The rules of a machine for its images.
pub trait Machine: Sync + std::fmt::Debug {
    /// The references to static data in a function at `entry`, and its fingerprint.
    fn decode(&self, entry: LinkAddr, code: &[u8]) -> Code;

    /// Where g is in thread-local storage, by the code of a function at `entry` that begins with loading it.
    fn g_place(&self, code: &[u8], entry: LinkAddr) -> Option<GPlace>;

    /// The registers that call frame information follows.
    fn columns(&self) -> &'static Columns;

    /// What holds in code that libraries and linkers write without call frame information. `read` gives the image's bytes.
    fn row_of_code(&self, at: CodeAddr, read: &dyn Fn(LinkAddr, usize) -> Option<Vec<u8>>) -> Option<Row>;
}

/// Numbers that DWARF gives to a machine's registers.
#[derive(Debug, PartialEq, Eq)]
pub struct Columns {
    /// How many of them are followed: all below this number.
    pub count: usize,
    /// The column of where a function returns to.
    pub ip: usize,
    /// The stack pointer.
    pub sp: usize,
    /// The frame pointer.
    pub fp: usize,
    /// Those that functions leave as they found them, without a rule that says so.
    pub kept: &'static [usize],
}

/// The most columns that a machine has.
pub(crate) const MAX_COLUMNS: usize = amd64::COLUMNS.count;

/// The rules for images of `arch`; `None` where it is not supported.
pub fn machine(arch: Arch) -> Option<&'static dyn Machine> {
    match arch {
        Arch::Amd64 => Some(&amd64::Amd64),
        Arch::Arm64 | Arch::Other(_) => None,
    }
}

/// The rules of the machine that this program runs on, and so those of all processes that it can look at.
#[cfg(target_arch = "x86_64")]
pub static HOST: &dyn Machine = &amd64::Amd64;

/// The kind of relocation that adds the load bias, and those that name a symbol. They are known for more machines than are
/// supported, so that a program of another one says its version.
pub(crate) fn relocations(arch: Arch) -> Option<(elf::RelocationType, [elf::RelocationType; 2])> {
    match arch {
        Arch::Amd64 => Some((elf::R_X86_64_RELATIVE, [elf::R_X86_64_64, elf::R_X86_64_GLOB_DAT])),
        Arch::Arm64 => Some((elf::R_AARCH64_RELATIVE, [elf::R_AARCH64_ABS64, elf::R_AARCH64_GLOB_DAT])),
        Arch::Other(_) => None,
    }
}
