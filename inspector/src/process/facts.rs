//! Parsed facts from /proc/PID. A process can choose much of the text: names hold any bytes.

use super::Pid;

/// Fields of /proc/PID/stat (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name of the main thread: at most 15 bytes that the process chooses.
    pub name: String,
    /// State letter as in `ps`: `R`, `S`, `D`, `T`, `t`, `Z` …
    pub state: char,
    /// Process id of the parent; `None` if the parent is outside of this pid namespace.
    pub parent: Option<Pid>,
    /// Start time after boot, in clock ticks.
    pub start_time: u64,
    /// True for a kernel thread.
    pub kernel_thread: bool,
    /// Number of threads.
    pub threads: u64,
    /// CPU time of all threads, in user and kernel mode, in clock ticks.
    pub cpu_ticks: u64,
    /// Time waiting for block devices, in clock ticks; 0 if the kernel does not count it.
    pub io_wait_ticks: u64,
    /// Start addresses of the code and of the stack. They change when the process executes a
    /// program. Zero without permission.
    pub address_space: (u64, u64),
}

/// Flag `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    /// Parses the line; `None` if it is malformed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // The name may hold parentheses and spaces, so it ends at the last parenthesis.
        let open = bytes.iter().position(|&b| b == b'(')?;
        let close = bytes.iter().rposition(|&b| b == b')')?;
        let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        // Field numbers as in proc(5), where the state is number 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(50).collect();
        let number = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok());
        Some(Stat {
            name,
            state: fields.first()?.chars().next()?,
            parent: number(4).and_then(|p| Pid::try_from(p).ok()),
            start_time: number(22)?,
            kernel_thread: number(9)? & KERNEL_THREAD != 0,
            threads: number(20)?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            io_wait_ticks: number(42).unwrap_or(0),
            address_space: (number(26).unwrap_or(0), number(28).unwrap_or(0)),
        })
    }

    /// Returns true if the process has exited and was not waited for.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Returns true if a signal stopped the process; another signal lets it go on.
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// Returns true if a tracer holds the process: a debugger, or a gops-probe for a moment.
    pub fn is_held(&self) -> bool {
        self.state == 't'
    }
}

/// Fields of /proc/PID/status (proc(5)). Fields that old kernels lack are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Id of the process that this thread belongs to.
    pub tgid: Option<Pid>,
    /// Id of the tracing thread.
    pub tracer: Option<Pid>,
    /// Real, effective, saved and file system user id.
    pub uids: Option<[u32; 4]>,
    /// Process id in each pid namespace, ours first, the process's own last.
    pub ns_pids: Vec<Pid>,
    /// Permitted capabilities.
    pub cap_permitted: Option<u64>,
}

impl Status {
    /// Parses the file; unknown and damaged lines are skipped.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut status = Status::default();
        for line in bytes.split(|&b| b == b'\n') {
            let Some(line) = std::str::from_utf8(line).ok() else { continue };
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key {
                "Tgid" => status.tgid = value.parse().ok(),
                // 0 means no tracer, and is no pid.
                "TracerPid" => status.tracer = value.parse().ok(),
                "Uid" => {
                    let mut ids = value.split_ascii_whitespace().map_while(|v| v.parse().ok());
                    status.uids = (|| Some([ids.next()?, ids.next()?, ids.next()?, ids.next()?]))();
                }
                "NSpid" => {
                    // Namespaces nest at most 32 deep.
                    let pids = value.split_ascii_whitespace().take(33);
                    status.ns_pids = pids.filter_map(|v| v.parse().ok()).collect();
                }
                "CapPrm" => status.cap_permitted = u64::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
        status
    }
}

/// Container id from a cgroup file (/proc/PID/cgroup): the 64 hexadecimal digits that Docker,
/// containerd, CRI-O and Podman use, or the name of an LXC container.
pub fn container_id(cgroup: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(cgroup);
    let mut lxc = None;
    for line in text.lines().take(64) {
        // hierarchy:controllers:path
        let Some(path) = line.splitn(3, ':').nth(2) else { continue };
        for part in path.split('/').rev() {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            let part = part.strip_suffix(".service").unwrap_or(part);
            let id = part.rsplit(['-', ':']).next().unwrap_or(part);
            if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Some(id.to_owned());
            }
        }
        let mut parts = path.split('/').map(|p| p.strip_prefix("lxc.payload.").unwrap_or(p));
        if path.contains("/lxc.payload.") {
            lxc = lxc.or(path.split('/').find_map(|p| p.strip_prefix("lxc.payload.")).map(str::to_owned));
        } else if parts.any(|p| p == "lxc") {
            lxc = lxc.or(parts.next().filter(|p| !p.is_empty()).map(str::to_owned));
        }
    }
    lxc
}

