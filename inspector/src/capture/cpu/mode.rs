//! How samples are taken, and of what.

use std::fmt;
use std::time::Duration;

pub use probe_ebpf::cpu::Loader;

/// How samples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// BPF programs on perf events.
    Bpf,
    /// Perf events without BPF.
    Perf,
    /// Threads are stopped one at a time.
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

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Samples of each CPU in a second.
    pub rate: u32,
    /// For how long.
    pub duration: Duration,
    /// All processes of the machine.
    pub whole_system: bool,
    /// Processes that the targets begin, too.
    pub children: bool,
    /// Tell threads apart.
    pub by_thread: bool,
    /// Frames of the kernel too, where that is permitted.
    pub kernel_frames: bool,
    /// How; `None` for the best that is possible.
    pub mode: Option<Mode>,
    /// Who loads BPF programs.
    pub loader: Loader,
}

impl CaptureOptions {
    /// 99 samples of each CPU in a second, for so long, as an agent takes them, with frames of the kernel; in the best way that is
    /// possible.
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
