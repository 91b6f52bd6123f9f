//! Options of a capture, and the way in which samples are taken.

use std::fmt;
use std::time::Duration;

pub use probe_ebpf::cpu::Loader;

/// Way in which samples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// BPF programs on perf events.
    Bpf,
    /// Perf events without BPF.
    Perf,
    /// Stops of single threads, one at a time.
    Ptrace,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Bpf => "bpf",
            Mode::Perf => "perf",
            Mode::Ptrace => "ptrace",
        })
    }
}

/// Options of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Samples per second and CPU.
    pub rate: u32,
    /// Duration of the capture.
    pub duration: Duration,
    /// True to capture all processes of the machine.
    pub whole_system: bool,
    /// True to include processes that the targets begin.
    pub children: bool,
    /// True to distinguish threads.
    pub by_thread: bool,
    /// True to include frames of the kernel, if permitted.
    pub kernel_frames: bool,
    /// Way to take samples; `None` for the best that is possible.
    pub mode: Option<Mode>,
    /// Loader of BPF programs.
    pub loader: Loader,
}

impl CaptureOptions {
    /// Returns the options of an agent for a capture of this duration: 99 samples per second and CPU, with
    /// frames of the kernel, in the best way that is possible.
    pub fn lasting(duration: Duration) -> Self {
        CaptureOptions {
            rate: 99,
            duration,
            whole_system: false,
            children: false,
            by_thread: false,
            kernel_frames: true,
            mode: None,
            loader: Loader::default(),
        }
    }
}
