//! Addresses as distinct types, one for each address space.
//!
//! A *link address* is an address as the ELF file states it.
//! A *runtime address* is an address in the memory of a process.
//! The *load bias* is the difference between both (0 for an executable linked at a fixed address).
//! A *program counter* is the address of the instruction that runs next.
//! A *return address* is the address of the instruction after a call.
//! A look-up in a pc table needs the program counter, or the return address minus one: [`CodeAddr`] keeps
//! them apart.

use std::fmt;

/// Link-time address, as the ELF file states it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LinkAddr(pub u64);

/// Runtime address: an address in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RuntimeAddr(pub u64);

/// Load bias: the number that the loader added to every link address of an image (modulo 2^64).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LoadBias(pub u64);

impl LoadBias {
    /// Returns the load bias that maps `link` to `runtime`.
    pub fn between(link: LinkAddr, runtime: RuntimeAddr) -> Self {
        LoadBias(runtime.0.wrapping_sub(link.0))
    }

    /// Converts a link address to the runtime address.
    pub fn runtime(self, link: LinkAddr) -> RuntimeAddr {
        RuntimeAddr(link.0.wrapping_add(self.0))
    }

    /// Converts a runtime address to the link address.
    pub fn link(self, runtime: RuntimeAddr) -> LinkAddr {
        LinkAddr(runtime.0.wrapping_sub(self.0))
    }
}

macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// Returns the address `bytes` higher, wrapping at the end of the address space.
            pub fn plus(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Returns the distance from `base` to this address, in bytes. `None` if `base` is higher.
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

/// Position of a frame in its function, as a link address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CodeAddr {
    /// Address of the instruction that runs next: the frame was interrupted or never started.
    Pc(LinkAddr),
    /// Return address: the instruction after a call that has not returned yet.
    Return(LinkAddr),
}

impl CodeAddr {
    /// Returns the address unchanged. A Go traceback prints the distance of this address from the entry.
    pub fn addr(self) -> LinkAddr {
        match self {
            CodeAddr::Pc(a) | CodeAddr::Return(a) => a,
        }
    }

    /// Returns the address to look up in pc tables. For a return address, this address is inside the call
    /// instruction, as in `runtime.traceback`. Exception: a return address equal to `entry` (a goroutine that
    /// never ran) stays unchanged.
    pub fn lookup(self, entry: LinkAddr) -> LinkAddr {
        match self {
            CodeAddr::Pc(a) => a,
            CodeAddr::Return(a) if a > entry => LinkAddr(a.0 - 1),
            CodeAddr::Return(a) => a,
        }
    }
}
