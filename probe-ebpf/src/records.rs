//! Records that the BPF programs read and write, as defined in `bpf/records.h`.

use std::mem::{offset_of, size_of};

/// Maximum number of return addresses of a sample.
pub const MAX_FRAMES: usize = 512;

/// Maximum number of Go runtimes of a process whose goroutines are found.
pub const MAX_RUNTIMES: usize = 4;

/// Go runtime of a process, as the BPF programs know it (`struct runtime`). Offsets in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Runtime {
    /// Start of its Go code: a runtime address.
    pub text_start: u64,
    /// End of its Go code, exclusive: a runtime address.
    pub text_end: u64,
    /// Start of `runtime.morestack`: a runtime address.
    pub morestack_start: u64,
    /// End of `runtime.morestack`, exclusive; equal to the start if unknown.
    pub morestack_end: u64,
    /// Start of `runtime.systemstack`: a runtime address.
    pub systemstack_start: u64,
    /// End of `runtime.systemstack`, exclusive; equal to the start if unknown.
    pub systemstack_end: u64,
    /// Offset of the thread's `g` from the base of its thread-local storage.
    pub tls_g: i64,
    /// Offset of `g.m`.
    pub g_m: u32,
    /// Offset of `g.goid`.
    pub g_goid: u32,
    /// Offset of `g.labels`.
    pub g_labels: u32,
    /// Offset of `g.sched.pc`.
    pub g_sched_pc: u32,
    /// Offset of `g.sched.sp`.
    pub g_sched_sp: u32,
    /// Offset of `g.sched.bp`.
    pub g_sched_bp: u32,
    /// Offset of `m.curg`.
    pub m_curg: u32,
    /// Padding to a multiple of the word size.
    pub unused: u32,
}

/// Process to sample, as the BPF programs know it (`struct target`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampledTarget {
    /// Go runtimes of the process.
    pub runtimes: [Runtime; MAX_RUNTIMES],
    /// Number of runtimes in use: those with known layouts.
    pub count: u32,
    /// Flags from [`target_flags`].
    pub flags: u32,
}

/// Flags of a [`SampledTarget`].
pub mod target_flags {
    /// Processes that the target begins are targets too.
    pub const FOLLOW: u32 = 2;
}

/// Record of the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'b> {
    /// Sample; its parts arrived before it.
    Sample(Sample<'b>),
    /// Kernel frames of the sample with this number on this CPU, innermost first.
    Kernel(Part<'b>),
    /// Stack of the sample with this number on this CPU, from its stack pointer on.
    Stack(Part<'b>),
    /// New process begun by a target.
    Fork {
        /// Pid of the new process.
        pid: u32,
        /// Pid of the target.
        parent: u32,
    },
    /// Start of another program in a target.
    Exec {
        /// Pid of the target.
        pid: u32,
    },
}

/// Part of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'b> {
    /// CPU of the sample.
    pub cpu: u32,
    /// Number of the sample on that CPU.
    pub number: u64,
    /// Content of the part.
    pub bytes: &'b [u8],
}

/// State of a thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample<'b> {
    /// CPU of the sample.
    pub cpu: u32,
    /// Number of the sample on that CPU.
    pub number: u64,
    /// Time of the sample: CLOCK_MONOTONIC in nanoseconds.
    pub time: u64,
    /// Process id, in our pid namespace.
    pub pid: u32,
    /// Thread id, in our pid namespace.
    pub tid: u32,
    /// True if the thread was in the kernel.
    pub in_kernel: bool,
    /// Registers of user space; `None` for threads of the kernel and for 32-bit code.
    pub user: Option<SampleRegisters>,
    /// True if the frames are those of the goroutine from its call of C on.
    pub resumed_after_cgo: bool,
    /// True if the walk ended at its limit.
    pub cut: bool,
    /// True if the goroutine's frames follow after the function that left the goroutine's stack.
    pub crossed: bool,
    /// Address of the `g` in the thread-local storage; 0 if unknown.
    pub g: u64,
    /// Address of the `g` of the goroutine that the thread runs; 0 for none.
    pub curg: u64,
    /// Number of the goroutine.
    pub goid: u64,
    /// Address of the goroutine's labels.
    pub labels: u64,
    /// Index of the goroutine's runtime among those of the target.
    pub runtime: usize,
    frames: &'b [u8],
}