/// Uid of the Kubernetes pod from a cgroup file, with dashes as Kubernetes writes it. Static pods,
/// which the node itself defines, have a uid without dashes.
pub fn pod_uid(cgroup: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(cgroup);
    // hierarchy:controllers:path
    let paths = text.lines().take(64).filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts = paths.filter(|path| path.contains("kubepods")).flat_map(|path| path.split('/'));
    parts.find_map(|part| {
        let part = part.split(':').next().unwrap_or(part);
        let part = part.strip_suffix(".slice").unwrap_or(part);
        pod_name_uid(part.rsplit_once("pod").map(|(_, uid)| uid)?)
    })
}

/// Pod uid of a cgroup name. systemd uses dashes as level separators, so dashes of the uid are
/// underscores there.
fn pod_name_uid(text: &str) -> Option<String> {
    let uid = text.replace('_', "-");
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|&b| b == b'-').count();
    (hex == 32 && matches!(dashes, 0 | 4) && uid.len() == hex + dashes).then_some(uid)
}

/// Container id and pod uid from the files that container runtimes mount (/proc/PID/mountinfo).
/// They remain visible where a cgroup namespace hides the names.
pub fn container_and_pod_by_mounts(mountinfo: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(mountinfo);
    let (mut container, mut pod) = (None, None);
    // Path of the mounted file or directory in its file system.
    for root in text.lines().take(4096).filter_map(|line| line.split(' ').nth(3)) {
        let mut parts = root.split('/').skip_while(|&p| p != "containers" && p != "pods");
        match (parts.next(), parts.next()) {
            (Some("containers"), Some(id)) if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
                container.get_or_insert_with(|| id.to_owned());
            }
            (Some("pods"), Some(uid)) => pod = pod.or_else(|| pod_name_uid(uid)),
            _ => {}
        }
    }
    (container, pod)
}

