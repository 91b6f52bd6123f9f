//! Limits of the cgroups of a process: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`
//! of the kernel.
//!
//! The limits of a cgroup hold for all cgroups below it, so the smallest limit on the way to the
//! root counts. Both versions can be in use at once, each for some controllers.

use std::path::{Path, PathBuf};

/// Line of /proc/PID/cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Controllers of a version 1 hierarchy; empty for version 2.
    pub controllers: Vec<String>,
    /// Path of the cgroup, from the root of the reader's cgroup namespace.
    pub path: String,
}

/// Maximum number of lines: more hierarchies than the kernel has controllers. [`MAX_DEPTH`] is
/// deeper than anybody nests cgroups.
const MAX_LINES: usize = 64;
const MAX_DEPTH: usize = 64;

/// Parses /proc/PID/cgroup.
pub fn memberships(cgroup: &[u8]) -> Vec<Membership> {
    let text = String::from_utf8_lossy(cgroup);
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        Some(Membership { controllers, path: path.to_owned() })
    };
    text.lines().take(MAX_LINES).filter_map(parse).collect()
}

/// Mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path of the cgroup at the top of the mount.
    pub root: String,
    /// Mount point.
    pub point: PathBuf,
    /// Mount options that name the controllers of a version 1 hierarchy; `None` for version 2.
    pub controllers: Option<Vec<String>>,
}

/// Finds the cgroup hierarchies among the mounts of /proc/PID/mountinfo (proc(5)).
pub fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let text = String::from_utf8_lossy(mountinfo);
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let (root, point) = (unescaped(mount.nth(3)?), unescaped(mount.next()?));
        let mut file_system = file_system.split(' ');
        let controllers = match file_system.next()? {
            "cgroup2" => None,
            "cgroup" => Some(file_system.nth(1)?.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount { root, point: PathBuf::from(point), controllers })
    };
    text.lines().filter_map(parse).take(MAX_LINES).collect()
}

/// Replaces octal escapes: a space and the like is written as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        match behind.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = behind;
            }
        }
    }
    out + rest
}

/// Location of the files of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Version of the hierarchy: 1 or 2.
    pub version: u8,
    /// Path of the cgroup, from the root of the reader's cgroup namespace.
    pub path: String,
    /// Mount point of the hierarchy.
    point: PathBuf,
    /// Names of the nested cgroups from the top of the mount down to this cgroup.
    below: Vec<String>,
}

impl Place {
    /// Finds the cgroup that limits `controller` (`memory`, `cpu`). `None` if no mounted hierarchy
    /// holds it.
    pub fn find(memberships: &[Membership], mounts: &[Mount], controller: &str) -> Option<Place> {
        let has = |controllers: &[String]| controllers.iter().any(|c| c == controller);
        let first = memberships.iter().find(|m| has(&m.controllers)).and_then(|m| {
            let of_it = |mount: &&Mount| mount.controllers.as_deref().is_some_and(has);
            mounts.iter().filter(of_it).find_map(|mount| Place::in_mount(1, m, mount))
        });
        first.or_else(|| {
            let m = memberships.iter().find(|m| m.controllers.is_empty())?;
            mounts.iter().filter(|m| m.controllers.is_none()).find_map(|mount| Place::in_mount(2, m, mount))
        })
    }

    fn in_mount(version: u8, membership: &Membership, mount: &Mount) -> Option<Place> {
        let parts = |path: &str| -> Vec<String> {
            path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect()
        };
        let (path, root) = (parts(&membership.path), parts(&mount.root));
        let below = path.strip_prefix(root.as_slice())?.to_vec();
        // Outside of our cgroup namespace, or not below this mount.
        if below.iter().any(|p| p == "..") || below.len() > MAX_DEPTH {
            return None;
        }
        Some(Place { version, path: membership.path.clone(), point: mount.point.clone(), below })
    }

