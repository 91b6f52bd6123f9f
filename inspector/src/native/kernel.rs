//! Code of the kernel.

use std::cell::OnceCell;
use std::fs;

use symbols::native::KernelSymbols;

use super::frame::Named;
use crate::profile::Function;

/// Functions of the kernel, read at the first lookup.
#[derive(Debug, Default)]
pub struct Kernel(OnceCell<KernelSymbols>);

impl Kernel {
    /// Returns the function at an address; `None` also if the kernel hides addresses from us
    /// (`kernel.kptr_restrict`).
    pub fn function(&self, address: u64) -> Option<Named> {
        let read = || {
            fs::read_to_string("/proc/kallsyms").map(|text| KernelSymbols::parse(&text)).unwrap_or_default()
        };
        let name = self.0.get_or_init(read).name(address)?.to_owned();
        Some(Named { function: Function { name, ..Function::default() }, line: 0 })
    }
}
