//! Typed facts from /proc/PID. Everything in there can be chosen by the process itself: names hold any bytes.

use super::Pid;

/// /proc/PID/stat (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name of the main thread: at most 15 bytes that the process chooses.
    pub name: String,
    /// As in `ps`: `R`, `S`, `D`, `T`, `t`, `Z` …
    pub state: char,
    /// The parent; `None` where it is outside of this pid namespace.
    pub parent: Option<Pid>,
    /// Start time after boot, in clock ticks.
    pub start_time: u64,
    /// A thread of the kernel.
    pub kernel_thread: bool,
    /// Number of threads.
    pub threads: u64,
    /// Start of code and of the stack: they change when the process executes a program. Zero without permission.
    pub address_space: (u64, u64),
}

/// `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    /// Parses the line; `None` where it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // The name may itself hold parentheses and spaces, so it ends at the last one.
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
            address_space: (number(26).unwrap_or(0), number(28).unwrap_or(0)),
        })
    }

    /// Exited, and not waited for.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Stopped by a signal or by a tracer.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// /proc/PID/status (proc(5)). Fields that old kernels lack are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The process that this is a thread of.
    pub tgid: Option<Pid>,
    /// Who traces it.
    pub tracer: Option<Pid>,
    /// Real, effective, saved and file system user.
    pub uids: Option<[u32; 4]>,
    /// Its pid in each pid namespace, ours first, its own last.
    pub ns_pids: Vec<Pid>,
    /// Effective capabilities.
    pub cap_effective: Option<u64>,
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
                // 0 is nobody, and no pid.
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
                "CapEff" => status.cap_effective = u64::from_str_radix(value, 16).ok(),
                "CapPrm" => status.cap_permitted = u64::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
        status
    }
}

/// The container that a cgroup file (/proc/PID/cgroup) names: the 64 hexadecimal digits that Docker, containerd, CRI-O
/// and Podman use, or the name of an LXC container.
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
        assert!(!stat.kernel_thread && !stat.is_zombie());
        for end in 0..line.len() {
            let _ = Stat::parse(&line[..end]);
        }
    }

    #[test]
    fn status_lines() {
        let status = Status::parse(
            b"Name:\tx\nTgid:\t10\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nNSpid:\t10\t7\t1\nCapEff:\t0000000000080000\nodd\n",
        );
        assert_eq!((status.tgid, status.tracer), (Some(pid(10)), None));
        assert_eq!(status.uids, Some([1, 2, 3, 4]));
        assert_eq!(status.ns_pids, [pid(10), pid(7), pid(1)]);
        assert_eq!(status.cap_effective, Some(1 << 19));
        assert_eq!(status.cap_permitted, None);
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
}
