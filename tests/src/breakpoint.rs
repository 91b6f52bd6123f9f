//! Breakpoint in a fixture, at a function of its own runtime: only for oracles in test programs.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// State of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    Running,
    /// Stopped; a signal that was on its way is delivered at the next start.
    Stopped(Option<Signal>),
}

/// Process whose threads are all traced by this one thread.
struct Traced {
    threads: BTreeMap<i32, Thread>,
}

const PATIENCE: Duration = Duration::from_secs(30);
const INT3: i64 = 0xcc;

/// Stops the process when one of its threads reaches `address`, stops all other threads too, calls `look`,
/// and lets the process continue unchanged. `trigger` makes a thread reach the address.
///
/// # Errors
/// Returns the error of the kernel, or an error if no thread reaches the address in time. The process may
/// then be damaged.
pub fn at<T>(
    pid: u32,
    address: u64,
    trigger: impl FnOnce() -> Result<(), String>,
    look: impl FnOnce() -> T,
) -> Result<T, String> {
    let pid = i32::try_from(pid).map_err(|e| e.to_string())?;
    let mut traced = Traced::seize(pid).map_err(|e| format!("seizing: {e}"))?;
    let at = usize::try_from(address).map_err(|e| e.to_string())? as ptrace::AddressType;
    let leader = Pid::from_raw(pid);
    let failed = |what: &'static str| move |e: Errno| format!("{what}: {e}");
    let original = ptrace::read(leader, at).map_err(failed("reading"))?;
    ptrace::write(leader, at, (original & !0xff) | INT3).map_err(failed("writing"))?;
    traced.run().map_err(failed("running"))?;
    let result = trigger().and_then(|()| traced.wait_for(address)).map(|hit| (hit, ()));
    // In any case, the process must not run into the breakpoint.
    traced.stop_all()?;
    ptrace::write(leader, at, original).map_err(failed("restoring"))?;
    let (hit, ()) = result?;
    let hit = Pid::from_raw(hit);
    let mut registers = ptrace::getregs(hit).map_err(failed("registers"))?;
    registers.rip = address;
    ptrace::setregs(hit, registers).map_err(failed("registers"))?;
    traced.threads.insert(hit.as_raw(), Thread::Stopped(None));
    // Another thread may have reached the address at the same moment.
    for (&tid, state) in &mut traced.threads {
        if *state == Thread::Stopped(Some(Signal::SIGTRAP)) {
            let tid = Pid::from_raw(tid);
            let mut registers = ptrace::getregs(tid).map_err(failed("registers"))?;
            if registers.rip == address + 1 {
                registers.rip = address;
                ptrace::setregs(tid, registers).map_err(failed("registers"))?;
                *state = Thread::Stopped(None);
            }
        }
    }
    let answer = look();
    traced.detach();
    Ok(answer)
}

fn tids(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

impl Traced {
    /// Seizes and stops all threads.
    fn seize(pid: i32) -> Result<Self, Errno> {
        let mut traced = Traced { threads: BTreeMap::new() };
        loop {
            let new: Vec<i32> =
                tids(pid).into_iter().filter(|tid| !traced.threads.contains_key(tid)).collect();
            if new.is_empty() {
                return Ok(traced);
            }
            for tid in new {
                match ptrace::seize(Pid::from_raw(tid), ptrace::Options::PTRACE_O_TRACECLONE) {
                    Ok(()) => {
                        traced.threads.insert(tid, Thread::Running);
                    }
                    Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
            traced.stop_all().map_err(|_| Errno::ETIMEDOUT)?;
        }
    }

    fn run(&mut self) -> Result<(), Errno> {
        for (&tid, state) in &mut self.threads {
            if let Thread::Stopped(signal) = *state {
                match ptrace::cont(Pid::from_raw(tid), signal) {
                    Ok(()) | Err(Errno::ESRCH) => *state = Thread::Running,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Checks each running thread once; returns one that stopped at a breakpoint at `address`.
    fn poll(&mut self, address: Option<u64>) -> Option<i32> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        let running: Vec<i32> =
            self.threads.iter().filter(|(_, s)| **s == Thread::Running).map(|(&tid, _)| tid).collect();
        let mut hit = None;
        for tid in running {
            let state = match waitpid(Pid::from_raw(tid), Some(flags)) {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {
                    let at = ptrace::getregs(Pid::from_raw(tid)).map_or(0, |r| r.rip);
                    if address.is_some_and(|address| at == address + 1) {
                        hit = Some(tid);
                    }
                    Thread::Stopped(Some(Signal::SIGTRAP))
                }
                Ok(WaitStatus::Stopped(_, signal)) => Thread::Stopped(Some(signal)),
                Ok(WaitStatus::PtraceEvent(_, _, event)) => {
                    if event == nix::libc::PTRACE_EVENT_CLONE
                        && let Ok(new) = ptrace::getevent(Pid::from_raw(tid))
                        && let Ok(new) = i32::try_from(new)
                    {
                        self.threads.entry(new).or_insert(Thread::Running);
                    }
                    Thread::Stopped(None)
                }
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    self.threads.remove(&tid);
                    continue;
                }
                _ => continue,
            };
            self.threads.insert(tid, state);
        }
        hit
    }

    /// Lets the threads run until one reaches `address`.
    fn wait_for(&mut self, address: u64) -> Result<i32, String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(hit) = self.poll(Some(address)) {
                return Ok(hit);
            }
            self.run().map_err(|e| e.to_string())?;
            std::thread::sleep(Duration::from_micros(100));
        }
        Err("it does not come to the breakpoint".to_owned())
    }

    fn stop_all(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = Vec::new();
        while self.threads.values().any(|state| *state == Thread::Running) {
            let running = self.threads.iter().filter(|(_, s)| **s == Thread::Running);
            for (&tid, _) in running {
                if !told.contains(&tid) {
                    let _gone = ptrace::interrupt(Pid::from_raw(tid));
                    told.push(tid);
                }
            }
            self.poll(None);
            if Instant::now() > deadline {
                return Err("a thread does not stop".to_owned());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    fn detach(&mut self) {
        for (tid, state) in std::mem::take(&mut self.threads) {
            let signal = match state {
                Thread::Stopped(signal) => signal,
                Thread::Running => None,
            };
            let _gone = ptrace::detach(Pid::from_raw(tid), signal);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.stop_all().is_ok() {
            self.detach();
        }
    }
}
