//! All that can be said about one process, and what could not be found out about it.

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

/// A process.
#[derive(Debug)]
pub struct Details {
    /// Its pid in our pid namespace.
    pub pid: Pid,
    /// What /proc/PID/stat says.
    pub stat: Stat,
    /// What /proc/PID/status says.
    pub status: Status,
    /// The name of its real user, where there is one of its number.
    pub user: Option<String>,
    /// What it was started with.
    pub command: Vec<Vec<u8>>,
    /// Its memory, in bytes.
    pub resident: Option<u64>,
    /// The machine's memory, in bytes.
    pub machine_memory: Option<u64>,
    /// CPU time since it began, in user and kernel mode.
    pub cpu: Duration,
    /// For how long it has existed.
    pub elapsed: Duration,
    /// CPU usage as gops counts it, in percent of one core: with the time that it waited for block devices, and since the
    /// whole second in which it began.
    pub cpu_percent_of_gops: f64,
    /// For how long it has existed as gops counts it: since the whole second in which it began.
    pub elapsed_of_gops: Duration,
    /// CPU time over the period that was asked for.
    pub over_period: Option<OverPeriod>,
    /// Its sockets; `None` where they may not be seen.
    pub connections: Option<Vec<Connection>>,
    /// For [`Detail::All`].
    pub more: Option<More>,
    /// What could not be found out, and why.
    pub unknown: Vec<Error>,
}

/// CPU time over a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverPeriod {
    /// How long that was to be.
    pub asked: Duration,
    /// How long it was.
    pub measured: Duration,
    /// CPU time and waiting for block devices during it.
    pub cpu_and_io: Duration,
}

/// What gops does not say.
#[derive(Debug, Default)]
pub struct More {
    /// The Go program; `None` where it is none, or where that cannot be seen.
    pub go: Option<GoProcess>,
    /// Why it is no Go program.
    pub not_go: Option<Error>,
    /// Build ids of its executable.
    pub build_ids: BuildIds,
    /// The container that it runs in.
    pub container: Option<String>,
    /// The uid of its Kubernetes pod.
    pub pod: Option<String>,
    /// What its cgroups allow it.
    pub limits: Option<Limits>,
    /// Namespaces that it does not share with us.
    pub other_namespaces: Vec<Namespace>,
    /// Environment variables that Go's runtime heeds.
    pub environment: Option<Vec<(&'static str, String)>>,
}

/// What cgroups allow.
#[derive(Debug)]
pub struct Limits {
    /// The cgroup that limits memory, and how.
    pub memory: Option<(cgroup::Place, cgroup::Memory)>,
    /// The cgroup that limits CPU time, and how.
    pub cpu: Option<(cgroup::Place, cgroup::Cpu)>,
}

/// Looks at a process; over `period`, where that is not zero. Other than memory, nothing of it is touched.
///
/// # Errors
/// [`Error::Exited`], [`Error::Executed`]. What else cannot be read is in [`Details::unknown`].
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

/// Puts what is unreadable aside, and fails where the process is gone.
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

/// How often it is looked whether the process is still there.
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
    // The reason is known already where the executable cannot be opened.
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

/// Reads what its cgroups allow, as they are mounted here, or where the process has them.
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

/// Files of cgroups are short; what a process may have mounted in their place need not be.
fn bounded(file: Result<RegularFile, NotOpened>) -> Option<Vec<u8>> {
    const LONGEST: u64 = 64 << 10;
    file.ok()?.read_up_to(LONGEST).ok()
}

/// CPU time of a time, in percent of one core.
pub fn percent(cpu: Duration, of: Duration) -> f64 {
    if of.is_zero() { 0.0 } else { 100.0 * cpu.as_secs_f64() / of.as_secs_f64() }
}

fn cpu_and_io(stat: &Stat) -> Duration {
    ticks(stat.cpu_ticks.saturating_add(stat.io_wait_ticks))
}

/// Clock ticks of /proc are hundredths of seconds on all machines that we know; the system says so.
fn ticks(ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
    let per_second = per_second.filter(|n| (1..=1_000_000).contains(n)).unwrap_or(100);
    Duration::from_secs(ticks / per_second)
        + Duration::from_nanos((ticks % per_second) * 1_000_000_000 / per_second)
}

/// The time of a clock that begins at zero.
fn now(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}

/// /proc/meminfo begins with what is wanted, and the kernel gives all of it at once.
fn machine_memory() -> Option<u64> {
    let mut text = [0; 4096];
    let len = File::open("/proc/meminfo").ok()?.read(&mut text).ok()?;
    facts::memory_total(text.get(..len)?)
}
