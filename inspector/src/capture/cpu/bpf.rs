//! Samples by BPF programs on a perf event of each CPU.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use probe_ebpf::cpu::{Sampler, SamplerOptions};
use probe_ebpf::records::{Record, Runtime, SampledTarget, target_flags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::source::{Counts, Event, GoTarget, OnGoroutine, RawSample, Source};
use crate::process::Pid;

/// Source of samples by BPF programs.
#[derive(Debug)]
pub struct Bpf {
    sampler: Sampler,
    options: SamplerOptions,
    started: bool,
    /// Parts that arrived before their sample, by CPU.
    parts: HashMap<u32, Parts>,
}

/// Parts of the next sample of a CPU.
#[derive(Debug, Default)]
struct Parts {
    number: u64,
    kernel: Vec<u64>,
    stack: Vec<u8>,
}

impl Parts {
    /// Returns the parts of the sample with this number; discards those of another sample.
    fn of(&mut self, number: u64) -> &mut Self {
        if self.number != number {
            self.number = number;
            self.kernel.clear();
            self.stack.clear();
        }
        self
    }
}

impl Bpf {
    /// Loads the programs; they run from the first [`Source::poll`] on.
    ///
    /// # Errors
    /// Returns an error if the kernel lacks or denies them.
    pub fn load(options: SamplerOptions) -> Result<Self, probe_ebpf::Error> {
        let sampler = Sampler::load(&options)?;
        Ok(Bpf { sampler, options, started: false, parts: HashMap::new() })
    }

    /// Starts sampling, if not started yet.
    ///
    /// # Errors
    /// Returns an error if the kernel denies it.
    pub fn start(&mut self) -> Result<(), probe_ebpf::Error> {
        if !self.started {
            self.sampler.start(&self.options)?;
            self.started = true;
        }
        Ok(())
    }
}

impl Source for Bpf {
    fn add(&mut self, pid: Pid, go: &[GoTarget]) -> io::Result<()> {
        let follows = self.options.follow || self.options.whole_system;
        let follow = if follows { target_flags::FOLLOW } else { 0 };
        let mut target = SampledTarget { flags: follow, ..SampledTarget::default() };
        for (place, go) in target.runtimes.iter_mut().zip(go) {
            let (text_start, text_end) = go.text.first().copied().unwrap_or_default();
            *place = Runtime {
                text_start,
                text_end,
                morestack_start: go.morestack.0,
                morestack_end: go.morestack.1,
                systemstack_start: go.systemstack.0,
                systemstack_end: go.systemstack.1,
                tls_g: go.tls_g,
                g_m: go.g.m,
                g_goid: go.g.goid,
                g_labels: go.g.labels,
                g_sched_sp: go.g.sched_sp,
                g_sched_bp: go.g.sched_bp,
                m_curg: go.m_curg,
                g_sched_pc: go.g.sched_pc,
                unused: 0,
            };
            target.count += 1;
        }
        self.sampler.add(number(pid), &target).map_err(io::Error::other)
    }

    fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        self.start().map_err(io::Error::other)?;
        let timeout =
            Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.sampler, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let parts = &mut self.parts;
        self.sampler.read(|record| match record {
            Record::Kernel(part) => {
                let own = parts.entry(part.cpu).or_default().of(part.number);
                own.kernel.extend(part.words());
            }
            Record::Stack(part) => {
                let own = parts.entry(part.cpu).or_default().of(part.number);
                own.stack.extend_from_slice(part.bytes);
            }
            Record::Fork { pid, parent } => {
                if let (Some(pid), Some(parent)) = (process(pid), process(parent)) {
                    each(Event::Fork { pid, parent });
                }
            }
            Record::Exec { pid } => {
                if let Some(pid) = process(pid) {
                    each(Event::Exec(pid));
                }
            }
            Record::Sample(sample) => {
                let own = parts.entry(sample.cpu).or_default().of(sample.number);
                let Some(pid) = process(sample.pid) else { return };
                let goroutine = (sample.curg != 0).then_some(OnGoroutine {
                    goid: sample.goid,
                    labels: sample.labels,
                    runtime: sample.runtime,
                });
                each(Event::Sample(RawSample {
                    pid,
                    tid: i32::try_from(sample.tid).unwrap_or_default(),
                    time: sample.time,
                    in_kernel: sample.in_kernel,
                    user: sample.user,
                    frames: sample.frames().collect(),
                    resumed_after_cgo: sample.resumed_after_cgo,
                    cut: sample.cut,
                    crossed: (sample.g != 0).then_some(sample.crossed),
                    goroutine,
                    kernel: std::mem::take(&mut own.kernel),
                    stack: &own.stack,
                }));
            }
        });
        Ok(())
    }

    fn counts(&self) -> Counts {
        let counts = self.sampler.counts().unwrap_or_default();
        Counts { taken: counts.taken, lost: counts.lost, pauses: None }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw().unsigned_abs()
}

fn process(number: u32) -> Option<Pid> {
    number.try_into().ok()
}
