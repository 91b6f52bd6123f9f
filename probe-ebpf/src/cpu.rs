//! Sampling what runs on the CPUs (`bpf/cpu.bpf.c`).

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

/// What to sample, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerOptions {
    /// Samples of each CPU in a second.
    pub rate: u32,
    /// All processes, not only those that are added.
    pub whole_system: bool,
    /// Frames of the kernel too.
    pub kernel_frames: bool,
    /// Bytes of stack to copy with each sample of code other than Go's; at most 16384.
    pub stack: u32,
    /// Whether processes that targets begin are followed.
    pub follow: bool,
    /// Who loads the programs.
    pub loader: Loader,
}

/// What the programs counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Interrupts, also of CPUs that ran something else.
    pub fired: u64,
    /// Samples of targets.
    pub taken: u64,
    /// Samples that found no room in the buffer.
    pub lost: u64,
    /// Parts of samples, and news of processes, that found none.
    pub lost_parts: u64,
}

/// Programs that sample. They end with it.
pub struct Sampler {
    loaded: Box<dyn Loaded + Send>,
    /// Measures the programs while it is open.
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
    /// What the kernel lacks or denies; with its verifier's log where it refuses a program.
    pub fn load(options: &SamplerOptions) -> Result<Self, Error> {
        Self::load_object(OBJECT, options, Runs::OnClock)
    }

    /// Loads the programs to take samples not by the clock but each time that code comes to a place, which only
    /// [`Loader::Libbpf`] can.
    ///
    /// # Errors
    /// As [`Sampler::load`].
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

    /// Samples a process too.
    ///
    /// # Errors
    /// What the kernel says: there is room for 16384.
    pub fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error> {
        self.loaded.add(pid, target)
    }

    /// Begins to sample.
    ///
    /// # Errors
    /// What the kernel denies.
    pub fn start(&mut self, options: &SamplerOptions) -> Result<(), Error> {
        self.start_lives(options)?;
        let cpus = util::online_cpus()
            .map_err(|(_, e)| Error::Other { action: "listing the CPUs", text: e.to_string() })?;
        self.loaded.on_clock(ON_CPU, &cpus, options.rate)
    }

    /// Begins to sample at places, after [`Sampler::load_for_places`].
    ///
    /// # Errors
    /// What the kernel denies, or cannot before 6.6.
    #[cfg(feature = "libbpf")]
    pub fn start_at(&mut self, options: &SamplerOptions, places: &Places<'_>) -> Result<(), Error> {
        self.start_lives(options)?;
        self.loaded.at_places(ON_CPU, places)
    }

    fn start_lives(&mut self, options: &SamplerOptions) -> Result<(), Error> {
        lives(options).try_for_each(|program| self.loaded.on_tracepoint(program.name))
    }

    /// Has the kernel measure the programs.
    ///
    /// # Errors
    /// It takes CAP_SYS_ADMIN.
    pub fn measure(&mut self) -> Result<(), Error> {
        let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime);
        let opened =
            statistics.map_err(|e| Error::new("measuring programs", aya::programs::ProgramError::from(e)))?;
        self._statistics = Some(opened);
        Ok(())
    }

    /// What sampling has cost so far, where [`Sampler::measure`] was called.
    pub fn cost(&self) -> Option<ProgramCost> {
        self.loaded.cost(ON_CPU)
    }

    /// Passes on the records that are there.
    pub fn read(&mut self, mut each: impl FnMut(Record<'_>)) {
        self.loaded.read(&mut |bytes| Record::parse(bytes).into_iter().for_each(&mut each));
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self) -> Result<Counts, Error> {
        let sum = |index| self.loaded.counter(index);
        Ok(Counts { fired: sum(0)?, taken: sum(1)?, lost: sum(2)?, lost_parts: sum(3)? })
    }
}

/// Becomes readable when there is news of processes, or so many records that there is little room for more: those of samples
/// are to be looked for now and then without that.
impl AsFd for Sampler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.loaded.ring()
    }
}

/// The programs that tell of new processes and programs, and their tracepoints. A target that executes another program has
/// another layout, also where nobody is followed.
fn lives(options: &SamplerOptions) -> impl Iterator<Item = Program> {
    let at = |name, tracepoint| Program { name, runs: Runs::OnTracepoint(tracepoint) };
    let forks = options.follow || options.whole_system;
    let fork = forks.then_some(at(ON_FORK, "sched_process_fork"));
    fork.into_iter().chain([at(ON_EXEC, "sched_process_exec")])
}

/// The inode of our pid namespace; 0 for the first one (`PROC_PID_INIT_INO`).
fn pid_namespace() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    const INITIAL: u32 = 0xefff_fffc;
    let inode = std::fs::metadata("/proc/self/ns/pid").ok().and_then(|m| u32::try_from(m.ino()).ok());
    inode.filter(|&inode| inode != INITIAL).unwrap_or(0)
}

/// Before Linux 5.11 maps count as locked memory.
fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: it reads the struct that is given, which outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    if result != 0 {
        // Without the privilege newer kernels do not need it, and older ones say so when a map is created.
        let _ = io::Error::last_os_error();
    }
}

#[cfg(test)]
mod tests;
