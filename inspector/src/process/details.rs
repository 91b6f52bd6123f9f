//! All facts about one process, and the facts that could not be found out.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use rustix::time::{ClockId, Timespec, clock_gettime};
use symbols::build_id::{self, BuildIds};
use symbols::image::Image;

use super::connections::Connection;
use super::facts::{self, Stat, Status};
use super::find::{self, Detail, GoProcess};
use super::regular::{Links, NotOpened, RegularFile};
use super::{Error, Namespace, Pid, Process, cgroup, users};
use crate::arch::page_size;

/// Facts about a process.
#[derive(Debug)]
pub struct Details {
    /// Process id in our pid namespace.
    pub pid: Pid,
    /// Contents of /proc/PID/stat.
    pub stat: Stat,
    /// Contents of /proc/PID/status.
    pub status: Status,
    /// Name of the real user; `None` if the user id has no name.
    pub user: Option<String>,
    /// Command line arguments.
    pub command: Vec<Vec<u8>>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Memory of the machine, in bytes.
    pub machine_memory: Option<u64>,
    /// CPU time since the process started, in user and kernel mode.
    pub cpu: Duration,
    /// Age of the process.
    pub elapsed: Duration,
    /// CPU usage as gops counts it, in percent of one core: including the time waiting for block
    /// devices, and since the whole second in which the process started.
    pub cpu_percent_of_gops: f64,
    /// Age of the process as gops counts it: since the whole second in which it started.
    pub elapsed_of_gops: Duration,
    /// CPU time over the requested period.
    pub over_period: Option<OverPeriod>,
    /// Sockets of the process; `None` if they may not be seen.
    pub connections: Option<Vec<Connection>>,
    /// Further facts, for [`Detail::All`].
    pub more: Option<More>,
    /// Errors for the facts that could not be found out.
    pub unknown: Vec<Error>,
}

/// CPU time over a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverPeriod {
    /// Requested length of the period.
    pub asked: Duration,
    /// Measured length of the period.
    pub measured: Duration,
    /// CPU time and time waiting for block devices during the period.
    pub cpu_and_io: Duration,
}

/// Facts that gops does not show.
#[derive(Debug, Default)]
pub struct More {
    /// Facts about the Go program; `None` if it is none, or if that cannot be seen.
    pub go: Option<GoProcess>,
    /// Reason why the process is no Go program.
    pub not_go: Option<Error>,
    /// Build ids of the executable.
    pub build_ids: BuildIds,
    /// Id of the container that the process runs in.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod: Option<String>,
    /// Limits of the process's cgroups.
    pub limits: Option<Limits>,
    /// Namespaces that the process does not share with us.
    pub other_namespaces: Vec<Namespace>,
    /// Environment variables that Go's runtime heeds.
    pub environment: Option<Vec<(&'static str, String)>>,
}

/// Limits set by cgroups.
#[derive(Debug)]
pub struct Limits {
    /// Cgroup that limits memory, and its limit.
    pub memory: Option<(cgroup::Place, cgroup::Memory)>,
    /// Cgroup that limits CPU time, and its limit.
    pub cpu: Option<(cgroup::Place, cgroup::Cpu)>,
}

/// Collects the facts about a process. Measures CPU time over `period` unless it is zero. The
/// process is not changed.
///
/// # Errors
/// Returns [`Error::Exited`] or [`Error::Executed`]. All other failures are listed in
/// [`Details::unknown`].
pub fn look(process: &Process, period: Duration, detail: Detail) -> Result<Details, Error> {
    let mut unknown = Vec::new();
    let (stat, status) = (process.stat()?, process.status()?);
    let statm = noted(process.read("statm", "read the size"), &mut unknown)?;
    let (real, boot) = (now(ClockId::Realtime), now(ClockId::Boottime));
    let started = ticks(stat.start_time);
    let whole_seconds = |d: Duration| Duration::from_secs(d.as_secs());
    let started_by_gops = whole_seconds(real.saturating_sub(boot)) + whole_seconds(started);
    let over_period = if period.is_zero() { None } else { Some(measure(process, period)?) };
    let command = noted(process.read("cmdline", "read the command line"), &mut unknown)?;
    let connections = noted(process.connections(), &mut unknown)?;
    let more = match detail {
        Detail::Text => None,
        Detail::All => Some(more(process, &mut unknown)?),
    };
    process.check()?;
    Ok(Details {
        pid: process.pid(),
        user: status.uids.and_then(|uids| users::name(uids[0])),
        command: command
            .unwrap_or_default()
            .split(|&b| b == 0)
            .map(<[u8]>::to_vec)
            .filter(|a| !a.is_empty())
            .collect(),
        resident: statm
            .as_deref()
            .and_then(facts::resident_pages)
            .and_then(|pages| pages.checked_mul(page_size())),
        machine_memory: machine_memory(),
        cpu: ticks(stat.cpu_ticks),
        cpu_percent_of_gops: percent(cpu_and_io(&stat), real.saturating_sub(started_by_gops)),
        elapsed: boot.saturating_sub(started),
        elapsed_of_gops: now(ClockId::Realtime).saturating_sub(started_by_gops),
        over_period,
        connections,
        more,
        unknown,
        stat,
        status,
    })
}

/// Moves a read failure to `unknown`. Returns an error only if the process is gone.
fn noted<T>(result: Result<T, Error>, unknown: &mut Vec<Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(gone @ (Error::Exited(_) | Error::Executed(_))) => Err(gone),
        Err(other) => {
            unknown.push(other);
            Ok(None)
        }
    }
}

