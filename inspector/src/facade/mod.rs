//! A process with a Go runtime, and what it can be asked from outside: the way in for other programs.

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

/// A process that is looked at from outside. It is held by a file descriptor, so that it is never mistaken for another one that
/// got its number: once it has exited, or executes another program, each question ends with an error of
/// [`Kind::NoProcess`](crate::Kind::NoProcess). That is looked at after each question, so an answer is one of this process.
///
/// Nothing is written to the process. What is read in a stop of its threads says so, with the longest stop that is allowed.
#[derive(Debug)]
pub struct Target {
    process: Process,
    runtime: Option<String>,
}

impl Target {
    /// The process with a number, in the pid namespace of the calling process.
    ///
    /// # Errors
    /// No such process, or one that is no program: a zombie, or a thread of another process. Whether it has a Go runtime is found
    /// out by the first question.
    pub fn pid(pid: u32) -> Result<Self, Error> {
        let pid = Pid::try_from(pid).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Target { process: Process::pin(pid)?, runtime: None })
    }

    /// The one Go process whose name matches a regular expression.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no regular expression; no such process, or several.
    pub fn named(pattern: &str) -> Result<Self, Error> {
        let regex = regex::bytes::Regex::new(pattern).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Target { process: Selector::Name(regex).pin()?, runtime: None })
    }

    /// Asks one of several Go runtimes of the process: by the path of its module, or that file's name. Without this, a
    /// process that has several is an error that names them.
    #[must_use]
    pub fn runtime(mut self, module: impl Into<String>) -> Self {
        self.runtime = Some(module.into());
        self
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.pid().as_raw().unsigned_abs()
    }

    /// Fails once the process has exited or executes another program.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self) -> Result<(), Error> {
        Ok(self.process.check()?)
    }

    /// The Go runtimes that it has: mostly one.
    ///
    /// # Errors
    /// Where there is none, or none that can be read.
    pub fn runtimes(&self) -> Result<Vec<RuntimeName>, Error> {
        let found = open_all(&self.process)?;
        self.check()?;
        let failed = found.failed.into_iter().map(|(name, _)| name);
        Ok(found.opened.into_iter().map(|opened| opened.name).chain(failed).collect())
    }

    /// All goroutines with their stacks, of one instant.
    ///
    /// # Errors
    /// Where they cannot be read. What cannot be read of single goroutines is marked in the answer.
    pub fn stack(&self, options: &StackOptions) -> Result<Goroutines, Error> {
        let seen = stack::look(&self.process, self.open()?, &options.snapshot())?;
        Ok(Goroutines::new(seen, options.system))
    }

    /// Numbers of goroutines, threads and CPUs, without a stop.
    ///
    /// # Errors
    /// Where they cannot be read, or contradict each other.
    pub fn stats(&self) -> Result<StatsAnswer, Error> {
        let answer = stats::look(&self.process, &self.open()?, true)?;
        stats::conclude(&answer.doubtful)?;
        Ok(answer)
    }

    /// `runtime.MemStats`, of one instant: the threads are stopped for as long as reading takes.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn memstats(&self) -> Result<MemStatsAnswer, Error> {
        memstats::look(&self.process, &self.open()?, Wanted::Instant)
    }

    /// What holds the memory of the heap now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn heap(&self, options: &HeapOptions) -> Result<HeapAnswer, Error> {
        heap::look(&self.process, &self.open()?, options.pause(), options.top)
    }

    /// A profile that the runtime keeps, without a stop.
    ///
    /// # Errors
    /// Where it cannot be read; [`Error::ProfilerOff`] where the runtime keeps none.
    pub fn profile(&self, kind: ProfileKind) -> Result<ProfileAnswer, Error> {
        let runtime = self.runtime.as_deref();
        let taken = profile::reading(kind, &self.process, runtime, None, |_| {})?;
        Ok(ProfileAnswer::new(taken))
    }

    /// Takes CPU samples for some time, in which the calling thread waits.
    ///
    /// # Errors
    /// Where the kernel permits no samples, or none could be taken.
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
