//! Addresses, kept apart by the space that they live in.
//!
//! A *link address* is what the ELF file says; a *runtime address* is where the kernel put it in a process;
//! the *load bias* lies between them (0 for an executable linked at a fixed address).
//! A *program counter* names the instruction that runs next; a *return address* names the one after a call.
//! A look-up in a pc table needs the former or the latter minus one, so they are distinct types too.

use std::fmt;

/// An address as the ELF file states it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LinkAddr(pub u64);

/// An address in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RuntimeAddr(pub u64);

/// What the loader added to every link address of an image (modulo 2^64).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LoadBias(pub u64);

impl LoadBias {
    /// The bias that takes `link` to `runtime`.
    pub fn between(link: LinkAddr, runtime: RuntimeAddr) -> Self {
        LoadBias(runtime.0.wrapping_sub(link.0))
    }

    /// Where a link address is in the process.
    pub fn runtime(self, link: LinkAddr) -> RuntimeAddr {
        RuntimeAddr(link.0.wrapping_add(self.0))
    }

    /// What the file calls an address of the process.
    pub fn link(self, runtime: RuntimeAddr) -> LinkAddr {
        LinkAddr(runtime.0.wrapping_sub(self.0))
    }
}

macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// The address `bytes` further up, wrapping at the end of the address space.
            pub fn plus(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The distance from `base` up to here, where `base` is not above.
            pub fn since(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(LinkAddr);
address!(RuntimeAddr);

impl fmt::Debug for LoadBias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:#x}", self.0)
    }
}

/// Where a frame stands in its function, in link addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CodeAddr {
    /// The instruction that runs next: an interrupted or never started frame.
    Pc(LinkAddr),
    /// The instruction after a call that has not returned yet.
    Return(LinkAddr),
}

impl CodeAddr {
    /// The address itself, as a traceback prints its distance from the entry.
    pub fn addr(self) -> LinkAddr {
        match self {
            CodeAddr::Pc(a) | CodeAddr::Return(a) => a,
        }
    }

    /// The address to look up in pc tables: inside the call instruction for a return address, unless that is
    /// the very entry of its function (a goroutine that never ran), as `runtime.traceback` does.
    pub fn lookup(self, entry: LinkAddr) -> LinkAddr {
        match self {
            CodeAddr::Pc(a) => a,
            CodeAddr::Return(a) if a > entry => LinkAddr(a.0 - 1),
            CodeAddr::Return(a) => a,
        }
    }
}