/// Number of resident pages from /proc/PID/statm.
pub fn resident_pages(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Memory of the machine in bytes from /proc/meminfo.
pub fn memory_total(meminfo: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(meminfo).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Environment variables that Go's runtime heeds.
const RUNTIME_VARIABLES: [&str; 7] =
    ["GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG", "GOTRACEBACK", "GORACE", "GOCOVERDIR"];

/// Environment variables in /proc/PID/environ that Go's runtime heeds, as they were at program
/// start. If a name occurs twice, the runtime takes the first value.
pub fn runtime_variables(environ: &[u8]) -> Vec<(&'static str, String)> {
    let value = |name: &str| {
        environ.split(|&b| b == 0).find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    RUNTIME_VARIABLES
        .into_iter()
        .filter_map(|name| Some((name, String::from_utf8_lossy(value(name)?).into_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(n: u64) -> Pid {
        Pid::try_from(n).unwrap()
    }

    #[test]
    fn stat_of_a_process_with_an_evil_name() {
        let line = b"42 (a) R 1 (b)\x1b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 12345 1000 10 18446744073709551615 \
                     4194304 4198400 140737488347000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.name, "a) R 1 (b)\u{1b}");
        assert_eq!((stat.state, stat.parent, stat.start_time, stat.threads), ('S', Some(pid(7)), 12345, 9));
        assert_eq!(stat.address_space, (4194304, 140737488347000));
        assert_eq!((stat.cpu_ticks, stat.io_wait_ticks), (5 + 6, 0));
        assert!(!stat.kernel_thread && !stat.is_zombie());
        // A process that a tracer holds for a moment is not stopped by a signal.
        let in_state = |state: char| Stat { state, ..stat.clone() };
        assert!(in_state('T').is_stopped() && !in_state('T').is_held());
        assert!(in_state('t').is_held() && !in_state('t').is_stopped());
        for end in 0..line.len() {
            let _ = Stat::parse(&line[..end]);
        }
    }

    #[test]
    fn status_lines() {
        let status = Status::parse(
            b"Name:\tx\nTgid:\t10\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nNSpid:\t10\t7\t1\nCapPrm:\t0000000000080000\nodd\n",
        );
        assert_eq!((status.tgid, status.tracer), (Some(pid(10)), None));
        assert_eq!(status.uids, Some([1, 2, 3, 4]));
        assert_eq!(status.ns_pids, [pid(10), pid(7), pid(1)]);
        assert_eq!(status.cap_permitted, Some(1 << 19));
    }

    #[test]
    fn container_ids() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for path in [
            format!("0::/system.slice/docker-{id}.scope"),
            format!("0::/kubepods.slice/kubepods-podx.slice/cri-containerd-{id}.scope/init"),
            format!("12:cpu:/docker/{id}"),
            format!("0::/kubepods/burstable/pod1-2-3/{id}"),
            format!("0::/kubepods-x.slice:cri-containerd:{id}"),
        ] {
            assert_eq!(container_id(path.as_bytes()).as_deref(), Some(id), "{path}");
        }
        assert_eq!(container_id(b"0::/lxc.payload.web/init.scope").as_deref(), Some("web"));
        assert_eq!(container_id(b"1:cpu:/lxc/web").as_deref(), Some("web"));
        assert_eq!(container_id(b"0::/user.slice/user-0.slice"), None);
        assert_eq!(container_id(b""), None);
    }

    #[test]
    fn pods() {
        let uid = "0d3b5c1e-11aa-4b7c-9d2e-00aa11bb22cc";
        for path in [
            format!("0::/kubepods/burstable/pod{uid}/0123"),
            format!("0::/kubepods.slice/kubepods-pod{}.slice/x.scope", uid.replace('-', "_")),
            format!("11:cpu:/system.slice/containerd.service/kubepods-besteffort-pod{uid}.slice:cri:0123"),
        ] {
            assert_eq!(pod_uid(path.as_bytes()).as_deref(), Some(uid), "{path}");
        }
        let of_node = "a3f0c7e5b1d24f6688990011aabbccdd";
        let path = format!("0::/kubepods/pod{of_node}/x");
        assert_eq!(pod_uid(path.as_bytes()).as_deref(), Some(of_node));
        assert_eq!(pod_uid(b"0::/podman/pod1"), None);
        let id = "0123456789abcdef".repeat(4);
        let mounts = format!(
            "1 2 0:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/a rw\n\
             2 2 0:1 /lib/kubelet/pods/{uid}/etc-hosts /etc/hosts rw - ext4 /dev/a rw\n3 2 odd\n"
        );
        assert_eq!(container_and_pod_by_mounts(mounts.as_bytes()), (Some(id), Some(uid.to_owned())));
        assert_eq!(container_and_pod_by_mounts(b"1 2 0:1 / / rw - ext4 a rw"), (None, None));
    }

    #[test]
    fn memory() {
        assert_eq!(resident_pages(b"100 25 3 4 5 6 7\n"), Some(25));
        assert_eq!(resident_pages(b"100"), None);
        assert_eq!(memory_total(b"MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(memory_total(b"MemTotal: 18446744073709551615 kB\n"), None);
    }

    #[test]
    fn variables_of_the_runtime() {
        let environ = b"PATH=/bin\0GOGC=50\0GOGC=60\0MYGOGC=1\0GODEBUG=a=1,b=2\0GOMAXPROCS\0GOPATH=/x\0";
        let expected = [("GOGC", "50".to_owned()), ("GODEBUG", "a=1,b=2".to_owned())];
        assert_eq!(runtime_variables(environ), expected);
    }
}
