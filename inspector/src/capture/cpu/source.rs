//! Whoever takes samples: BPF programs, plain perf events, or single stops of threads.

use std::io;
use std::time::Duration;

use crate::native::frame::SampleRegisters;

use crate::process::Pid;

/// Bytes of the stack that are copied with a sample at most: what is unwound by tables afterwards.
pub const MAX_STACK: u32 = 16 << 10;

/// A sample as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSample<'b> {
    /// The process, in our pid namespace.
    pub pid: Pid,
    /// The thread.
    pub tid: i32,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub time: u64,
    /// The thread was in the kernel.
    pub in_kernel: bool,
    /// SampleRegisters of user space; `None` where there are none to be had.
    pub user: Option<SampleRegisters>,
    /// Return addresses that frame pointers led to, innermost first; without the instruction pointer.
    pub frames: Vec<u64>,
    /// `frames` begin at the goroutine's return address of its call of C; the frames of C are only in `stack`.
    pub resumed_after_cgo: bool,
    /// The walk ended at its limit.
    pub cut: bool,
    /// Whether the goroutine's frames follow in `frames` where a function (`runtime.morestack`, `runtime.systemstack`) calls
    /// others on the stack of the thread; `None` where who takes the samples knows no goroutines, and so never tells.
    pub crossed: Option<bool>,
    /// The goroutine that the thread ran; `None` where that is unknown or there was none.
    pub goroutine: Option<OnGoroutine>,
    /// Frames of the kernel, innermost first.
    pub kernel: Vec<u64>,
    /// The stack from the stack pointer on, as much of it as was copied.
    pub stack: &'b [u8],
}

/// A goroutine as seen in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnGoroutine {
    /// Its number.
    pub goid: u64,
    /// `g.labels`: the address of its labels, 0 for none.
    pub labels: u64,
    /// Which of the Go runtimes of its process it is of: its index among what the source was told.
    pub runtime: usize,
}

/// What a source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// A sample.
    Sample(RawSample<'b>),
    /// A process that is sampled began another one, which is sampled from now on.
    Fork {
        /// The new one.
        pid: Pid,
        /// Its parent.
        parent: Pid,
    },
    /// A process executes another program, and may have ended by the time that [`Event::Exec`] says so at its place among
    /// the samples. Not every source tells this.
    Executing(Pid),
    /// A process executes another program.
    Exec(Pid),
}

/// Counts of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples that were taken.
    pub taken: u64,
    /// Samples that were lost, for want of room or because threads ended.
    pub lost: u64,
    /// How the processes were held up for them; `None` where they were not.
    pub pauses: Option<Pauses>,
}

/// Stops of single threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pauses {
    /// How many.
    pub number: u64,
    /// The longest, from when the thread was last seen not to have stopped until it was let go.
    pub longest: Duration,
    /// All together.
    pub total: Duration,
}

impl Pauses {
    /// Counts another one.
    pub fn add(&mut self, pause: Duration) {
        self.number += 1;
        self.longest = self.longest.max(pause);
        self.total += pause;
    }
}

/// Takes samples from when it was made until it is dropped. What it attached to processes goes with it.
pub trait Source {
    /// Samples a process too; its children if that was asked for. The layouts of its Go runtimes help to walk stacks.
    ///
    /// # Errors
    /// What the kernel says.
    fn add(&mut self, pid: Pid, go: &[GoTarget]) -> io::Result<()>;

    /// Waits up to `timeout` for samples, and passes on those that are there.
    ///
    /// # Errors
    /// Where it cannot go on.
    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;

    /// What was counted so far.
    fn counts(&self) -> Counts;

    /// What these samples cannot tell, in sentences.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a source has to know of a Go runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoTarget {
    /// Its code, by module: runtime addresses of the first byte and the one behind the last.
    pub text: Vec<(u64, u64)>,
    /// `runtime.morestack`, which calls others on the stack of the thread where the goroutine's has to grow: the same.
    pub morestack: (u64, u64),
    /// `runtime.systemstack`, which does so for work of the runtime: the same.
    pub systemstack: (u64, u64),
    /// Where a thread keeps its g, from the base of its thread-local storage.
    pub tls_g: i64,
    /// Offsets in `runtime.g`.
    pub g: GoOffsets,
    /// `m.curg`.
    pub m_curg: u32,
}

impl GoTarget {
    /// Whether it is code of this runtime.
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
