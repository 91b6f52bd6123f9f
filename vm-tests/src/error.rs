//! Why a machine could not be prepared or run.

use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a machine could not be prepared or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program does not start.
    #[error("{program} cannot be started: {source}{hint}")]
    Start {
        /// Which one.
        program: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Its command line.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A kernel is not at hand and cannot be fetched.
    #[error(
        "Debian's kernel {series} is not in target/vm/kernels and cannot be fetched: {cause}\n\
         It is taken out of Debian's package, which needs apt-get and a network. Without these, put an image there \
         (vmlinuz-{series}.…), or leave it out: GOPS_PROBE_VM_SERIES= (nothing) and GOPS_PROBE_VM_KERNELS=PATH-OF-VMLINUZ"
    )]
    Unfetched {
        /// As `6.1`.
        series: String,
        /// Why.
        cause: Box<Error>,
    },
    /// No package has the kernel.
    #[error(
        "no package is called linux-image-{series}*-cloud-amd64: not in the package lists of this machine, and not in \
         {tried}"
    )]
    NoKernel {
        /// As `6.1`.
        series: String,
        /// Which further lists were searched, or why none were.
        tried: String,
    },
    /// Cargo built something, but does not say what.
    #[error("cargo does not say where it put {name}")]
    NoProgram {
        /// The program.
        name: &'static str,
    },
    /// A package has no kernel image in it.
    #[error("{package} has no kernel image /boot/vmlinuz-*")]
    NoImage {
        /// Its file.
        package: PathBuf,
    },
    /// A thread of ours.
    #[error("a thread panicked")]
    Panicked,
    /// The harness of the fixtures failed.
    #[error(transparent)]
    Fixtures(#[from] fixtures::Error),
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
