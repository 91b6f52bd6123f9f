//! Perf events and the buffers that they write to.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use perf_event::events::Software;
use perf_event::{Builder, Clock, Counter, SampleFlag, Sampler};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::super::privileges;
use super::records::Record;
use crate::arch::host;
use crate::process::Pid;

/// Scope of perf events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// CPUs, with all threads that run on them. Misses no thread, however short its life; requires
    /// CAP_PERFMON.
    Cpus,
    /// Threads of the targets, and by inheritance the threads that these begin. Each thread has its own
    /// timer, which runs only with it: a thread that has run less than a period is not seen.
    Threads,
}

/// Reasons why perf events give no samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Missing system call.
    #[error("this kernel has no perf events (CONFIG_PERF_EVENTS), or a seccomp filter hides them")]
    Missing,
    /// Missing permission to watch the CPUs.
    #[error("the kernel denies perf events of CPUs ({source}): {}", privileges::for_cpus())]
    DeniedCpus {
        /// Error of the kernel.
        source: io::Error,
    },
    /// Missing permission to watch the threads of a process.
    #[error("the kernel denies perf events of process {pid} ({source}): {}", privileges::for_threads(*pid))]
    DeniedThreads {
        /// Process whose threads may not be watched.
        pid: Pid,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Limit of open files is too low.
    #[error(
        "{threads} threads on {cpus} CPUs take as many perf events, and only {limit} files may be open (ulimit -n)"
    )]
    TooMany {
        /// Number of threads with events before the failure.
        threads: usize,
        /// Number of CPUs of the machine.
        cpus: usize,
        /// Maximum number of open files.
        limit: u64,
    },
    /// Limit of locked memory is too low.
    #[error("the kernel denies buffers for perf events ({0}): raise ulimit -l or kernel.perf_event_mlock_kb")]
    NoBuffer(io::Error),
    /// Process has exited.
    #[error("process {0} exited")]
    Exited(Pid),
    /// Other failure.
    #[error("{action}: {source}")]
    Other {
        /// Action that failed.
        action: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
}

impl Error {
    fn other(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Error::Other { action, source }
    }
}

/// Common settings of all events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rate: u32,
    pub(super) kernel_frames: bool,
    /// Bytes of stack to copy.
    pub(super) stack: u32,
    /// True to wake us at each exec, so that the process can be examined before it ends.
    pub(super) follow: bool,
}

/// Open events, and a buffer for each CPU.
#[derive(Debug)]
pub(super) struct Events {
    scope: Scope,
    shape: Shape,
    /// True if code of the kernel is not sampled at all.
    only_user: bool,
    max_frames: u16,
    rings: Vec<Ring>,
    /// Buffers of exec events alone: each record in them ends the wait.
    execs: Vec<Ring>,
    /// Events of threads; they write to the buffers of their CPUs.
    counters: Vec<Counter>,
    threads: usize,
}

struct Ring {
    cpu: usize,
    sampler: Sampler,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

/// Sizes of buffers in bytes, largest first. Without CAP_IPC_LOCK there are 512 KiB for each CPU, and the
/// limit of locked memory.
const BUFFERS: [usize; 4] = [4 << 20, 512 << 10, 128 << 10, 64 << 10];
/// Size of an exec buffer in bytes, enough for some hundred records.
const EXEC_BUFFER: [usize; 1] = [32 << 10];

impl Events {
    pub(super) fn of_cpus(shape: Shape) -> Result<Self, Error> {
        let mut events = Events::new(Scope::Cpus, shape);
        if shape.follow {
            // Exec buffers come first: the others take all memory that may be locked.
            events.execs = events.open_rings(Software::DUMMY, &EXEC_BUFFER, |builder| {
                builder.any_pid().comm(true).comm_exec(true).wakeup_watermark(1)
            })?;
        }
        events.rings = events.open_rings(Software::CPU_CLOCK, &BUFFERS, |builder| {
            let own = !shape.follow;
            builder.any_pid().exclude_idle(true).task(true).comm(own).comm_exec(own)
        })?;
        Ok(events)
    }