/// Registers of user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRegisters {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
}

impl Sample<'_> {
    /// Returns the return addresses found by frame pointers, innermost first.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = u64> {
        words(self.frames)
    }
}

impl Part<'_> {
    /// Returns the content as words.
    pub fn words(&self) -> impl ExactSizeIterator<Item = u64> {
        words(self.bytes)
    }
}

fn words(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> {
    bytes.chunks_exact(8).map(|w| w.try_into().map_or(0, u64::from_le_bytes))
}

/// Layout of `struct header`.
#[repr(C)]
struct Header {
    kind: u32,
    cpu: u32,
    number: u64,
}

/// Layout of `struct sample` up to its frames.
#[repr(C)]
struct Head {
    header: Header,
    time: u64,
    pid: u32,
    tid: u32,
    flags: u32,
    length: u32,
    ip: u64,
    sp: u64,
    bp: u64,
    g: u64,
    curg: u64,
    goid: u64,
    labels: u64,
}

/// Layout of `struct life`.
#[repr(C)]
struct Life {
    header: Header,
    pid: u32,
    parent: u32,
}

mod flags {
    pub(super) const IN_KERNEL: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const HOPPED: u32 = 4;
    pub(super) const CUT: u32 = 8;
    pub(super) const CROSSED: u32 = 16;
    pub(super) const RUNTIME_SHIFT: u32 = 8;
}

impl<'b> Record<'b> {
    /// Parses a record; `None` if the bytes are not one.
    pub fn parse(bytes: &'b [u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let cpu = u32_at(offset_of!(Header, cpu))?;
        let number = u64_at(offset_of!(Header, number))?;
        let part = |size| Some(Part { cpu, number, bytes: bytes.get(size..)? });
        Some(match u32_at(offset_of!(Header, kind))? {
            1 => {
                let set = u32_at(offset_of!(Head, flags))?;
                let length = usize::try_from(u32_at(offset_of!(Head, length))?).ok()?;
                let frames = bytes.get(size_of::<Head>()..)?.get(..length.checked_mul(8)?)?;
                let registers = SampleRegisters {
                    ip: u64_at(offset_of!(Head, ip))?,
                    sp: u64_at(offset_of!(Head, sp))?,
                    bp: u64_at(offset_of!(Head, bp))?,
                };
                Record::Sample(Sample {
                    cpu,
                    number,
                    time: u64_at(offset_of!(Head, time))?,
                    pid: u32_at(offset_of!(Head, pid))?,
                    tid: u32_at(offset_of!(Head, tid))?,
                    in_kernel: set & flags::IN_KERNEL != 0,
                    user: (set & flags::USER != 0).then_some(registers),
                    resumed_after_cgo: set & flags::HOPPED != 0,
                    cut: set & flags::CUT != 0,
                    crossed: set & flags::CROSSED != 0,
                    g: u64_at(offset_of!(Head, g))?,
                    curg: u64_at(offset_of!(Head, curg))?,
                    goid: u64_at(offset_of!(Head, goid))?,
                    labels: u64_at(offset_of!(Head, labels))?,
                    runtime: usize::try_from(set >> flags::RUNTIME_SHIFT).ok()?,
                    frames,
                })
            }
            2 => Record::Kernel(part(size_of::<Header>())?),
            3 => Record::Stack(part(size_of::<Header>())?),
            kind @ (4 | 5) => {
                let pid = u32_at(offset_of!(Life, pid))?;
                let parent = u32_at(offset_of!(Life, parent))?;
                if kind == 4 { Record::Fork { pid, parent } } else { Record::Exec { pid } }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_programs() {
        // The object's own type information confirms these sizes; see `cpu::tests`.
        assert_eq!(size_of::<SampledTarget>(), 4 * 88 + 8);
        assert_eq!(size_of::<Head>(), 16 + 8 + 4 * 4 + 7 * 8);
        assert_eq!(size_of::<Life>(), 24);
    }

    #[test]
    fn garbage_is_no_record() {
        let mut bytes = [0u8; 200];
        for kind in 0..8u8 {
            bytes[0] = kind;
            bytes[offset_of!(Head, length)] = 200;
            for len in 0..bytes.len() {
                let parsed = Record::parse(&bytes[..len]);
                assert!(kind != 1 || parsed.is_none());
            }
        }
    }
}
