//! The answer of `process`.

use serde::Serialize;

use super::SCHEMA;
use super::list::Agent;
pub use super::process_text::write_text;
use super::version::{Module, Release};
use crate::agent::AgentMark;
use crate::memory::ReadCost;
use crate::process::cgroup;
use crate::process::connections::{Connection, End};
use crate::process::details::{Details, More, percent};
use crate::process::find::GoProcess;
use crate::runtime::open::RuntimeName;
use crate::runtime::settings::Settings;

/// One process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessInfo {
    /// Version of this format.
    pub schema: u32,
    /// Its pid in our pid namespace.
    pub pid: i32,
    /// Its parent's pid; absent where that is outside of our pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<i32>,
    /// Its name.
    pub name: String,
    /// State of the main thread, as `ps` shows it.
    pub state: char,
    /// Number of threads.
    pub threads: u64,
    /// Real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_uid: Option<u32>,
    /// The name of its real user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its command and arguments, without empty ones.
    pub command: Vec<String>,
    /// Its memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Its memory, in percent of the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// CPU time since it began, in seconds.
    pub cpu_seconds: f64,
    /// CPU time since it began, in percent of one core.
    pub cpu_percent: f64,
    /// CPU time over the period that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// For how long it has existed, in seconds.
    pub elapsed_seconds: f64,
    /// Its sockets; absent where they may not be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<Socket>>,
    /// The Go program that it runs; absent where it is none, or where that cannot be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go: Option<Go>,
    /// Why it is no Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_go: Option<String>,
    /// The build id of its linker, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gnu_build_id: Option<String>,
    /// The container that it runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The uid of its Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// What its cgroups allow it; absent where that cannot be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Environment variables that Go's runtime heeds, as the program found them when it began; absent where they may
    /// not be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<Variable>>,
    /// Namespaces that it does not share with us: `mnt`, `pid`, `net`, `user`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_namespaces: Vec<String>,
    /// Its pid in each pid namespace, ours first; absent where there is only one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_pids: Vec<i32>,
    /// Who traces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<i32>,
    /// What could not be found out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// What the answer cost the process.
    pub cost: ProcessCost,
}

/// CPU time over a period.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Period {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// CPU time during it, in percent of one core.
    pub cpu_percent: f64,
}

/// A socket.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Socket {
    /// `tcp`, `tcp6`, `udp`, `udp6`, `unix`.
    pub protocol: String,
    /// This end.
    pub local: Address,
    /// The other end; absent for Unix sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Address>,
    /// The state of TCP, such as `LISTEN`; absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// An end of a connection.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Address {
    /// The IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of a Unix socket; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A Go program.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Go {
    /// The path of its executable in its own mount namespace.
    pub path: String,
    /// The executable is deleted or was replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The shared object that holds the Go code, where the executable is no Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_object: Option<String>,
    /// What built it, and how that is known.
    #[serde(flatten)]
    pub release: Release,
    /// Its build id, as `go tool buildid` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The main package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_package: Option<String>,
    /// The main module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_module: Option<Module>,
    /// Its gops agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// What its runtime is set to.
    #[serde(flatten)]
    pub settings: RuntimeSettings,
    /// Where the process has several Go runtimes, each of them; absent else, and the settings above are absent then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<GoRuntime>,
}

/// One of several Go runtimes in a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GoRuntime {
    /// The path of the module that holds it, as the process knows it.
    pub module: String,
    /// The Go release that built it, as far as it is known.
    pub release: String,
    /// What its runtime is set to.
    #[serde(flatten)]
    pub settings: RuntimeSettings,
}

/// What a Go runtime is set to, right now.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RuntimeSettings {
    /// How many threads run Go code at once, right now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gomaxprocs: Option<u32>,
    /// By how many percent the heap may grow until the next collection, right now; -1 is `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gogc: Option<i32>,
    /// The soft memory limit right now, in bytes; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<i64>,
}

/// What cgroups allow: the smallest limit of the process's own and of those above it.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cgroup {
    /// The cgroup, from the root of our cgroup namespace.
    pub path: String,
    /// The version of cgroups: 1 or 2.
    pub version: u8,
    /// The memory limit in bytes; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// What the cgroup uses, in bytes, with the page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// The CPU limit in cores; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit_cores: Option<f64>,
    /// Periods in which something ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_periods: Option<u64>,
    /// Periods in which the CPU limit was used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_periods: Option<u64>,
    /// For how long all threads of the cgroup together had to wait for it, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_us: Option<u64>,
}

/// An environment variable.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What the answer cost the process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Cost"))]
pub struct ProcessCost {
    /// Bytes read of its memory.
    pub bytes_read: u64,
    /// System calls made for that.
    pub read_calls: u64,
    /// Bytes written into it.
    pub bytes_written: u64,
}

/// What is known of a process while it runs, beside what /proc and its files say.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The gops agent that listens in it; `None` where it has none, or where it is no Go program.
    pub agent: Option<AgentMark>,
    /// The settings of its Go runtime, where that is one.
    pub settings: Settings,
    /// Where there are several, those of each.
    pub runtimes: Vec<(RuntimeName, Settings)>,
    /// What reading these cost.
    pub cost: ReadCost,
}