    /// Opens the buffers only; see [`Events::add_thread`].
    pub(super) fn of_threads(shape: Shape) -> Result<Self, Error> {
        raise_file_limit();
        let mut events = Events::new(Scope::Threads, shape);
        // Above level 1, code of the kernel may not be sampled without the capability.
        events.only_user = privileges::paranoid().is_some_and(|level| level > 1) && !privileges::may_perf();
        // A buffer lives as long as the event that owns it: an event of our own lives as long as we do.
        events.rings = events
            .open_rings(Software::DUMMY, &BUFFERS, |builder| builder.observe_self().exclude_kernel(true))?;
        Ok(events)
    }

    /// Opens an event on each CPU, with a buffer.
    fn open_rings(
        &self,
        event: Software,
        sizes: &[usize],
        shape: impl for<'b> Fn(&'b mut Builder<'static>) -> &'b mut Builder<'static>,
    ) -> Result<Vec<Ring>, Error> {
        let mut rings = Vec::new();
        for cpu in online_cpus()? {
            let open = || {
                shape(&mut self.builder(event)).one_cpu(cpu).build().map_err(|source| {
                    match source.raw_os_error() {
                        Some(libc::EACCES | libc::EPERM) => Error::DeniedCpus { source },
                        Some(libc::ENOSYS | libc::ENOENT) => Error::Missing,
                        _ => Error::Other { action: "opening a perf event", source },
                    }
                })
            };
            rings.push(Ring { cpu, sampler: with_buffer(sizes, open)? });
        }
        Ok(rings)
    }

    fn new(scope: Scope, shape: Shape) -> Self {
        // The kernel limits a chain of both kinds of frames.
        let limit = fs::read_to_string("/proc/sys/kernel/perf_event_max_stack").ok();
        let max_frames = limit.and_then(|text| text.trim().parse().ok()).unwrap_or(127);
        Events {
            scope,
            shape,
            only_user: false,
            max_frames,
            rings: Vec::new(),
            execs: Vec::new(),
            counters: Vec::new(),
            threads: 0,
        }
    }

    fn builder(&self, event: Software) -> Builder<'static> {
        let mut builder = Builder::new(event);
        builder
            .sample(SampleFlag::IDENTIFIER)
            .sample(SampleFlag::TID)
            .sample(SampleFlag::TIME)
            .sample(SampleFlag::CALLCHAIN)
            .sample(SampleFlag::REGS_USER)
            .sample(SampleFlag::STACK_USER)
            .sample_id_all(true)
            .sample_frequency(self.shape.rate.into())
            .sample_regs_user(host::PERF_REGISTERS)
            .sample_stack_user(self.shape.stack)
            .clockid(Clock::MONOTONIC)
            .exclude_kernel(self.only_user)
            .exclude_callchain_kernel(self.only_user || !self.shape.kernel_frames);
        builder
    }

    /// Samples a thread and the threads that it begins from now on. Returns the numbers of its events.
    pub(super) fn add_thread(&mut self, pid: Pid, tid: i32, enabled: bool) -> Result<Vec<u64>, Error> {
        let mut builder = self.builder(Software::CPU_CLOCK);
        builder.observe_pid(tid).inherit(true).enabled(enabled).task(true).comm(true).comm_exec(true);
        let mut ids = Vec::with_capacity(self.rings.len());
        for ring in &self.rings {
            let counter =
                builder.one_cpu(ring.cpu).build().map_err(|source| match source.raw_os_error() {
                    Some(libc::ESRCH) => Error::Exited(pid),
                    Some(libc::EACCES | libc::EPERM) => Error::DeniedThreads { pid, source },
                    Some(libc::EMFILE | libc::ENFILE) => {
                        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
                        Error::TooMany { threads: self.threads, cpus: self.rings.len(), limit }
                    }
                    _ => Error::Other { action: "opening a perf event", source },
                })?;
            write_to(&counter, ring.sampler.as_raw_fd())
                .map_err(Error::other("directing a perf event to a buffer"))?;
            ids.push(counter.id());
            self.counters.push(counter);
        }
        self.threads += 1;
        Ok(ids)
    }

