//! Collection of samples: samples with the same stack become one sample of the profile.

use std::collections::HashMap;
use std::rc::Rc;

use super::join::join;
use super::known::SampledProgram;
use super::source::{OnGoroutine, RawSample};
use crate::native::frame::Place;
use crate::process::Pid;
use crate::runtime::code::CodeCache;
use crate::runtime::snapshot::details::Labels;

/// Key of a sample: samples with the same key are merged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Process of the sample.
    pub pid: Pid,
    /// Index of the program that the process executed; `None` if the process was gone before it could be
    /// examined.
    pub known: Option<usize>,
    /// Thread id, if threads are distinguished.
    pub tid: Option<i32>,
    /// Frames of the kernel, innermost first.
    pub kernel: Vec<u64>,
    /// Frames of user space, innermost first.
    pub places: Vec<Place>,
    /// Number of the goroutine.
    pub goid: Option<u64>,
    /// Index of the goroutine's runtime, or of the runtime of the innermost Go code, if the process has
    /// several Go runtimes.
    pub runtime: Option<usize>,
    /// Labels of the goroutine.
    pub labels: Rc<Labels>,
}

/// Quality of the stacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quality {
    /// Total number of samples.
    pub samples: u64,
    /// Number of samples of user space, or of the kernel on behalf of user space.
    pub user: u64,
    /// Number of samples with a complete stack: it ends at the first function of a goroutine or thread, or
    /// where the scheduler left a goroutine.
    pub rooted: u64,
    /// Number of samples with a stack deeper than the walk.
    pub cut: u64,
    /// Number of samples of a goroutine.
    pub on_goroutine: u64,
    /// Number of samples of processes that ended before they could be examined.
    pub unknown: u64,
}

/// Maximum total size of different stacks, in bytes. Beyond it, only the innermost frames of each stack are
/// kept.
const MAX_STACKS: usize = 512 << 20;
const SHORT: usize = 8;
/// Maximum total size of the labels of all samples, in bytes.
const MAX_LABELS: usize = 128 << 20;

/// Collection of samples.
#[derive(Debug, Default)]
pub struct Collected {
    samples: HashMap<Key, u64>,
    quality: Quality,
    /// Size of the samples without their labels, in bytes.
    stacks: usize,
    labels: usize,
    /// Number of samples without some frames or labels, to save memory.
    shortened: u64,
    /// Number of samples of 32-bit code.
    narrow: u64,
}

impl Collected {
    /// Adds a sample of a known process, or of one that was gone before it could be examined.
    pub fn add(
        &mut self,
        sample: &RawSample<'_>,
        known: Option<(usize, &mut SampledProgram)>,
        by_thread: bool,
    ) {
        self.quality.samples += 1;
        self.narrow += u64::from(sample.user.is_none() && !sample.in_kernel);
        let tid = by_thread.then_some(sample.tid);
        let Some((index, known)) = known else {
            self.quality.unknown += 1;
            let places = sample.user.map(|r| Place { pc: r.ip, exact: true }).into_iter().collect();
            let key = Key {
                pid: sample.pid,
                known: None,
                tid,
                kernel: sample.kernel.clone(),
                places,
                goid: None,
                runtime: None,
                labels: Rc::default(),
            };
            self.count(key);
            return;
        };
        let mut code: Vec<CodeCache<'_>> = known
            .runtimes
            .iter_mut()
            .map(|r| CodeCache::resume(&r.view.modules, std::mem::take(&mut r.code)))
            .collect();
        let joined = join(sample, &mut code, &mut *known.foreign);
        let by_code = joined.places.iter().find_map(|place| {
            let pc = if place.exact { place.pc } else { place.pc.wrapping_sub(1) };
            code.iter_mut().position(|code| code.get(pc).is_some())
        });
        let code: Vec<_> = code.into_iter().map(CodeCache::into_known).collect();
        for (runtime, code) in known.runtimes.iter_mut().zip(code) {
            runtime.code = code;
        }
        let goroutine: Option<OnGoroutine> =
            sample.goroutine.filter(|on| known.runtimes.get(on.runtime).is_some());
        let several = known.runtimes.len() > 1;
        self.quality.user += u64::from(sample.user.is_some());
        self.quality.cut += u64::from(sample.cut);
        self.quality.on_goroutine += u64::from(goroutine.is_some());
        let key = Key {
            pid: sample.pid,
            known: Some(index),
            tid,
            kernel: sample.kernel.clone(),
            places: joined.places,
            goid: goroutine.map(|g| g.goid),
            runtime: goroutine.map(|g| g.runtime).or(by_code).filter(|_| several),
            labels: goroutine.map(|g| known.labels(g)).unwrap_or_default(),
        };
        let whole = self.count(key);
        self.quality.rooted += u64::from(joined.rooted && whole);
    }

    /// Counts a sample. Returns true if its whole stack is kept.
    fn count(&mut self, mut key: Key) -> bool {
        if let Some(count) = self.samples.get_mut(&key) {
            *count += 1;
            return true;
        }
        let labels: usize = key.labels.iter().map(|(key, value)| key.len() + value.len() + 48).sum();
        let (mut whole, mut all) = (true, true);
        if self.labels + labels > MAX_LABELS {
            key.labels = Rc::default();
            all = false;
        } else {
            self.labels += labels;
        }
        let size = size_of::<Key>() + size_of_val(key.places.as_slice()) + size_of_val(key.kernel.as_slice());
        if self.stacks + size > MAX_STACKS {
            whole = key.places.len() <= SHORT;
            all &= whole && key.kernel.len() <= SHORT;
            key.places.truncate(SHORT);
            key.places.shrink_to_fit();
            key.kernel.truncate(SHORT);
            key.kernel.shrink_to_fit();
        }
        self.stacks = self.stacks.saturating_add(size);
        self.shortened += u64::from(!all);
        *self.samples.entry(key).or_default() += 1;
        whole
    }

    /// Describes in sentences what is missing in the samples.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.shortened > 0 {
            notes.push(format!(
                "{} samples have no more than their {SHORT} innermost frames, or no labels: different stacks may take {} MiB \
                 of memory, and labels {} MiB",
                self.shortened,
                MAX_STACKS >> 20,
                MAX_LABELS >> 20
            ));
        }
        if self.narrow > 0 {
            notes.push(format!("{} samples are of 32-bit code, whose stacks are not walked", self.narrow));
        }
        notes
    }

    /// Returns the samples with their counts.
    pub fn samples(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.samples.iter().map(|(key, count)| (key, *count))
    }

    /// Quality of the stacks.
    pub fn quality(&self) -> Quality {
        self.quality
    }
}
