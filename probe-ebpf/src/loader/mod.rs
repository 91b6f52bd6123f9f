//! Who puts programs and maps into the kernel. The objects are the same, and so is what they do there.

mod aya;
#[cfg(feature = "libbpf")]
mod libbpf;

use std::os::fd::BorrowedFd;
#[cfg(feature = "libbpf")]
use std::path::Path;
use std::time::Duration;

use crate::Error;
use crate::records::SampledTarget;

/// Who loads the programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loader {
    /// The crate `aya`: needs nothing but Rust.
    #[default]
    Aya,
    /// The kernel's own library, which is C: has what the other lacks, and is what it is tested against.
    #[cfg(feature = "libbpf")]
    Libbpf,
}

impl Loader {
    /// Those that were built in.
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

/// Where the kernel describes its types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What to load.
#[derive(Debug)]
pub(crate) struct Object<'o> {
    /// A file that was compiled.
    pub(crate) bytes: &'o [u8],
    /// Values of its constants.
    pub(crate) constants: &'o [(&'static str, u32)],
    /// Its programs that are wanted.
    pub(crate) programs: &'o [Program],
}

/// A program of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) runs: Runs,
}

/// When a program runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runs {
    /// Where a CPU is interrupted.
    OnClock,
    /// At this tracepoint, with the kernel's types.
    OnTracepoint(&'static str),
    /// Where processes come to places in their code.
    #[cfg(feature = "libbpf")]
    AtPlaces,
}

/// Places in the code of a process.
#[cfg(feature = "libbpf")]
#[derive(Debug, Clone, Copy)]
pub struct Places<'p> {
    /// What the process executes, as seen from here (`/proc/PID/exe`).
    pub file: &'p Path,
    /// The process; everyone who executes the file where there is none.
    pub pid: Option<u32>,
    /// Offsets in the file, of whole instructions.
    pub offsets: &'p [u64],
}

/// What the kernel says that a program cost (`bpf_stats_enabled`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// How often it ran.
    pub runs: u64,
    /// For how long in all.
    pub time: Duration,
}

/// An object in the kernel. Its programs, what they are attached to and its maps end with it: nothing is pinned.
pub(crate) trait Loaded {
    /// Runs a program on each of the CPUs, that many times in a second.
    fn on_clock(&mut self, program: &'static str, cpus: &[u32], rate: u32) -> Result<(), Error>;

    /// Runs a program at its tracepoint.
    fn on_tracepoint(&mut self, program: &'static str) -> Result<(), Error>;

    /// Runs a program at all of the places, which are one attachment in the kernel.
    #[cfg(feature = "libbpf")]
    fn at_places(&mut self, program: &'static str, places: &Places<'_>) -> Result<(), Error>;

    /// Puts a target into the map `targets`.
    fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error>;

    /// A value of the map `counters`, summed over all CPUs.
    fn counter(&self, index: u32) -> Result<u64, Error>;

    /// What a program cost, where that is measured.
    fn cost(&self, program: &'static str) -> Option<ProgramCost>;

    /// Passes on what is in the ring buffer `records`.
    fn read(&mut self, each: &mut dyn FnMut(&[u8]));

    /// The ring buffer, to wait for.
    fn ring(&self) -> BorrowedFd<'_>;
}
