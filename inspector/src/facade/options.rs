//! What may be chosen of a question.

use std::time::Duration;

use crate::capture::cpu::mode::CaptureOptions;
use crate::runtime::heap::{HeapPause, TOP};
use crate::runtime::snapshot::{Pause, SnapshotOptions};

/// The longest stop of all threads, where nothing else is said.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Of [`Target::stack`](crate::Target::stack). The default is what Go itself prints, of one instant, in a stop of 20 ms at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackOptions {
    /// The longest stop of all threads. With `None` threads are stopped one by one: each goroutine is true by itself, and they are
    /// not of one instant.
    pub max_pause: Option<Duration>,
    /// Goroutines and frames of the runtime itself, too (`GOTRACEBACK=system`).
    pub system: bool,
    /// Only the goroutine with this number.
    pub goroutine: Option<u64>,
}

impl Default for StackOptions {
    fn default() -> Self {
        StackOptions { max_pause: Some(MAX_PAUSE), system: false, goroutine: None }
    }
}

impl StackOptions {
    pub(super) fn snapshot(&self) -> SnapshotOptions {
        let pause = self.max_pause.map_or(Pause::No, Pause::AtMost);
        SnapshotOptions { pause, system: self.system, goid: self.goroutine }
    }
}

/// Of [`Target::heap`](crate::Target::heap).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapOptions {
    /// The longest stop of all threads; `None` for none at all.
    pub max_pause: Option<Duration>,
    /// How many of the largest stacks and objects are named.
    pub top: usize,
}

impl Default for HeapOptions {
    fn default() -> Self {
        HeapOptions { max_pause: Some(MAX_PAUSE), top: TOP }
    }
}

impl HeapOptions {
    pub(super) fn pause(&self) -> HeapPause {
        self.max_pause.map_or(HeapPause::No, HeapPause::AtMost)
    }
}

/// Of [`Target::cpu_profile`](crate::Target::cpu_profile). The default is 99 samples a second with frames of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Samples of each CPU in a second.
    pub rate: u32,
    /// Processes that the target starts, too.
    pub children: bool,
    /// Tell threads apart.
    pub by_thread: bool,
    /// Frames of the kernel too, where that is permitted.
    pub kernel_frames: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        let CaptureOptions { rate, children, by_thread, kernel_frames, .. } =
            CaptureOptions::lasting(Duration::ZERO);
        CpuOptions { rate, children, by_thread, kernel_frames }
    }
}

impl CpuOptions {
    pub(super) fn session(&self, duration: Duration) -> CaptureOptions {
        let CpuOptions { rate, children, by_thread, kernel_frames } = *self;
        CaptureOptions { rate, children, by_thread, kernel_frames, ..CaptureOptions::lasting(duration) }
    }
}