/// Maximum sleep between checks that the process still exists.
const STEP: Duration = Duration::from_millis(250);

fn measure(process: &Process, period: Duration) -> Result<OverPeriod, Error> {
    let before = cpu_and_io(&process.stat()?);
    let begun = Instant::now();
    let after = loop {
        std::thread::sleep(period.saturating_sub(begun.elapsed()).min(STEP));
        let after = cpu_and_io(&process.stat()?);
        if begun.elapsed() >= period {
            break after;
        }
    };
    process.check()?;
    Ok(OverPeriod { asked: period, measured: begun.elapsed(), cpu_and_io: after.saturating_sub(before) })
}

fn more(process: &Process, unknown: &mut Vec<Error>) -> Result<More, Error> {
    let mut more = More::default();
    match find::one(process) {
        Err(not_go @ (Error::NotGo { .. } | Error::Architecture { .. } | Error::GccGo { .. })) => {
            more.not_go = Some(not_go)
        }
        other => more.go = noted(other, unknown)?,
    }
    // If the executable cannot be opened, the reason is known already.
    if let Ok(executable) = process.executable()
        && let Ok(image) = Image::parse(Box::new(executable))
    {
        more.build_ids = build_id::of(&image);
    }
    let other = |kind: &Namespace| process.is_in_other_namespace(*kind) == Some(true);
    more.other_namespaces = Namespace::ALL.into_iter().filter(other).collect();
    let groups = noted(process.read("cgroup", "read the cgroups"), unknown)?;
    if let Some(groups) = &groups {
        more.container = facts::container_id(groups);
        more.pod = facts::pod_uid(groups);
    }
    let mounts = noted(process.read("mountinfo", "read the mounts"), unknown)?;
    if let Some(mounts) = &mounts {
        let (container, pod) = facts::container_and_pod_by_mounts(mounts);
        more.container = more.container.or(container);
        more.pod = more.pod.or(pod);
    }
    more.limits = groups.as_deref().and_then(|groups| limits(process, groups, mounts.as_deref()));
    let environ = noted(process.read("environ", "read the environment"), unknown)?;
    more.environment = environ.as_deref().map(facts::runtime_variables);
    Ok(more)
}

/// Reads the limits of the process's cgroups, through the mounts here, or through those that the
/// process has.
fn limits(process: &Process, groups: &[u8], mounts: Option<&[u8]>) -> Option<Limits> {
    let memberships = cgroup::memberships(groups);
    let here = cgroup::mounts(&std::fs::read("/proc/self/mountinfo").unwrap_or_default());
    let there = mounts.map(cgroup::mounts).unwrap_or_default();
    let read_here = |path: &Path| bounded(RegularFile::open(path, Links::Follow));
    let read_there = |path: &Path| bounded(RegularFile::open_in_root(process, path, Links::Follow));
    let ways: [(&[cgroup::Mount], cgroup::Reader<'_>); 2] = [(&here, &read_here), (&there, &read_there)];
    let place = |controller| {
        ways.iter()
            .find_map(|(mounts, read)| Some((cgroup::Place::find(&memberships, mounts, controller)?, *read)))
    };
    let memory = place("memory").map(|(place, read)| {
        let found = cgroup::memory(&place, read);
        (place, found)
    });
    let cpu = place("cpu").map(|(place, read)| {
        let found = cgroup::cpu(&place, read);
        (place, found)
    });
    (memory.is_some() || cpu.is_some()).then_some(Limits { memory, cpu })
}

/// Reads a short file. Files of cgroups are short; a process may have mounted something else in
/// their place.
fn bounded(file: Result<RegularFile, NotOpened>) -> Option<Vec<u8>> {
    const LONGEST: u64 = 64 << 10;
    file.ok()?.read_up_to(LONGEST).ok()
}

/// CPU time in percent of one core over the time `of`.
pub fn percent(cpu: Duration, of: Duration) -> f64 {
    if of.is_zero() { 0.0 } else { 100.0 * cpu.as_secs_f64() / of.as_secs_f64() }
}

fn cpu_and_io(stat: &Stat) -> Duration {
    ticks(stat.cpu_ticks.saturating_add(stat.io_wait_ticks))
}

/// Converts clock ticks of /proc to a duration. The system reports the ticks per second: 100 on all
/// machines that we know.
fn ticks(ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
    let per_second = per_second.filter(|n| (1..=1_000_000).contains(n)).unwrap_or(100);
    Duration::from_secs(ticks / per_second)
        + Duration::from_nanos((ticks % per_second) * 1_000_000_000 / per_second)
}

/// Current time of a clock that begins at zero.
fn now(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}

/// Total memory of the machine in bytes. It is at the start of /proc/meminfo, and the kernel gives
/// all of the file in one read.
fn machine_memory() -> Option<u64> {
    let mut text = [0; 4096];
    let len = File::open("/proc/meminfo").ok()?.read(&mut text).ok()?;
    facts::memory_total(text.get(..len)?)
}
