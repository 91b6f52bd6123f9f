//! The time zone of a process, as Go finds it (`time.initLocal`, `time/zoneinfo_unix.go`): its `TZ`, else `/etc/localtime`,
//! both in its own root directory.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::Process;
use super::regular::{Links, RegularFile};

/// Files of zones have some kilobytes; what a process has in their place need not.
const LONGEST: u64 = 1 << 20;
/// Where Go looks for the names of zones.
const FOLDERS: [&str; 4] =
    ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"];

impl Process {
    /// The zone in which the process shows local times; UTC where that cannot be found out, as it is for Go.
    pub fn time_zone(&self) -> TimeZone {
        let environment = self.read("environ", "read the environment").unwrap_or_default();
        let given = environment.split(|&b| b == 0).find_map(|entry| entry.strip_prefix(b"TZ="));
        let zone = match given.map(String::from_utf8_lossy) {
            None => self.zone_file(Path::new("/etc/localtime")),
            Some(name) => {
                let name = name.strip_prefix(':').unwrap_or(&name);
                self.named_zone(name)
            }
        };
        zone.unwrap_or(TimeZone::UTC)
    }

    fn named_zone(&self, name: &str) -> Option<TimeZone> {
        if name.is_empty() || name == "UTC" {
            return None;
        }
        if name.starts_with('/') {
            return self.zone_file(Path::new(name));
        }
        // As Go: a name leads nowhere else.
        if name.split('/').any(|part| part == "..") {
            return None;
        }
        FOLDERS.iter().find_map(|folder| self.zone_file(&PathBuf::from(folder).join(name)))
    }

    fn zone_file(&self, path: &Path) -> Option<TimeZone> {
        let bytes = RegularFile::open_in_root(self, path, Links::Follow).ok()?.read_up_to(LONGEST).ok()?;
        TimeZone::tzif("Local", &bytes).ok()
    }
}
