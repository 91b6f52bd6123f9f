//! Files of /proc, of which a process chooses parts; and what makes text safe for a terminal.

use std::path::Path;

use inspector::printable::printable;
use inspector::process::cgroup::{self, Place};
use inspector::process::connections::{self, Protocol};
use inspector::process::facts::{self, Stat, Status, container_id};
use inspector::process::maps::Mapping;
use inspector::process::{sock_diag, users};
use inspector::runtime::attach::{bias_by_entry, bias_by_mapping};
use inspector::runtime::names::printed_name;
use inspector::runtime::release::GoRelease;

use crate::base::{self, BASES, Patched};
use crate::input::Input;

/// The bytes are one of the files, or a name.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let text = input.rest();
    match kind % 11 {
        0 => drop(Stat::parse(text)),
        1 => drop(Status::parse(text)),
        2 => drop(container_id(text)),
        3 => {
            let image = base::image(Patched::new(&BASES[1].bytes)).expect("an ELF file");
            for mapping in Mapping::parse_all(text) {
                let _ = mapping.contains(mapping.start);
                let _ = bias_by_mapping(&image, &mapping);
            }
        }
        4 => {
            let image = base::image(Patched::new(&BASES[1].bytes)).expect("an ELF file");
            let _ = bias_by_entry(&image, text);
        }
        6 => {
            for protocol in [Protocol::Tcp, Protocol::Tcp6, Protocol::Udp6] {
                for connection in connections::internet(protocol, text, |inode| inode != 0) {
                    assert!(connection.inode != 0);
                    let _ = format!("{} {}", connection.local, connection.remote);
                }
            }
        }
        7 => {
            for connection in connections::unix(text, |_| true) {
                assert!(!connection.local.to_string().chars().any(char::is_control));
            }
        }
        8 => {
            // The process's groups, the mounts, and what all files hold.
            let mut parts = text.splitn(3, |&b| b == 0);
            let mut part = || parts.next().unwrap_or_default();
            let memberships = cgroup::memberships(part());
            let mounts = cgroup::mounts(part());
            let contents = part();
            let read = |path: &Path| {
                assert!(!path.components().any(|c| c.as_os_str() == ".."), "{path:?}");
                Some(contents.to_vec())
            };
            for controller in ["memory", "cpu"] {
                // A mount point is taken as it is.
                let mounts: Vec<_> =
                    mounts.iter().filter(|m| !m.point.to_string_lossy().contains("..")).cloned().collect();
                if let Some(place) = Place::find(&memberships, &mounts, controller) {
                    let _ = cgroup::memory(&place, &read);
                    let _ = cgroup::cpu(&place, &read);
                }
            }
        }
        10 => {
            let mut sockets = 0;
            let _ = sock_diag::parse(text, 1, |socket| {
                assert!(socket.inode != 0 && socket.local.is_ipv6() == socket.remote.is_ipv6());
                sockets += 1;
            });
            // No more than there is room for.
            assert!(sockets <= text.len() / 88);
        }
        9 => {
            let _ = facts::pod_uid(text);
            let _ = facts::container_and_pod_by_mounts(text);
            let _ = facts::resident_pages(text);
            let _ = facts::memory_total(text);
            let _ = users::name_in_passwd(text, 0);
            let _ = facts::runtime_variables(text);
        }
        _ => {
            let shown = printable(text);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            for minor in [18, 22, 26, 27] {
                let _ = printed_name(text, GoRelease::of_minor(minor));
            }
        }
    }
}