    /// Folders of the cgroup and its ancestors, the innermost first.
    fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..=self.below.len()).rev().map(|n| {
            let mut folder = self.point.clone();
            folder.extend(self.below.iter().take(n));
            folder
        })
    }
}

/// Throttling of the processes of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttling {
    /// Number of periods in which a thread ran.
    pub periods: u64,
    /// Number of periods in which the quota was used up.
    pub throttled: u64,
    /// Total waiting time of all threads, in microseconds.
    pub throttled_us: u64,
}

/// Memory limit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Smallest limit of the cgroup and its ancestors, in bytes; `None` if there is no limit.
    pub limit: Option<u64>,
    /// Memory used by the cgroup, in bytes, including the page cache.
    pub used: Option<u64>,
}

/// CPU limit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cpu {
    /// Smallest limit of the cgroup and its ancestors, in cores; `None` if there is no limit.
    pub limit: Option<f64>,
    /// Throttling by the cgroup with that limit, or by the innermost cgroup if there is no limit.
    pub throttling: Option<Throttling>,
}

/// Function that returns the contents of a file; `None` if it cannot be read.
pub type Reader<'a> = &'a dyn Fn(&Path) -> Option<Vec<u8>>;

/// Reads the memory limit; `read` returns the contents of a file.
pub fn memory(place: &Place, read: Reader<'_>) -> Memory {
    let (limit, used) = match place.version {
        1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        _ => ("memory.max", "memory.current"),
    };
    /// Value of version 1 for "no limit": the largest number of pages.
    const NO_LIMIT: u64 = 1 << 62;
    let limits = place.folders().filter_map(|folder| number(&read(&folder.join(limit))?));
    Memory {
        limit: limits.filter(|&l| l < NO_LIMIT).min(),
        used: place.folders().next().and_then(|folder| number(&read(&folder.join(used))?)),
    }
}

/// Reads the CPU limit; `read` returns the contents of a file.
pub fn cpu(place: &Place, read: Reader<'_>) -> Cpu {
    let quota = |folder: &Path| -> Option<f64> {
        match place.version {
            1 => cores(
                number(&read(&folder.join("cpu.cfs_quota_us"))?)?,
                number(&read(&folder.join("cpu.cfs_period_us"))?)?,
            ),
            _ => cpu_max(&read(&folder.join("cpu.max"))?),
        }
    };
    let limits = place.folders().filter_map(|folder| Some((quota(&folder)?, folder)));
    let tightest = limits.min_by(|a, b| a.0.total_cmp(&b.0));
    let (limit, folder) = match tightest {
        Some((limit, folder)) => (Some(limit), Some(folder)),
        None => (None, place.folders().next()),
    };
    Cpu { limit, throttling: folder.and_then(|f| throttling(&read(&f.join("cpu.stat"))?)) }
}

/// Frozen cgroup. Its processes run on only when it is thawed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    version: u8,
    /// Folder of the cgroup that was frozen: the process's own cgroup or an ancestor.
    folder: PathBuf,
}

impl Frozen {
    /// Path of the folder, for display.
    pub fn folder(&self) -> std::path::Display<'_> {
        self.folder.display()
    }

    /// Remedy: how to thaw the cgroup.
    pub fn hint(&self) -> String {
        let (value, file) =
            if self.version == 1 { ("THAWED", "freezer.state") } else { ("0", "cgroup.freeze") };
        let path = self.folder.join(file);
        format!("unpause its container (docker unpause), or thaw it: echo {value} > {}", path.display())
    }
}

