//! Sources of samples: BPF programs, plain perf events, or stops of single threads.

use std::io;
use std::time::Duration;

use crate::native::frame::SampleRegisters;

use crate::process::Pid;

/// Maximum bytes of stack that are copied with a sample, for unwinding by tables afterwards.
pub const MAX_STACK: u32 = 16 << 10;

/// Sample as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSample<'b> {
    /// Process, in our pid namespace.
    pub pid: Pid,
    /// Thread id.
    pub tid: i32,
    /// Time of the sample: CLOCK_MONOTONIC in nanoseconds.
    pub time: u64,
    /// True if the thread was in the kernel.
    pub in_kernel: bool,
    /// Registers of user space; `None` if not available.
    pub user: Option<SampleRegisters>,
    /// Return addresses found by frame pointers, innermost first, without the instruction pointer.
    pub frames: Vec<u64>,
    /// True if `frames` begin at the return address of the goroutine's call of C; the frames of C are only in
    /// `stack`.
    pub resumed_after_cgo: bool,
    /// True if the walk ended at its limit.
    pub cut: bool,
    /// True if the goroutine's frames follow in `frames` after a function (`runtime.morestack`,
    /// `runtime.systemstack`) that calls others on the thread's stack. `None` if the source knows no
    /// goroutines and never reports this.
    pub crossed: Option<bool>,
    /// Goroutine that the thread ran; `None` if unknown or if there was none.
    pub goroutine: Option<OnGoroutine>,
    /// Frames of the kernel, innermost first.
    pub kernel: Vec<u64>,
    /// Copy of the stack from the stack pointer on.
    pub stack: &'b [u8],
}

/// Goroutine as seen in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnGoroutine {
    /// Number of the goroutine.
    pub goid: u64,
    /// Address of its labels (`g.labels`); 0 for none.
    pub labels: u64,
    /// Index of the goroutine's Go runtime among those that the source was told for the process.
    pub runtime: usize,
}

/// Event that a source reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// New sample.
    Sample(RawSample<'b>),
    /// New process begun by a sampled one; it is sampled from now on.
    Fork {
        /// New process.
        pid: Pid,
        /// Parent of the new process.
        parent: Pid,
    },
    /// Start of another program, reported early: the process may have ended when [`Event::Exec`] arrives at
    /// its place among the samples. Not every source reports this.
    Executing(Pid),
    /// Start of another program in a process.
    Exec(Pid),
}

/// Counts of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of samples taken.
    pub taken: u64,
    /// Number of samples lost, because buffers were full or threads ended.
    pub lost: u64,
    /// Stops of threads for the samples; `None` if no thread is stopped.
    pub pauses: Option<Pauses>,
}

/// Stops of single threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Number of stops.
    pub number: u64,
    /// Longest stop: from the last moment when the thread was seen not to have stopped, until it was let go.
    pub longest: Duration,
    /// Total time of all stops.
    pub total: Duration,
}

impl Pauses {
    /// Counts another stop.
    pub fn add(&mut self, pause: Duration) {
        self.number += 1;
        self.longest = self.longest.max(pause);
        self.total += pause;
    }
}

/// Source of samples, active from its creation until it is dropped. Everything attached to processes is
/// removed with it.
pub trait Source {
    /// Adds a process to the sampled ones, with its children if requested. The layouts of its Go runtimes
    /// help to walk stacks.
    ///
    /// # Errors
    /// Returns the error of the kernel.
    fn add(&mut self, pid: Pid, go: &[GoTarget]) -> io::Result<()>;

    /// Waits up to `timeout` for samples and passes on those that have arrived.
    ///
    /// # Errors
    /// Returns an error if sampling cannot continue.
    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;

    /// Returns the counts so far.
    fn counts(&self) -> Counts;

    /// Describes in sentences what these samples cannot tell.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Facts about a Go runtime that a source needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoTarget {
    /// Code of the runtime by module: runtime address of the first byte and of the one behind the last.
    pub text: Vec<(u64, u64)>,
    /// Range of `runtime.morestack`, which calls others on the thread's stack if the goroutine's stack has to
    /// grow: runtime addresses as in `text`.
    pub morestack: (u64, u64),
    /// Range of `runtime.systemstack`, which calls others on the thread's stack for work of the runtime:
    /// runtime addresses as in `text`.
    pub systemstack: (u64, u64),
    /// Offset of the thread's `g` from the base of its thread-local storage, in bytes.
    pub tls_g: i64,
    /// Offsets in `runtime.g`.
    pub g: GoOffsets,
    /// Offset of `m.curg`, in bytes.
    pub m_curg: u32,
}

impl GoTarget {
    /// Returns true if the address is in the code of this runtime.
    pub fn has_code(&self, pc: u64) -> bool {
        self.text.iter().any(|&(start, end)| (start..end).contains(&pc))
    }
}

/// Offsets in `runtime.g`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoOffsets {
    /// `g.m`.
    pub m: u32,
    /// `g.goid`.
    pub goid: u32,
    /// `g.labels`.
    pub labels: u32,
    /// `g.sched.pc`.
    pub sched_pc: u32,
    /// `g.sched.sp`.
    pub sched_sp: u32,
    /// `g.sched.bp`.
    pub sched_bp: u32,
}
