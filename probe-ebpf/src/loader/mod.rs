//! Loaders that put programs and maps into the kernel. The objects and their effect are the same for each
//! loader.

mod aya;
#[cfg(feature = "libbpf")]
mod libbpf;

use std::os::fd::BorrowedFd;
#[cfg(feature = "libbpf")]
use std::path::Path;
use std::time::Duration;

use crate::Error;
use crate::records::SampledTarget;

/// Loader of the BPF programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loader {
    /// Crate `aya`: needs only Rust.
    #[default]
    Aya,
    /// Kernel's own C library `libbpf`: has features that `aya` lacks, and is the reference in tests of `aya`.
    #[cfg(feature = "libbpf")]
    Libbpf,
}

impl Loader {
    /// Loaders that were built in.
    pub const ALL: &'static [Loader] = &[
        Loader::Aya,
        #[cfg(feature = "libbpf")]
        Loader::Libbpf,
    ];

    pub(crate) fn load(self, object: &Object<'_>) -> Result<Box<dyn Loaded + Send>, Error> {
        if let Err(error) = std::fs::File::open(KERNEL_TYPES) {
            return Err(Error::NoTypes(error.to_string()));
        }
        Ok(match self {
            Loader::Aya => Box::new(aya::Loaded::load(object)?),
            #[cfg(feature = "libbpf")]
            Loader::Libbpf => Box::new(libbpf::Loaded::load(object)?),
        })
    }
}

/// Path of the kernel's type information.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Object to load.
#[derive(Debug)]
pub(crate) struct Object<'o> {
    /// Bytes of the compiled object file.
    pub(crate) bytes: &'o [u8],
    /// Values of the object's constants.
    pub(crate) constants: &'o [(&'static str, u32)],
    /// Programs of the object to load.
    pub(crate) programs: &'o [Program],
}

/// Program of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) runs: Runs,
}

/// Trigger of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runs {
    /// Interrupt of a CPU.
    OnClock,
    /// Tracepoint with this name, with the kernel's types.
    OnTracepoint(&'static str),
    /// Places in the code of processes.
    #[cfg(feature = "libbpf")]
    AtPlaces,
}

/// Places in the code of a process.
#[cfg(feature = "libbpf")]
#[derive(Debug, Clone, Copy)]
pub struct Places<'p> {
    /// Path of the executed file, as seen from here (`/proc/PID/exe`).
    pub file: &'p Path,
    /// Pid of the process; `None` for all processes that execute the file.
    pub pid: Option<u32>,
    /// Offsets of instructions in the file.
    pub offsets: &'p [u64],
}

/// Cost of a program as measured by the kernel (`bpf_stats_enabled`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Number of runs.
    pub runs: u64,
    /// Total run time.
    pub time: Duration,
}

/// Object in the kernel. Its programs, attachments and maps end with it: nothing is pinned.
pub(crate) trait Loaded {
    /// Runs a program on each of the CPUs, `rate` times a second.
    fn on_clock(&mut self, program: &'static str, cpus: &[u32], rate: u32) -> Result<(), Error>;

    /// Runs a program at its tracepoint.
    fn on_tracepoint(&mut self, program: &'static str) -> Result<(), Error>;

    /// Runs a program at all of the places, which are one attachment in the kernel.
    #[cfg(feature = "libbpf")]
    fn at_places(&mut self, program: &'static str, places: &Places<'_>) -> Result<(), Error>;

    /// Puts a target into the map `targets`.
    fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error>;

    /// Returns a value of the map `counters`, summed over all CPUs.
    fn counter(&self, index: u32) -> Result<u64, Error>;

    /// Returns the cost of a program, if it is measured.
    fn cost(&self, program: &'static str) -> Option<ProgramCost>;

    /// Passes on the records in the ring buffer `records`.
    fn read(&mut self, each: &mut dyn FnMut(&[u8]));

    /// File descriptor of the ring buffer, to wait for records.
    fn ring(&self) -> BorrowedFd<'_>;
}