/// Finds the cgroup that freezes a process: its own cgroup or an ancestor. `read` returns the
/// contents of a file. If both versions are mounted, either can freeze the process.
pub fn frozen(memberships: &[Membership], mounts: &[Mount], read: Reader<'_>) -> Option<Frozen> {
    let holds = |path: &Path, wanted: &[&str]| {
        let text = read(path).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().any(|line| wanted.contains(&line.trim()))
    };
    // No controller of version 1 is named `cgroup.freeze`.
    ["freezer", "cgroup.freeze"].into_iter().find_map(|controller| {
        let place = Place::find(memberships, mounts, controller)?;
        // The first file tells if the cgroup is frozen, also through an ancestor. The second file
        // tells which ancestor was frozen.
        let (state, states, own, owns) = match place.version {
            1 => ("freezer.state", &["FROZEN", "FREEZING"][..], "freezer.self_freezing", &["1"][..]),
            _ => ("cgroup.events", &["frozen 1"][..], "cgroup.freeze", &["1"][..]),
        };
        let first = place.folders().next()?;
        if !holds(&first.join(state), states) {
            return None;
        }
        let blamed = place.folders().find(|folder| holds(&folder.join(own), owns));
        Some(Frozen { version: place.version, folder: blamed.unwrap_or(first) })
    })
}

/// Finds the innermost cgroup, among this one and its ancestors, whose number of tasks has reached
/// its limit. Returns its folder, the number of tasks and the limit. `read` returns the contents of
/// a file.
pub fn full_of_tasks(place: &Place, read: Reader<'_>) -> Option<(PathBuf, u64, u64)> {
    place.folders().find_map(|folder| {
        let limit = number(&read(&folder.join("pids.max"))?)?;
        let used = number(&read(&folder.join("pids.current"))?)?;
        (used >= limit).then_some((folder, used, limit))
    })
}