    pub(super) fn start(&mut self) -> io::Result<()> {
        for ring in self.execs.iter_mut().chain(&mut self.rings) {
            ring.sampler.enable()?;
        }
        for counter in &mut self.counters {
            counter.enable()?;
        }
        Ok(())
    }

    /// Waits until a buffer is half full, until a process executes a program that must be examined, or until
    /// the timeout.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let rings = self.execs.iter().chain(&self.rings);
        let fds: Vec<RawFd> = rings.map(|ring| ring.sampler.as_raw_fd()).collect();
        // SAFETY: the file descriptors are open as long as `self`, which is borrowed.
        let fds = fds.iter().map(|&fd| unsafe { BorrowedFd::borrow_raw(fd) });
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout =
            Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Passes on the records that have arrived, CPU by CPU. Exec records come first, so that the forks before
    /// them have arrived too.
    pub(super) fn read(&mut self, each: &mut dyn FnMut(Record)) {
        for ring in self.execs.iter_mut().chain(&mut self.rings) {
            // Records that arrive during this read are left for the next one.
            for _ in 0..MAX_RECORDS {
                let Some(record) = ring.sampler.next_record() else { break };
                if let Some(record) = Record::parse(record.ty(), record.misc(), &record.to_contiguous()) {
                    each(record);
                }
            }
        }
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    pub(super) fn only_user(&self) -> bool {
        self.only_user
    }

    /// Maximum number of frames of a chain.
    pub(super) fn max_frames(&self) -> usize {
        self.max_frames.into()
    }
}

/// Upper limit of the number of records in a buffer; more than fit.
const MAX_RECORDS: usize = 1 << 18;

/// Opens an event with the largest buffer that is allowed.
fn with_buffer(sizes: &[usize], open: impl Fn() -> Result<Counter, Error>) -> Result<Sampler, Error> {
    let mut last = None;
    for &size in sizes {
        match open()?.sampled(size) {
            Ok(sampler) => return Ok(sampler),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(Error::Missing, Error::NoBuffer))
}

/// Redirects an event to the buffer of another one on the same CPU.
fn write_to(counter: &Counter, ring: RawFd) -> io::Result<()> {
    /// Value of `_IO('$', 5)`.
    const PERF_EVENT_IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
    // SAFETY: the request takes a file descriptor by value; both are open as long as the values that own
    // them.
    let result = unsafe { libc::ioctl(counter.as_raw_fd(), PERF_EVENT_IOC_SET_OUTPUT, ring) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // If the limit may not be raised, opening an event reports it.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Returns the numbers of the online CPUs.
fn online_cpus() -> Result<Vec<usize>, Error> {
    let text =
        fs::read_to_string("/sys/devices/system/cpu/online").map_err(Error::other("listing the CPUs"))?;
    let cpus = parse_cpus(&text);
    if cpus.is_empty() {
        return Err(Error::other("listing the CPUs")(io::ErrorKind::InvalidData.into()));
    }
    Ok(cpus)
}

/// Parses ranges such as `0-3,8`.
fn parse_cpus(text: &str) -> Vec<usize> {
    /// Upper limit of CPU numbers; larger than in any kernel.
    const MAX: usize = 1 << 14;
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse::<usize>().ok()?.min(MAX)))
    });
    ranges.flat_map(|(first, last)| first..=last).take(MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus() {
        assert_eq!(parse_cpus("0\n"), [0]);
        assert_eq!(parse_cpus("0-2,5,8-9\n"), [0, 1, 2, 5, 8, 9]);
        assert!(parse_cpus("").is_empty() && parse_cpus("3-1").is_empty());
        assert!(parse_cpus("0-99999999999").len() <= 1 << 14);
    }
}
