//! Confinement of the program before it reads input of others. root's gops-probe gives up the capabilities
//! that the command does not need, and denies itself the system calls that it never makes. An attacker who
//! takes over a parser has no more than the rest.
//!
//! The filter lists denied system calls, not allowed ones, and the kernel answers `EPERM`: nothing ends in
//! the middle of a stop. Threads and the guard inherit the filter. A program that `--open` starts would
//! inherit it too: nothing is denied for `--open`. Landlock is not used: a task under it cannot trace others.

use std::collections::{BTreeMap, HashSet};

use caps::{CapSet, Capability};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Rights that only some commands need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// Inspects one process: may stop it, and restore changes of an earlier run.
    pub(super) inspects: bool,
    /// Makes the kernel take samples.
    pub(super) samples: bool,
    /// Starts gops-probe again as the guard of a change.
    pub(super) guards: bool,
    /// Listens for clients.
    pub(super) serves: bool,
    /// Starts a foreign program with unknown needs.
    pub(super) opens: bool,
}

/// Reads /proc and files.
pub(super) const LOOKING: Work =
    Work { inspects: false, samples: false, guards: false, serves: false, opens: false };
/// Inspects one process.
pub(super) const INSPECTING: Work = Work { inspects: true, ..LOOKING };
/// May change one process, with a guard.
pub(super) const GUARDING: Work = Work { guards: true, ..INSPECTING };

impl Work {
    /// Returns the capabilities of root that are kept: to read data of others, to write where `-o` says, and
    /// for the work itself.
    fn capabilities(self) -> HashSet<Capability> {
        use Capability as C;
        let mut kept = HashSet::from([
            C::CAP_SYS_PTRACE,
            C::CAP_DAC_READ_SEARCH,
            C::CAP_DAC_OVERRIDE,
            C::CAP_FOWNER,
            // Access to mapped files and to network namespaces of others.
            C::CAP_CHECKPOINT_RESTORE,
            C::CAP_SYS_ADMIN,
        ]);
        if self.inspects {
            // Signals to our own helpers, and the order in which threads run while others wait for us.
            kept.extend([C::CAP_KILL, C::CAP_SYS_NICE, C::CAP_SYS_RESOURCE]);
        }
        if self.samples {
            kept.extend([C::CAP_BPF, C::CAP_PERFMON, C::CAP_SYSLOG, C::CAP_IPC_LOCK]);
        }
        if self.serves {
            kept.insert(C::CAP_NET_BIND_SERVICE);
        }
        kept
    }

    /// Returns the system calls that the work never makes.
    fn denied(self) -> Vec<i64> {
        let mut denied = NEVER.to_vec();
        #[cfg(target_arch = "x86_64")]
        denied.extend([libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_mknod, libc::SYS_modify_ldt]);
        if !self.inspects {
            denied.extend([libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev]);
        }
        if !self.samples {
            denied.extend([libc::SYS_bpf, libc::SYS_perf_event_open]);
        }
        if !self.guards {
            denied.extend([libc::SYS_execve, libc::SYS_execveat]);
        }
        denied
    }

    fn filter(self) -> Result<BpfProgram, seccompiler::Error> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            self.denied().into_iter().map(|call| (call, Vec::new())).collect();
        // Sockets of other families than those used here.
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        let other = families
            .into_iter()
            .map(|family| {
                let family = u64::try_from(family).unwrap_or(0);
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
            })
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(other)?]);
        let deny = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, ARCH)?;
        let filter: BpfProgram = filter.try_into()?;
        Ok(OTHER_NUMBERS.into_iter().chain(filter).collect())
    }
}

/// Prefix of the filter that denies x32 calls. x32 is an ABI of amd64 with other numbers for the same calls.
/// Its numbers begin at `__X32_SYSCALL_BIT` (`arch/x86/include/uapi/asm/unistd.h`); no other architecture has
/// such high numbers.
const OTHER_NUMBERS: [sock_filter; 3] = {
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    // The constants fit into their low halves.
    const fn code(bits: u32) -> u16 {
        bits as u16
    }
    const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    [
        // The number of the call is the first field of `struct seccomp_data`.
        sock_filter { code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), jt: 0, jf: 0, k: 0 },
        sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K),
            jt: 0,
            jf: 1,
            k: X32_SYSCALL_BIT,
        },
        sock_filter { code: code(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k: DENIED },
    ]
};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// System calls that no command makes. They change the machine, its file systems or its users, or bypass
/// other denials.
const NEVER: [i64; 47] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_settimeofday,
    libc::SYS_setuid,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    libc::SYS_adjtimex,
];

