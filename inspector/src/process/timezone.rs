//! Time zone of a process, found as Go does it (`time.initLocal`, `time/zoneinfo_unix.go`): from
//! `TZ`, else from `/etc/localtime`, both as the process sees them.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::Process;
use super::regular::{Links, RegularFile};

/// Maximum size read of a zone file. Zone files have some kilobytes; a process may have larger
/// files in their place.
const LONGEST: u64 = 1 << 20;
/// Folders in which Go looks for zone names.
const FOLDERS: [&str; 4] =
    ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"];

impl Process {
    /// Zone in which the process shows local times; UTC if it cannot be found, as in Go.
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
        // As in Go, a name must not leave the folders.
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
