//! Facts from /proc about a sampled process: threads, CPU time, program and children.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use super::account::Account;
use crate::capture::cpu::source::GoTarget;
use crate::memory::Memory;
use crate::process::facts::Stat;
use crate::process::{Pid, memory_of};
use crate::stop::{self, StopError};

/// Maximum number of threads to look at.
const MAX_THREADS: usize = 1 << 16;

/// Process that is sampled.
#[derive(Debug)]
pub(super) struct SampledProcess {
    /// Go code of the process.
    pub(super) go: Vec<GoTarget>,
    pub(super) memory: Box<dyn Memory>,
    pub(super) threads: HashMap<i32, Account>,
    /// True after the first look: any new thread began during sampling.
    seen: bool,
    /// Executable of the process: device and inode.
    program: Option<(u64, u64)>,
}

/// Thread that was found running.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) tid: i32,
    /// Time that the thread has waited for CPUs; `None` if the kernel does not report it.
    pub(super) waited: Option<Duration>,
}

impl SampledProcess {
    pub(super) fn new(pid: Pid, go: Vec<GoTarget>, begun_meanwhile: bool) -> Self {
        SampledProcess {
            go,
            memory: Box::new(memory_of(pid)),
            threads: HashMap::new(),
            seen: begun_meanwhile,
            program: program_of(pid),
        }
    }

    /// Looks at the threads. Returns the CPU time of ended threads that no look found running.
    pub(super) fn look(&mut self, pid: Pid, running: &mut Vec<Running>) -> Result<Duration, StopError> {
        let mut known = std::mem::take(&mut self.threads);
        let tids = match stop::threads(pid.as_raw()) {
            Ok(tids) => tids,
            Err(error) => {
                self.threads = known;
                return Err(error);
            }
        };
        for tid in tids.into_iter().take(MAX_THREADS) {
            let Some(Times { used, waited }) = Times::read(pid, tid) else { continue };
            let account = match known.remove(&tid) {
                Some(account) => account,
                None if self.seen => Account::begun(),
                None => Account::known(used),
            };
            let account = self.threads.entry(tid).or_insert(account);
            account.saw(used);
            if runs(pid, tid) {
                running.push(Running { pid, tid, waited });
            }
        }
        self.seen = true;
        Ok(known.values().map(Account::unseen).sum())
    }

    /// Returns true if the process executes another program than at the last call.
    pub(super) fn executes_another_program(&mut self, pid: Pid) -> bool {
        let program = program_of(pid);
        let other = program.is_some() && self.program.is_some() && program != self.program;
        self.program = program.or(self.program);
        other
    }

    /// Returns the processes that the threads have begun.
    pub(super) fn children(&self, pid: Pid) -> impl Iterator<Item = Pid> {
        self.threads.keys().flat_map(move |&tid| children_of(pid, tid))
    }

    /// CPU time of the threads that no look found running.
    pub(super) fn unseen(&self) -> Duration {
        self.threads.values().map(Account::unseen).sum()
    }
}

/// CPU times of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    used: Duration,
    pub(super) waited: Option<Duration>,
}

impl Times {
    pub(super) fn read(pid: Pid, tid: i32) -> Option<Self> {
        let dir = format!("/proc/{pid}/task/{tid}");
        if let Ok(text) = fs::read_to_string(format!("{dir}/schedstat")) {
            let mut words = text.split_ascii_whitespace().map(|word| word.parse().map(Duration::from_nanos));
            if let (Some(Ok(used)), Some(Ok(waited))) = (words.next(), words.next())
                && !used.is_zero()
            {
                return Some(Times { used, waited: Some(waited) });
            }
        }
        // No schedstat: a kernel without CONFIG_SCHED_INFO, or a thread that has not run yet.
        let stat = Stat::parse(&fs::read(format!("{dir}/stat")).ok()?)?;
        // USER_HZ is the same on all machines.
        Some(Times { used: Duration::from_millis(stat.cpu_ticks.saturating_mul(10)), waited: None })
    }
}

/// Returns true if a thread is on a CPU, or waits for one.
fn runs(pid: Pid, tid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok();
    stat.and_then(|bytes| Stat::parse(&bytes)).is_some_and(|stat| stat.state == 'R')
}

/// Returns the executable of a process: device and inode.
fn program_of(pid: Pid) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Returns the processes that a thread began; none if the kernel does not report them (CONFIG_PROC_CHILDREN).
fn children_of(pid: Pid, tid: i32) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}
