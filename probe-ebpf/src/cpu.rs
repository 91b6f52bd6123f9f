//! Sampling what runs on the CPUs (`bpf/cpu.bpf.c`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{BtfTracePoint, PerfEvent};
use aya::{Btf, Ebpf, EbpfLoader, Pod, VerifierLogLevel, include_bytes_aligned, util};

use crate::Error;
use crate::records::{Record, Target};

static OBJECT: &[u8] = include_bytes_aligned!("../prebuilt/cpu.bpf.o");

// SAFETY: it is `repr(C)`, has no padding (a field stands where there would be some), and any bytes make one.
unsafe impl Pod for Target {}

/// What to sample, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
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

/// What the kernel says that a program cost (`bpf_stats_enabled`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often it ran.
    pub runs: u64,
    /// For how long in all.
    pub time: Duration,
}

/// Programs that sample. They end with it.
pub struct Sampler {
    // Before the programs, so that it is unmapped first.
    records: RingBuf<MapData>,
    targets: HashMap<MapData, u32, Target>,
    counters: PerCpuArray<MapData, u64>,
    ebpf: Ebpf,
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
    pub fn load(options: &Options) -> Result<Self, Error> {
        // The log of a program that passes costs more than to verify it.
        match Self::load_with(options, VerifierLogLevel::DISABLE) {
            Err(Error::Refused { .. }) => Self::load_with(options, VerifierLogLevel::default()),
            other => other,
        }
    }

    fn load_with(options: &Options, log: VerifierLogLevel) -> Result<Self, Error> {
        raise_memory_limit();
        let btf = Btf::from_sys_fs().map_err(|e| Error::NoTypes(e.to_string()))?;
        let namespace = pid_namespace();
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).verifier_log_level(log);
        let (whole, kernel) = (u32::from(options.whole_system), u32::from(options.kernel_frames));
        loader
            .override_global("pid_namespace", &namespace, true)
            .override_global("whole_system", &whole, true)
            .override_global("kernel_frames", &kernel, true)
            .override_global("other_stack", &options.stack, true);
        let mut ebpf = loader.load(OBJECT).map_err(|e| Error::new("creating BPF maps", e))?;
        let on_cpu: &mut PerfEvent = program(&mut ebpf, ON_CPU)?;
        on_cpu.load().map_err(|e| Error::of_program(ON_CPU, e))?;
        for (name, tracepoint) in lives(options) {
            let program: &mut BtfTracePoint = program(&mut ebpf, name)?;
            program.load(tracepoint, &btf).map_err(|e| Error::of_program(name, e))?;
        }
        fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error>
        where
            T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
        {
            let missing = || Error::Other { action: "opening a BPF map", text: format!("no map {name}") };
            let map = ebpf.take_map(name).ok_or_else(missing)?;
            T::try_from(map).map_err(|e| Error::new("opening a BPF map", e))
        }
        Ok(Sampler {
            records: map(&mut ebpf, "records")?,
            targets: map(&mut ebpf, "targets")?,
            counters: map(&mut ebpf, "counters")?,
            ebpf,
            _statistics: None,
        })
    }

    /// Samples a process too.
    ///
    /// # Errors
    /// What the kernel says: there is room for 16384.
    pub fn add(&mut self, pid: u32, target: &Target) -> Result<(), Error> {
        self.targets.insert(pid, target, 0).map_err(|e| Error::new("adding a target", e))
    }

    /// Begins to sample.
    ///
    /// # Errors
    /// What the kernel denies.
    pub fn start(&mut self, options: &Options) -> Result<(), Error> {
        for (name, _) in lives(options) {
            let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            program.attach().map_err(|e| Error::new("attaching to a tracepoint", e))?;
        }
        let cpus = util::online_cpus()
            .map_err(|(_, e)| Error::Other { action: "listing the CPUs", text: e.to_string() })?;
        let on_cpu: &mut PerfEvent = program(&mut self.ebpf, ON_CPU)?;
        for cpu in cpus {
            on_cpu
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Frequency(options.rate.into()),
                    false,
                )
                .map_err(|e| Error::new("opening a perf event", e))?;
        }
        Ok(())
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
    pub fn cost(&self) -> Option<Cost> {
        let info = self.ebpf.program(ON_CPU)?.info().ok()?;
        Some(Cost { runs: info.run_count(), time: info.run_time() })
    }

    /// Passes on the records that are there.
    pub fn read(&mut self, mut each: impl FnMut(Record<'_>)) {
        while let Some(item) = self.records.next() {
            if let Some(record) = Record::parse(&item) {
                each(record);
            }
        }
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self) -> Result<Counts, Error> {
        let sum = |index: u32| -> Result<u64, Error> {
            let values = self.counters.get(&index, 0).map_err(|e| Error::new("reading counters", e))?;
            Ok(values.iter().sum())
        };
        Ok(Counts { fired: sum(0)?, taken: sum(1)?, lost: sum(2)?, lost_parts: sum(3)? })
    }
}

/// Becomes readable when there is news of processes, or so many records that there is little room for more: those of samples
/// are to be looked for now and then without that.
impl AsFd for Sampler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

/// The programs that tell of new processes and programs, and their tracepoints. A target that executes another program has
/// another layout, also where nobody is followed.
fn lives(options: &Options) -> impl Iterator<Item = (&'static str, &'static str)> {
    let forks = options.follow || options.whole_system;
    let fork = forks.then_some((ON_FORK, "sched_process_fork"));
    fork.into_iter().chain([(ON_EXEC, "sched_process_exec")])
}

fn program<'e, T>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut T, Error>
where
    &'e mut T: TryFrom<&'e mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let missing = Error::Other { action: "finding a BPF program", text: format!("no program {name}") };
    let program = ebpf.program_mut(name).ok_or(missing)?;
    program.try_into().map_err(|e| Error::new("finding a BPF program", e))
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
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn sees_what_a_thread_does() {
        let options =
            Options { rate: 199, whole_system: false, kernel_frames: true, stack: 4096, follow: true };
        let mut sampler = match Sampler::load(&options) {
            Err(error) if error.is_denied() => {
                println!("NOT TESTED: {error}");
                return;
            }
            other => other.unwrap(),
        };
        sampler.measure().unwrap();
        sampler.add(std::process::id(), &Target::default()).unwrap();
        sampler.start(&options).unwrap();
        let start = Instant::now();
        let mut spins = 0u64;
        while start.elapsed() < Duration::from_millis(500) {
            spins = std::hint::black_box(spins + 1);
        }
        let (mut samples, mut stacks) = (0, 0);
        sampler.read(|record| match record {
            Record::Sample(s) => {
                assert_eq!(s.pid, std::process::id());
                assert!(s.user.is_some_and(|r| r.sp != 0) && s.goid == 0 && !s.hopped);
                samples += 1;
            }
            Record::Stack(part) => {
                assert!(!part.bytes.is_empty());
                stacks += 1;
            }
            _ => {}
        });
        let counts = sampler.counts().unwrap();
        // The scheduler decides how much of its half second it got.
        assert!(samples >= 10, "{samples} of {counts:?}");
        assert!(samples == stacks && counts.taken >= samples, "{samples} {stacks} {counts:?}");
        assert_eq!((counts.lost, counts.lost_parts), (0, 0));
        let cost = sampler.cost().unwrap();
        println!("{counts:?} {cost:?}");
        assert!(cost.runs >= counts.taken && cost.time > Duration::ZERO);
    }
}