impl ProcessInfo {
    /// Makes the answer.
    pub fn new(details: &Details, live: &Live) -> Self {
        let none = More::default();
        let more = details.more.as_ref().unwrap_or(&none);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let raw_pids = || details.status.ns_pids.iter().map(|p| p.as_raw()).collect();
        ProcessInfo {
            schema: SCHEMA,
            pid: details.pid.as_raw(),
            ppid: details.stat.parent.map(|p| p.as_raw()),
            name: more.go.as_ref().map_or_else(|| details.stat.name.clone(), |go| go.name.clone()),
            state: details.stat.state,
            threads: details.stat.threads,
            uid: details.status.uids.map(|u| u[0]),
            effective_uid: details.status.uids.map(|u| u[1]),
            username: details.user.clone(),
            command: details.command.iter().map(|a| text(a)).collect(),
            resident_bytes: details.resident,
            memory_percent: memory_percent(details).map(f64::from),
            cpu_seconds: details.cpu.as_secs_f64(),
            cpu_percent: percent(details.cpu, details.elapsed),
            period: details.over_period.map(|p| Period {
                seconds: p.measured.as_secs_f64(),
                cpu_percent: percent(p.cpu_and_io, p.measured),
            }),
            elapsed_seconds: details.elapsed.as_secs_f64(),
            connections: details.connections.as_ref().map(|all| all.iter().map(Socket::new).collect()),
            go: more.go.as_ref().map(|go| Go::new(go, more, live)),
            not_go: more.not_go.as_ref().map(ToString::to_string),
            gnu_build_id: more.build_ids.gnu.clone(),
            container: more.container.clone(),
            pod_uid: more.pod.clone(),
            cgroup: Cgroup::new(more),
            environment: more.environment.as_ref().map(|all| {
                all.iter()
                    .map(|(name, value)| Variable { name: (*name).to_owned(), value: value.clone() })
                    .collect()
            }),
            other_namespaces: more.other_namespaces.iter().map(|n| n.name().to_owned()).collect(),
            namespace_pids: if details.status.ns_pids.len() > 1 { raw_pids() } else { Vec::new() },
            tracer: details.status.tracer.map(|p| p.as_raw()),
            unknown: details.unknown.iter().map(ToString::to_string).collect(),
            cost: ProcessCost { bytes_read: live.cost.bytes, read_calls: live.cost.calls, bytes_written: 0 },
        }
    }
}

impl Socket {
    fn new(connection: &Connection) -> Self {
        let address = |end: &End| match end {
            End::Internet(ip, port) => Address { ip: Some(ip.to_string()), port: Some(*port), path: None },
            End::Path(path) if path.is_empty() => Address::default(),
            End::Path(path) => {
                Address { path: Some(String::from_utf8_lossy(path).into_owned()), ..Address::default() }
            }
        };
        let of_machine = matches!(connection.remote, End::Path(_));
        Socket {
            protocol: connection.protocol.name().to_owned(),
            local: address(&connection.local),
            remote: (!of_machine).then(|| address(&connection.remote)),
            state: Some(connection.state).filter(|s| !matches!(*s, "" | "NONE")).map(str::to_owned),
        }
    }
}

impl Go {
    fn new(go: &GoProcess, more: &More, live: &Live) -> Self {
        let info = go.program.build_info.as_ref();
        Go {
            path: String::from_utf8_lossy(&go.path).into_owned(),
            deleted: go.deleted,
            shared_object: go.shared_object.as_deref().map(|o| String::from_utf8_lossy(o).into_owned()),
            release: Release::new(&go.program),
            build_id: more.build_ids.go.clone(),
            main_package: info.map(|i| i.path.clone()).filter(|p| !p.is_empty()),
            main_module: info.and_then(|i| i.main.as_ref()).map(Module::new),
            agent: live.agent.as_ref().map(Agent::new),
            settings: RuntimeSettings::new(&live.settings),
            runtimes: live.runtimes.iter().map(|(name, settings)| GoRuntime::new(name, settings)).collect(),
        }
    }
}

impl GoRuntime {
    fn new(name: &RuntimeName, settings: &Settings) -> Self {
        GoRuntime {
            module: name.module.clone(),
            release: name.release.clone(),
            settings: RuntimeSettings::new(settings),
        }
    }
}

impl RuntimeSettings {
    fn new(settings: &Settings) -> Self {
        RuntimeSettings {
            gomaxprocs: settings.gomaxprocs,
            gogc: settings.gogc,
            memory_limit_bytes: settings.memory_limit.filter(|&limit| limit != i64::MAX),
        }
    }
}

impl Cgroup {
    pub(super) fn new(more: &More) -> Option<Self> {
        let limits = more.limits.as_ref()?;
        let place = |place: &cgroup::Place| (place.path.clone(), place.version);
        let (path, version) = limits
            .memory
            .as_ref()
            .map(|m| place(&m.0))
            .or_else(|| limits.cpu.as_ref().map(|c| place(&c.0)))?;
        let memory = limits.memory.as_ref().map(|m| m.1).unwrap_or_default();
        let cpu = limits.cpu.as_ref().map(|c| c.1).unwrap_or_default();
        Some(Cgroup {
            path,
            version,
            memory_limit_bytes: memory.limit,
            memory_used_bytes: memory.used,
            cpu_limit_cores: cpu.limit,
            cpu_periods: cpu.throttling.map(|t| t.periods),
            cpu_throttled_periods: cpu.throttling.map(|t| t.throttled),
            cpu_throttled_us: cpu.throttling.map(|t| t.throttled_us),
        })
    }
}

/// With the precision that gops has.
pub(super) fn memory_percent(details: &Details) -> Option<f32> {
    let total = details.machine_memory.filter(|&t| t > 0)?;
    Some(100.0 * details.resident? as f32 / total as f32)
}
