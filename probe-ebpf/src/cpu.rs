//! Sampling of running threads on the CPUs (`bpf/cpu.bpf.c`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::{include_bytes_aligned, util};

use crate::Error;
#[cfg(feature = "libbpf")]
pub use crate::loader::Places;
use crate::loader::{Loaded, Object, Program, Runs};
pub use crate::loader::{Loader, ProgramCost};
use crate::records::{Record, SampledTarget};

static OBJECT: &[u8] = include_bytes_aligned!("../prebuilt/cpu.bpf.o");

/// Options of a sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerOptions {
    /// Samples per second and CPU.
    pub rate: u32,
    /// True to sample all processes, not only those that are added.
    pub whole_system: bool,
    /// True to include frames of the kernel.
    pub kernel_frames: bool,
    /// Bytes of stack to copy with each sample of native code; at most 16384.
    pub stack: u32,
    /// True to follow processes that targets begin.
    pub follow: bool,
    /// Loader of the programs.
    pub loader: Loader,
}

/// Counts of the BPF programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of interrupts, also of CPUs that ran other threads.
    pub fired: u64,
    /// Number of samples of targets.
    pub taken: u64,
    /// Number of samples lost because the buffer was full.
    pub lost: u64,
    /// Number of sample parts and of fork and exec records lost because the buffer was full.
    pub lost_parts: u64,
}

/// Loaded sampling programs. They end when the sampler is dropped.
pub struct Sampler {
    loaded: Box<dyn Loaded + Send>,
    /// File descriptor that keeps the measurement of programs enabled.
    _statistics: Option<std::os::fd::OwnedFd>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

const ON_CPU: &str = "on_cpu";
const ON_FORK: &str = "on_fork";
const ON_EXEC: &str = "on_exec";

impl Sampler {
    /// Loads the programs. They do not run yet.
    ///
    /// # Errors
    /// Returns an error if the kernel lacks or denies something, or if its verifier refuses a program; the
    /// latter has the verifier's log.
    pub fn load(options: &SamplerOptions) -> Result<Self, Error> {
        Self::load_object(OBJECT, options, Runs::OnClock)
    }

    /// Loads the programs to take a sample each time that code reaches a place, instead of by the clock. Only
    /// [`Loader::Libbpf`] can do this.
    ///
    /// # Errors
    /// Returns the errors of [`Sampler::load`].
    #[cfg(feature = "libbpf")]
    pub fn load_for_places(options: &SamplerOptions) -> Result<Self, Error> {
        Self::load_object(OBJECT, options, Runs::AtPlaces)
    }

    fn load_object(bytes: &[u8], options: &SamplerOptions, runs: Runs) -> Result<Self, Error> {
        raise_memory_limit();
        let constants = [
            ("pid_namespace", pid_namespace()),
            ("whole_system", options.whole_system.into()),
            ("kernel_frames", options.kernel_frames.into()),
            ("other_stack", options.stack),
        ];
        let mut programs = vec![Program { name: ON_CPU, runs }];
        programs.extend(lives(options));
        let object = Object { bytes, constants: &constants, programs: &programs };
        Ok(Sampler { loaded: options.loader.load(&object)?, _statistics: None })
    }

    /// Adds a process to the sampled ones.
    ///
    /// # Errors
    /// Returns the error of the kernel: there is room for 16384 processes.
    pub fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error> {
        self.loaded.add(pid, target)
    }

    /// Starts sampling.
    ///
    /// # Errors
    /// Returns an error if the kernel denies it.
    pub fn start(&mut self, options: &SamplerOptions) -> Result<(), Error> {
        self.start_lives(options)?;
        let cpus = util::online_cpus()
            .map_err(|(_, e)| Error::Other { action: "listing the CPUs", text: e.to_string() })?;
        self.loaded.on_clock(ON_CPU, &cpus, options.rate)
    }

    /// Starts sampling at places, after [`Sampler::load_for_places`].
    ///
    /// # Errors
    /// Returns an error if the kernel denies it, or is older than 6.6.
    #[cfg(feature = "libbpf")]
    pub fn start_at(&mut self, options: &SamplerOptions, places: &Places<'_>) -> Result<(), Error> {
        self.start_lives(options)?;
        self.loaded.at_places(ON_CPU, places)
    }

    fn start_lives(&mut self, options: &SamplerOptions) -> Result<(), Error> {
        lives(options).try_for_each(|program| self.loaded.on_tracepoint(program.name))
    }

    /// Enables the kernel's measurement of programs.
    ///
    /// # Errors
    /// Returns an error without CAP_SYS_ADMIN.
    pub fn measure(&mut self) -> Result<(), Error> {
        let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime);
        let opened =
            statistics.map_err(|e| Error::new("measuring programs", aya::programs::ProgramError::from(e)))?;
        self._statistics = Some(opened);
        Ok(())
    }

    /// Cost of sampling so far; needs [`Sampler::measure`].
    pub fn cost(&self) -> Option<ProgramCost> {
        self.loaded.cost(ON_CPU)
    }

    /// Passes on the records that have arrived.
    pub fn read(&mut self, mut each: impl FnMut(Record<'_>)) {
        self.loaded.read(&mut |bytes| Record::parse(bytes).into_iter().for_each(&mut each));
    }

    /// Returns the counts so far.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    pub fn counts(&self) -> Result<Counts, Error> {
        let sum = |index| self.loaded.counter(index);
        Ok(Counts { fired: sum(0)?, taken: sum(1)?, lost: sum(2)?, lost_parts: sum(3)? })
    }
}

/// File descriptor that becomes readable at fork and exec records, or when the buffer is nearly full. Samples
/// alone do not make it readable early: read from time to time.
impl AsFd for Sampler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.loaded.ring()
    }
}

/// Returns the programs that report new processes and programs, with their tracepoints. Exec is always
/// reported: a target that executes another program has another layout.
fn lives(options: &SamplerOptions) -> impl Iterator<Item = Program> {
    let at = |name, tracepoint| Program { name, runs: Runs::OnTracepoint(tracepoint) };
    let forks = options.follow || options.whole_system;
    let fork = forks.then_some(at(ON_FORK, "sched_process_fork"));
    fork.into_iter().chain([at(ON_EXEC, "sched_process_exec")])
}

/// Returns the inode of our pid namespace; 0 for the initial one (`PROC_PID_INIT_INO`).
fn pid_namespace() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    const INITIAL: u32 = 0xefff_fffc;
    let inode = std::fs::metadata("/proc/self/ns/pid").ok().and_then(|m| u32::try_from(m.ino()).ok());
    inode.filter(|&inode| inode != INITIAL).unwrap_or(0)
}

/// Raises the limit of locked memory: before Linux 5.11 maps count as locked memory.
fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call reads the struct that is given, which outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    if result != 0 {
        // Without the privilege, newer kernels do not need the limit, and older ones report it when a map is
        // created.
        let _ = io::Error::last_os_error();
    }
}

#[cfg(test)]
mod tests;
