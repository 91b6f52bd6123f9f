//! Which release the runtime of a process is of; what releases differ in is in [`facts`]. The linker's build info says so, but it can be wiped, and whoever
//! links can write anything into it (`-X runtime.buildVersion=…`).

mod facts;

pub use facts::GoRelease;
use symbols::addr::RuntimeAddr;
use symbols::globals;
use symbols::layout;
use symbols::program::{self, GoProgram, Release};
use symbols::version::GoVersion;

use super::modules::Modules;
use crate::memory::Memory;

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The build info in the file.
    BuildInfo,
    /// The string `runtime.buildVersion` in memory, found by those who use it.
    Memory,
    /// Nobody: it is one of the releases that the program's tables and functions allow.
    Functions,
}

/// A release that may be the one.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The release.
    pub version: GoVersion,
    /// Who says so.
    pub source: Source,
}

/// The releases to try, the likeliest first. What is named is tried only where the functions of the runtime do not
/// contradict it; where it does not fit what is in memory, all others that the functions allow are tried, newest first.
pub fn candidates(program: &GoProgram, modules: &Modules, memory: &dyn Memory) -> Vec<Candidate> {
    let (from, to) = match (&program.release, &program.module) {
        (Release::Between(from, to), _) => (*from, *to),
        (Release::Exact(_), Some((header, data))) => program::minors(header, data, &modules.main().pclntab),
        (Release::Exact(version), None) => (version.minor, Some(version.minor)),
    };
    let allowed = |minor: u32| from <= minor && to.is_none_or(|to| minor <= to);
    let named = match &program.release {
        Release::Exact(version) => Some((version.clone(), Source::BuildInfo)),
        Release::Between(..) => in_memory(modules, memory, from, to).map(|v| (v, Source::Memory)),
    };
    let named = named.filter(|(version, _)| allowed(version.minor));
    // Whatever the program calls itself, its build settings name the experiments.
    let experiments = program.build_info.as_ref().and_then(|info| info.setting("GOEXPERIMENT")).unwrap_or("");
    let release = |minor, patch| GoVersion::release(minor, patch).with_experiments(experiments);
    let others = layout::releases().filter(|r| allowed(r.minor)).map(|r| release(r.minor, r.patch));
    let others = others.map(|version| Candidate { version, source: Source::Functions }).rev();
    named.into_iter().map(|(version, source)| Candidate { version, source }).chain(others).collect()
}

/// Reads `runtime.buildVersion`.
fn in_memory(modules: &Modules, memory: &dyn Memory, from: u32, to: Option<u32>) -> Option<GoVersion> {
    let main = modules.main();
    let string = |at| {
        let at = main.bias.runtime(at);
        Some((memory.word(at).ok()?, memory.word(at.plus(8)).ok()?))
    };
    let text = |at, len| memory.bytes(RuntimeAddr(at), len).ok();
    globals::build_version(&main.image, &main.pclntab, (from, to), string, text)
}
