//! Running gops-probe once, and what that cost.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::binary;
use fixtures::paired::{Figures, figures};

/// One run of `stack`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From start to end of the program, its output thrown away.
    pub(crate) total: Duration,
    /// Its own clock: how long all threads, or without a pause the longest single one, were stopped.
    pub(crate) stopped: Duration,
    /// Most memory that it had, in KiB.
    pub(crate) peak: i64,
}

/// Runs `stack` on a process.
pub(crate) fn stack(pid: u32, arguments: &[&str]) -> Result<Run, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let mut child = Command::new(binary()?)
        .args(["stack", "-v", &pid.to_string()])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut told = String::new();
    child.stderr.take().ok_or("no stderr")?.read_to_string(&mut told)?;
    let peak = reap(&child)?;
    let total = begun.elapsed();
    let cost = told.lines().find(|l| l.starts_with("cost:")).ok_or_else(|| format!("no cost: {told}"))?;
    let stopped = cost
        .split_once("stopped for ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .map(Duration::from_micros)
        .ok_or_else(|| format!("no pause: {cost}"))?;
    Ok(Run { total, stopped, peak })
}

/// Waits for a child and returns its peak memory in KiB.
fn reap(child: &std::process::Child) -> Result<i64, Box<dyn std::error::Error>> {
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: a rusage of zeros is a valid value, for it has only numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right type, and the pid is our child's, not yet waited for.
    if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {
        return Err(std::io::Error::last_os_error().into());
    }
    if !libc::WIFEXITED(status) || !matches!(libc::WEXITSTATUS(status), 0 | 7) {
        return Err(format!("gops-probe ended with status {status:#x}").into());
    }
    Ok(usage.ru_maxrss)
}

/// The time to the first byte of `stack`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstOutput {
    pub(crate) executable_mb: u64,
    pub(crate) milliseconds: Figures,
}

/// Measures it on a running program.
pub(crate) fn first_output(pid: u32) -> Result<FirstOutput, Box<dyn std::error::Error>> {
    let size = std::fs::metadata(format!("/proc/{pid}/exe"))?.len();
    let mut times = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let mut child = Command::new(binary()?)
            .args(["stack", &pid.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut out = child.stdout.take().ok_or("no stdout")?;
        out.read_exact(&mut [0])?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        std::io::copy(&mut out, &mut std::io::sink())?;
        child.wait()?;
    }
    Ok(FirstOutput { executable_mb: size >> 20, milliseconds: figures(&times) })
}