/// Reason why rights could not be given up completely.
#[derive(Debug, thiserror::Error)]
enum Unconfined {
    #[error("capabilities cannot be given up: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("system calls cannot be denied: {0}")]
    Calls(#[from] seccompiler::Error),
}

/// Gives up the rights that `work` does not need. Call before other threads exist.
pub(super) fn enter(work: Work) {
    // Confinement is an additional layer: the answer does not depend on it.
    if let Err(error) = give_up(work) {
        tracing::info!("{error}");
    }
}

fn give_up(work: Work) -> Result<(), Unconfined> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    if work.opens || permitted.is_empty() {
        return Ok(());
    }
    let kept = &permitted & &work.capabilities();
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let now = caps::read(None, set)?;
        caps::set(None, set, &(&now & &kept))?;
    }
    // For users other than root, the filter would keep the guard from getting the capabilities of its
    // executable file.
    if rustix::process::geteuid().is_root() {
        seccompiler::apply_filter(&work.filter()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};

    use super::*;

    /// Runs `act` in a thread of its own. Only that thread is confined.
    fn within<T: Send>(work: Work, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                seccompiler::apply_filter(&work.filter().unwrap()).unwrap();
                act()
            });
            confined.join().unwrap()
        })
    }

    #[test]
    fn what_is_denied_fails() {
        let all = Work { samples: true, serves: true, ..GUARDING };
        for work in [LOOKING, INSPECTING, GUARDING, all] {
            within(work, || {
                let flags = nix::mount::MsFlags::empty();
                let mounted = nix::mount::mount(None::<&str>, "/nowhere", None::<&str>, flags, None::<&str>);
                assert_eq!(mounted, Err(nix::Error::EPERM));
                // The C library's own function would change all threads.
                // SAFETY: setuid(2) takes a number and returns one.
                let changed = unsafe { libc::syscall(libc::SYS_setuid, 0) };
                assert_eq!((changed, nix::Error::last()), (-1, nix::Error::EPERM));
                // SAFETY: as above; where there is x32, it would ask for a number.
                let other = unsafe { libc::syscall(0x4000_0000 + libc::SYS_getpid) };
                assert_eq!((other, nix::Error::last()), (-1, nix::Error::EPERM));
                assert_eq!(socket(AddressFamily::PACKET, SocketType::RAW, None).err(), Some(Errno::PERM));
                assert!(socket(AddressFamily::INET, SocketType::STREAM, None).is_ok());
                assert!(socket(AddressFamily::NETLINK, SocketType::RAW, None).is_ok());
                assert!(std::fs::read("/proc/self/status").is_ok());
                let started = std::process::Command::new("/proc/self/exe").arg("--list").output();
                assert_eq!(started.is_ok(), work.guards, "{started:?}");
                let nobody = nix::unistd::Pid::from_raw(i32::MAX);
                let traced = nix::sys::ptrace::detach(nobody, None);
                let expected = if work.inspects { nix::Error::ESRCH } else { nix::Error::EPERM };
                assert_eq!(traced, Err(expected));
            });
        }
    }

    #[test]
    fn what_is_kept() {
        let most = Work { samples: true, serves: true, ..GUARDING };
        for work in [LOOKING, INSPECTING, GUARDING, most] {
            let kept = work.capabilities();
            for never in [
                Capability::CAP_SYS_MODULE,
                Capability::CAP_SYS_RAWIO,
                Capability::CAP_SYS_BOOT,
                Capability::CAP_SETUID,
                Capability::CAP_NET_ADMIN,
                Capability::CAP_MKNOD,
            ] {
                assert!(!kept.contains(&never), "{work:?} {never}");
            }
            assert!(kept.is_subset(&most.capabilities()));
        }
        let parse = |line: &[&str]| {
            let line = line.iter().map(std::ffi::OsString::from).collect();
            crate::cli::parsing::parse(line).unwrap().with_command(|command| command.work())
        };
        assert_eq!(parse(&["gops-probe"]), LOOKING);
        assert_eq!(parse(&["gops-probe", "gc", "1"]), GUARDING);
    }
}
