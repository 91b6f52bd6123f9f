//! Entry point for other programs: questions to a process with a Go runtime, from outside.

mod answers;
mod options;

use std::ops::ControlFlow;
use std::time::Duration;

pub use answers::{Goroutines, ProfileAnswer};
pub use options::{CpuOptions, HeapOptions, StackOptions};

use crate::Error;
pub use crate::operations::profile::ProfileKind;
use crate::operations::{cpu, heap, memstats, profile, stack, stats};
use crate::process::select::Selector;
use crate::process::{Pid, Process};
use crate::report::heap::HeapAnswer;
use crate::report::memstats::MemStatsAnswer;
use crate::report::stats::StatsAnswer;
use crate::runtime::memstats::Wanted;
use crate::runtime::open::{Opened, RuntimeName, open_all, open_chosen};

/// Process that is examined from outside. A file descriptor holds the process, so that it is never confused
/// with a later one of the same pid. Once it has exited, or executes another program, each question returns
/// an error of [`ErrorKind::NoProcess`](crate::ErrorKind::NoProcess). This is checked after each question: an answer is
/// always about this process.
///
/// Nothing is written to the process. Methods that stop its threads say so; their options have the maximum
/// length of a stop.
#[derive(Debug)]
pub struct Target {
    process: Process,
    runtime: Option<String>,
}

impl Target {
    /// Pins the process with a pid, in the pid namespace of the calling process.
    ///
    /// # Errors
    /// Returns an error if there is no such process, or if it is a zombie or a thread of another process. The
    /// first question finds out if there is a Go runtime.
    pub fn pid(pid: u32) -> Result<Self, Error> {
        let pid = Pid::try_from(pid).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Target { process: Process::pin(pid)?, runtime: None })
    }

    /// Pins the only Go process whose name matches a regular expression.
    ///
    /// # Errors
    /// Returns [`Error::Usage`] if `pattern` is no regular expression, and an error if no process matches or
    /// several do.
    pub fn named(pattern: &str) -> Result<Self, Error> {
        let regex = regex::bytes::Regex::new(pattern).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Target { process: Selector::Name(regex).pin()?, runtime: None })
    }

    /// Chooses one of several Go runtimes of the process, by the path or the file name of its module. Without
    /// a choice, questions to a process with several runtimes return an error that names them.
    #[must_use]
    pub fn runtime(mut self, module: impl Into<String>) -> Self {
        self.runtime = Some(module.into());
        self
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.process.pid().as_raw().unsigned_abs()
    }

    /// Checks that the process still runs the same program.
    ///
    /// # Errors
    /// Returns an error if the process has exited or executes another program.
    pub fn check(&self) -> Result<(), Error> {
        Ok(self.process.check()?)
    }

    /// Returns the Go runtimes of the process. Most processes have one.
    ///
    /// # Errors
    /// Returns an error if there is no Go runtime, or none that can be read.
    pub fn runtimes(&self) -> Result<Vec<RuntimeName>, Error> {
        let found = open_all(&self.process)?;
        self.check()?;
        let failed = found.failed.into_iter().map(|(name, _)| name);
        Ok(found.opened.into_iter().map(|opened| opened.name).chain(failed).collect())
    }

    /// Returns all goroutines with their stacks, of one instant.
    ///
    /// # Errors
    /// Returns an error if the goroutines cannot be read. The answer marks data that is missing for single
    /// goroutines.
    pub fn stack(&self, options: &StackOptions) -> Result<Goroutines, Error> {
        let seen = stack::look(&self.process, self.open()?, &options.snapshot())?;
        Ok(Goroutines::new(seen, options.system))
    }

    /// Returns the numbers of goroutines, threads and CPUs, without a stop.
    ///
    /// # Errors
    /// Returns an error if the numbers cannot be read, or contradict each other.
    pub fn stats(&self) -> Result<StatsAnswer, Error> {
        let answer = stats::look(&self.process, &self.open()?, true)?;
        stats::conclude(&answer.doubtful)?;
        Ok(answer)
    }

    /// Returns `runtime.MemStats` of one instant. The threads are stopped while it is read.
    ///
    /// # Errors
    /// Returns an error if the statistics cannot be read.
    pub fn memstats(&self) -> Result<MemStatsAnswer, Error> {
        memstats::look(&self.process, &self.open()?, Wanted::Instant)
    }

    /// Returns the present use of the heap's memory: objects, spans and stacks.
    ///
    /// # Errors
    /// Returns an error if the heap cannot be read.
    pub fn heap(&self, options: &HeapOptions) -> Result<HeapAnswer, Error> {
        heap::look(&self.process, &self.open()?, options.pause(), options.top)
    }

    /// Returns a profile that the runtime keeps, without a stop.
    ///
    /// # Errors
    /// Returns an error if the profile cannot be read, and [`Error::ProfilerOff`] if the runtime keeps none.
    pub fn profile(&self, kind: ProfileKind) -> Result<ProfileAnswer, Error> {
        let runtime = self.runtime.as_deref();
        let taken = profile::reading(kind, &self.process, runtime, None, |_| {})?;
        Ok(ProfileAnswer::new(taken))
    }

    /// Takes CPU samples for `duration`. The calling thread waits.
    ///
    /// # Errors
    /// Returns an error if the kernel permits no samples, or if none could be taken.
    pub fn cpu_profile(&self, duration: Duration, options: &CpuOptions) -> Result<ProfileAnswer, Error> {
        let processes = std::slice::from_ref(&self.process);
        let taken =
            cpu::take(processes, &options.session(duration), &mut || ControlFlow::<()>::Continue(()))?;
        Ok(ProfileAnswer::new(taken))
    }

    fn open(&self) -> Result<Opened, Error> {
        Ok(open_chosen(&self.process, self.runtime.as_deref())?)
    }
}
