//! Answer of `process`.

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

/// Process with its Go program, limits and cost.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessInfo {
    /// Version of the JSON format.
    pub schema: u32,
    /// Process id in our pid namespace.
    pub pid: i32,
    /// Process id of the parent in our pid namespace. Absent if the parent is outside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<i32>,
    /// Name of the process.
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
    /// Name of the real user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Command and arguments. Empty arguments are left out.
    pub command: Vec<String>,
    /// Resident memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Resident memory in percent of the machine's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// CPU time since the start of the process, in seconds.
    pub cpu_seconds: f64,
    /// CPU time since the start of the process, in percent of one core.
    pub cpu_percent: f64,
    /// CPU time over the measured period. Absent if no period was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// Age of the process in seconds.
    pub elapsed_seconds: f64,
    /// Sockets of the process. Absent if they may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<Socket>>,
    /// Go program of the process. Absent if it runs none, or if that cannot be determined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go: Option<Go>,
    /// Reason why the process is no Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_go: Option<String>,
    /// Build id that the linker wrote (GNU build id), in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gnu_build_id: Option<String>,
    /// Container in which the process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Uid of the process's Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Limits and usage of the process's cgroups. Absent if they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Environment variables that Go's runtime reads, with the values that the process started with. Absent
    /// if they may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<Variable>>,
    /// Namespaces that the process does not share with us: `mnt`, `pid`, `net`, `user`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_namespaces: Vec<String>,
    /// Process id in each pid namespace, ours first. Absent if there is only one namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_pids: Vec<i32>,
    /// Process id of the tracer (ptrace). Absent if the process is not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<i32>,
    /// Facts that could not be determined, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Cost of the answer for the process.
    pub cost: ProcessCost,
}

/// CPU usage over a period.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Period {
    /// Length of the period in seconds.
    pub seconds: f64,
    /// CPU time during the period, in percent of one core.
    pub cpu_percent: f64,
}

/// Socket of a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Socket {
    /// Protocol: `tcp`, `tcp6`, `udp`, `udp6` or `unix`.
    pub protocol: String,
    /// Local end.
    pub local: Address,
    /// Remote end. Absent for Unix sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Address>,
    /// State of the TCP connection, such as `LISTEN`. Absent for other protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Address of one end of a connection.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Address {
    /// IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Port number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of a Unix socket. Absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Go program of a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Go {
    /// Path of the executable in the mount namespace of the process.
    pub path: String,
    /// True if the executable was deleted or replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Shared object that holds the Go code. Absent if the executable itself is the Go program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_object: Option<String>,
    /// Go release that built the program, and the evidence for it.
    #[serde(flatten)]
    pub release: Release,
    /// Go build id, as `go tool buildid` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Import path of the main package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_package: Option<String>,
    /// Main module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_module: Option<Module>,
    /// gops agent that listens in the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Current settings of the Go runtime.
    #[serde(flatten)]
    pub settings: RuntimeSettings,
    /// Each Go runtime of the process, if it has several; the settings outside of this list are then absent.
    /// Absent else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<GoRuntime>,
}

/// One of several Go runtimes in a process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GoRuntime {
    /// Path of the module that holds the runtime, as the process knows it.
    pub module: String,
    /// Go release that built the module, as far as it is known.
    pub release: String,
    /// Current settings of the runtime.
    #[serde(flatten)]
    pub settings: RuntimeSettings,
}

/// Current settings of a Go runtime.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RuntimeSettings {
    /// Current GOMAXPROCS: maximum number of threads that run Go code at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gomaxprocs: Option<u32>,
    /// Current GOGC: growth of the heap until the next collection, in percent. The value -1 means `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gogc: Option<i32>,
    /// Current soft memory limit (GOMEMLIMIT) in bytes. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<i64>,
}

/// Cgroup limits. Each is the smallest limit of the process's cgroup and of its ancestors.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cgroup {
    /// Path of the cgroup, from the root of our cgroup namespace.
    pub path: String,
    /// Version of cgroups: 1 or 2.
    pub version: u8,
    /// Memory limit in bytes. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Memory used by the cgroup, in bytes, including the page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// CPU limit in cores. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit_cores: Option<f64>,
    /// Number of scheduling periods in which a thread of the cgroup ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_periods: Option<u64>,
    /// Number of periods in which the CPU limit was used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_periods: Option<u64>,
    /// Total time that all threads of the cgroup waited because of the CPU limit, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_us: Option<u64>,
}

/// Environment variable.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Variable {
    /// Name of the variable.
    pub name: String,
    /// Value of the variable.
    pub value: String,
}

/// Cost of the answer for the process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Cost"))]
pub struct ProcessCost {
    /// Bytes read from the process's memory.
    pub bytes_read: u64,
    /// System calls made to read the process's memory.
    pub read_calls: u64,
    /// Bytes written to the process's memory.
    pub bytes_written: u64,
}

/// Facts about a running process beside those in /proc and in its files.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// gops agent that listens in the process. `None` if there is none, or if the process is no Go program.
    pub agent: Option<AgentMark>,
    /// Settings of the Go runtime, if the process has one.
    pub settings: Settings,
    /// Settings of each Go runtime, if the process has several.
    pub runtimes: Vec<(RuntimeName, Settings)>,
    /// Cost of reading agent and settings.
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

/// Resident memory in percent of the machine's, with the precision of gops.
pub(super) fn memory_percent(details: &Details) -> Option<f32> {
    let total = details.machine_memory.filter(|&t| t > 0)?;
    Some(100.0 * details.resident? as f32 / total as f32)
}
