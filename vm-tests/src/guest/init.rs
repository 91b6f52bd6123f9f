//! The first process of a machine under test.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::{Done, Failure, Machine};

/// Mounts what programs expect, and switches the loopback interface on.
///
/// # Errors
/// What the kernel says.
pub fn set_up() -> Result<(), Failure> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|error| format!("{kind} cannot be mounted at {at}: {error}"))?;
    }
    loopback_on()?;
    Ok(())
}

/// Programs of the fixtures listen on 127.0.0.1.
fn loopback_on() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all of its fields are integers or unions of them, for which zeroes are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let socket = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the descriptor is open, and the request is a struct of the kind that this one reads.
    match unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the machine.
///
/// # Errors
/// What the kernel says.
pub fn power_off() -> Result<(), Failure> {
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

/// What the kernel is and has.
pub(crate) fn kernel(_machine: &Machine) -> Result<Done, Failure> {
    let setting = |path: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{path}"));
        text.map_or("none".to_owned(), |text| text.trim().to_owned())
    };
    let types = if Path::new("/sys/kernel/btf/vmlinux").exists() { "there" } else { "none" };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(Done::Passed(format!(
        "Linux {}, {cpus} CPUs, types (BTF) {types}, perf_event_paranoid {}, unprivileged_bpf_disabled {}, \
         yama.ptrace_scope {}",
        setting("osrelease"),
        setting("perf_event_paranoid"),
        setting("unprivileged_bpf_disabled"),
        setting("yama/ptrace_scope"),
    )))
}