/// Parses a file that holds one number. `None` for `max` and negative numbers.
fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// Parses cpu.max: quota and period in microseconds. `None` if the quota is `max`.
fn cpu_max(bytes: &[u8]) -> Option<f64> {
    let mut words = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
    cores(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

fn cores(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// Parses cpu.stat of either version.
fn throttling(bytes: &[u8]) -> Option<Throttling> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    };
    Some(Throttling {
        periods: value("nr_periods")?,
        throttled: value("nr_throttled")?,
        throttled_us: value("throttled_usec").or_else(|| Some(value("throttled_time")? / 1000))?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn reader(files: &[(&str, &str)]) -> impl Fn(&Path) -> Option<Vec<u8>> {
        let files: HashMap<PathBuf, Vec<u8>> =
            files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
        move |path| files.get(path).cloned()
    }

    #[test]
    fn cgroups_that_are_full() {
        let mounts = mounts(b"30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let place = Place::find(&memberships(b"0::/a/b\n"), &mounts, "pids").unwrap();
        let with = |limit_of_a| {
            let files = [
                ("/sys/fs/cgroup/a/pids.max", limit_of_a),
                ("/sys/fs/cgroup/a/pids.current", "8\n"),
                ("/sys/fs/cgroup/a/b/pids.max", "max\n"),
                ("/sys/fs/cgroup/a/b/pids.current", "8\n"),
            ];
            full_of_tasks(&place, &reader(&files))
        };
        assert_eq!(with("8\n"), Some((PathBuf::from("/sys/fs/cgroup/a"), 8, 8)));
        assert_eq!(with("9\n"), None);
    }

    #[test]
    fn frozen_cgroups() {
        let second = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let of = memberships(b"0::/a/b\n");
        let files = [("/sys/fs/cgroup/a/b/cgroup.events", "populated 1\nfrozen 1\n")];
        let found = frozen(&of, &mounts(second.as_bytes()), &reader(&files)).unwrap();
        assert_eq!(found.folder().to_string(), "/sys/fs/cgroup/a/b");
        // The parent cgroup was frozen.
        let above = [
            files[0],
            ("/sys/fs/cgroup/a/cgroup.freeze", "1\n"),
            ("/sys/fs/cgroup/a/b/cgroup.freeze", "0\n"),
        ];
        let found = frozen(&of, &mounts(second.as_bytes()), &reader(&above)).unwrap();
        assert!(found.hint().ends_with("echo 0 > /sys/fs/cgroup/a/cgroup.freeze"), "{}", found.hint());
        let runs = [("/sys/fs/cgroup/a/b/cgroup.events", "populated 1\nfrozen 0\n")];
        assert_eq!(frozen(&of, &mounts(second.as_bytes()), &reader(&runs)), None);
        assert_eq!(frozen(&of, &[], &reader(&files)), None);
        // Both versions at once: either can freeze.
        let both = format!("31 24 0:27 / /sys/fs/freezer rw - cgroup cgroup rw,freezer\n{second}");
        let of = memberships(b"4:freezer:/c\n0::/a/b\n");
        let found = frozen(&of, &mounts(both.as_bytes()), &reader(&files)).unwrap();
        assert_eq!(found.folder().to_string(), "/sys/fs/cgroup/a/b");
        let first = [("/sys/fs/freezer/c/freezer.state", "FROZEN\n")];
        let found = frozen(&of, &mounts(both.as_bytes()), &reader(&first)).unwrap();
        assert!(found.hint().ends_with("echo THAWED > /sys/fs/freezer/c/freezer.state"), "{}", found.hint());
    }

    #[test]
    fn the_tightest_limit_of_version_2() {
        let of = memberships(b"0::/kubepods/pod1/c1\n");
        let at = mounts(b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n24 1 0:1 / / rw - ext4 /dev/a rw\n");
        assert_eq!(at.len(), 1);
        let place = Place::find(&of, &at, "memory").unwrap();
        assert_eq!((place.version, place.path.as_str()), (2, "/kubepods/pod1/c1"));
        let read = reader(&[
            ("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod1/c1/memory.current", "4096\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "1048576\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "2097152\n"),
            ("/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/kubepods/pod1/cpu.max", "50000 100000\n"),
            ("/sys/fs/cgroup/kubepods/cpu.max", "200000 100000\n"),
            (
                "/sys/fs/cgroup/kubepods/pod1/cpu.stat",
                "usage_usec 9\nnr_periods 10\nnr_throttled 3\nthrottled_usec 77\n",
            ),
        ]);
        assert_eq!(memory(&place, &read), Memory { limit: Some(1 << 20), used: Some(4096) });
        let throttling = Throttling { periods: 10, throttled: 3, throttled_us: 77 };
        assert_eq!(cpu(&place, &read), Cpu { limit: Some(0.5), throttling: Some(throttling) });
    }

    #[test]
    fn version_1_seen_from_inside_a_container() {
        let of = memberships(
            b"5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n",
        );
        let at = mounts(
            b"1 2 0:1 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
              1 2 0:1 /docker/abc /sys/fs/cgroup/mem\\040ory ro - cgroup cgroup rw,memory\n",
        );
        let read = reader(&[
            ("/sys/fs/cgroup/mem ory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/mem ory/memory.usage_in_bytes", "5\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 5000\n"),
        ]);
        let place = Place::find(&of, &at, "memory").unwrap();
        assert_eq!(memory(&place, &read), Memory { limit: None, used: Some(5) });
        let place = Place::find(&of, &at, "cpu").unwrap();
        assert_eq!(place.version, 1);
        let found = cpu(&place, &read);
        assert_eq!((found.limit, found.throttling.unwrap().throttled_us), (Some(1.5), 5));
    }

    #[test]
    fn no_way_out_of_a_mount() {
        let of = memberships(b"0::/../other\n");
        let ours = mounts(b"1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert_eq!(Place::find(&of, &ours, "cpu"), None);
        let theirs = mounts(b"1 2 0:1 /../other /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        let place = Place::find(&of, &theirs, "cpu").unwrap();
        assert_eq!(place.folders().collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup")]);
        let read = reader(&[("/sys/fs/cgroup/cpu.max", "1 0"), ("/sys/fs/cgroup/memory.max", "x")]);
        assert_eq!(cpu(&place, &read).limit, None);
        assert_eq!(memory(&place, &read), Memory::default());
        assert_eq!(unescaped("a\\040b\\\\x\\134"), "a b\\\\x\\");
        assert!(memberships(b"0\n:\n").is_empty() && mounts(b"x - cgroup2\n - \n").is_empty());
    }
}
