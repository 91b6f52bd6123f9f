//! Go programs that are not supported: those of another compiler, and those that an emulator
//! executes.

use symbols::image::{Arch, Image};
use symbols::{gccgo, program};

use super::{Error, Process};

/// Maximum number of files that are searched for the program of an emulator, which maps that
/// program first.
const MAX_FILES: usize = 16;

impl Process {
    /// Makes the error for a Go program that another compiler built, or that an emulator executes.
    /// `None` if neither is known.
    pub(crate) fn foreign_go(&self) -> Option<Error> {
        self.emulated().or_else(|| self.by_gccgo())
    }

    /// Finds the Go program that `qemu-user` executes. The emulator maps its code only to read it.
    fn emulated(&self) -> Option<Error> {
        let path = self.exe_path().ok()?;
        let emulator = path.rsplit(|&b| b == b'/').next().filter(|name| name.starts_with(b"qemu-"))?;
        let mut mappings = self.mappings().ok()?;
        mappings.retain(|m| m.inode != 0 && m.path.starts_with(b"/") && m.path != path);
        mappings.dedup_by_key(|m| (m.device, m.inode));
        mappings.into_iter().take(MAX_FILES).find_map(|mapping| {
            let image = Image::parse(Box::new(self.open_mapping(&mapping).ok()?)).ok()?;
            program::identify(&image)?;
            let machine = match image.arch() {
                Arch::Amd64 => "amd64".to_owned(),
                Arch::Arm64 => "arm64".to_owned(),
                Arch::Other(number) => machine(number),
            };
            let emulator = String::from_utf8_lossy(emulator);
            let what = format!("a Go program for {machine} that {emulator} emulates");
            Some(Error::Architecture { pid: self.pid(), name: self.name().to_owned(), what })
        })
    }

    /// Detects gccgo, whose runtime is a library or part of the executable.
    fn by_gccgo(&self) -> Option<Error> {
        let library = |path: &[u8]| {
            path.rsplit(|&b| b == b'/').next().is_some_and(|name| name.starts_with(b"libgo.so."))
        };
        let has_library =
            || self.shared_objects().ok().is_some_and(|all| all.iter().any(|m| library(&m.path)));
        let is_inside = || {
            let image = Image::parse(Box::new(self.executable().ok()?)).ok()?;
            gccgo::built(&image).then_some(())
        };
        (has_library() || is_inside().is_some())
            .then(|| Error::GccGo { pid: self.pid(), name: self.name().to_owned() })
    }
}

/// Name of a machine by its ELF number.
pub(crate) fn machine(number: u16) -> String {
    match number {
        // EM_386 and EM_ARM: 32-bit machines that a 64-bit kernel also runs.
        3 => "386 (32-bit x86)".to_owned(),
        40 => "32-bit arm".to_owned(),
        8 => "mips".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loong64".to_owned(),
        number => format!("ELF machine {number}"),
    }
}
