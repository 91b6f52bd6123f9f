//! Errors of loading and running BPF programs.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::sys::SyscallError;

/// Reason why a program could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Missing type information of the kernel, which programs are fitted to.
    #[error(
        "this kernel does not describe its types (no /sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF): {0}"
    )]
    NoTypes(String),
    /// Denial by the kernel.
    #[error("the kernel denies {action}: {source}")]
    Denied {
        /// Action that was denied.
        action: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Refusal of a program by the verifier.
    #[error("the kernel refuses the program {program} ({source}); its verifier says:\n{log}")]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// Error of the kernel.
        source: io::Error,
        /// End of the verifier's log.
        log: String,
    },
    /// Other failure.
    #[error("{action}: {text}")]
    Other {
        /// Action that failed.
        action: &'static str,
        /// Description of the failure.
        text: String,
    },
}

impl Error {
    /// Returns true if a permission is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Denied { .. })
    }

    pub(crate) fn new(action: &'static str, error: impl Into<EbpfError>) -> Self {
        let error = error.into();
        match source(&error) {
            Some(code) if denied(code) => {
                Error::Denied { action, source: io::Error::from_raw_os_error(code) }
            }
            _ => Error::Other { action, text: chain(&error) },
        }
    }

    pub(crate) fn of_program(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                match io_error.raw_os_error() {
                    // The verifier returns EACCES too, but never with an empty log.
                    Some(code) if denied(code) && log.trim().is_empty() => {
                        Error::Denied { action: "loading a program", source: io_error }
                    }
                    _ => Error::refused(program, io_error, &log),
                }
            }
            other => Error::new("loading a program", other),
        }
    }

    pub(crate) fn refused(program: &'static str, source: io::Error, log: &str) -> Self {
        Error::Refused { program, source, log: end_of(log).to_owned() }
    }

    #[cfg(feature = "libbpf")]
    pub(crate) fn of_system(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(code) if denied(code) => Error::Denied { action, source },
            _ => Error::Other { action, text: source.to_string() },
        }
    }
}

fn denied(code: i32) -> bool {
    code == libc::EPERM || code == libc::EACCES
}

/// Returns the error number of the kernel, from any place in the chain.
fn source(error: &EbpfError) -> Option<i32> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let io = error
            .downcast_ref::<io::Error>()
            .or_else(|| error.downcast_ref::<SyscallError>().map(|e| &e.io_error))
            .or_else(|| match error.downcast_ref::<MapError>() {
                Some(MapError::CreateError { io_error, .. }) => Some(io_error),
                _ => None,
            });
        if let Some(code) = io.and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

/// Returns the last lines of a log.
fn end_of(log: &str) -> &str {
    const LINES: usize = 24;
    let log = log.trim_end();
    let start = log.rmatch_indices('\n').nth(LINES).map_or(0, |(at, _)| at + 1);
    log.get(start..).unwrap_or(log)
}
