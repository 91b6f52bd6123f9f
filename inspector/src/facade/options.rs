//! Options of questions.

use std::time::Duration;

use crate::capture::cpu::mode::CaptureOptions;
use crate::runtime::heap::{HeapPause, TOP};
use crate::runtime::snapshot::{Pause, SnapshotOptions};

/// Default for the maximum length of a stop of all threads.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Options of [`Target::stack`](crate::Target::stack). By default, the answer is what Go itself prints, of
/// one instant, with a stop of at most 20 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackOptions {
    /// Maximum length of the stop of all threads. With `None`, threads are stopped one by one: each goroutine
    /// is true by itself, but they are not of one instant.
    pub max_pause: Option<Duration>,
    /// Includes goroutines and frames of the runtime itself (`GOTRACEBACK=system`).
    pub system: bool,
    /// Number of the only goroutine wanted; `None` for all.
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

/// Options of [`Target::heap`](crate::Target::heap).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapOptions {
    /// Maximum length of the stop of all threads; `None` for no stop.
    pub max_pause: Option<Duration>,
    /// Number of largest stacks and objects to name.
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

/// Options of [`Target::cpu_profile`](crate::Target::cpu_profile). By default, 99 samples per second with
/// frames of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Samples of each CPU per second.
    pub rate: u32,
    /// Includes processes that the target starts.
    pub children: bool,
    /// Distinguishes threads.
    pub by_thread: bool,
    /// Includes frames of the kernel, if permitted.
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
