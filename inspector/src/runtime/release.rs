//! Go release of a runtime. Differences between releases are in [`facts`]. The linker's build info names the
//! release, but it can be stripped, and the linker accepts any text for it (`-X runtime.buildVersion=…`).

mod facts;

pub use facts::GoRelease;
use symbols::addr::RuntimeAddr;
use symbols::globals;
use symbols::layout;
use symbols::program::{self, GoProgram, Release};
use symbols::version::GoVersion;

use super::modules::Modules;
use crate::memory::Memory;

/// Source of a release number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Build info in the file.
    BuildInfo,
    /// String `runtime.buildVersion` in memory, found through the code that uses it.
    Memory,
    /// No explicit source: the release is one of those that the program's tables and functions allow.
    Functions,
}

/// Release that may be the right one.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Release number.
    pub version: GoVersion,
    /// Source of the release number.
    pub source: Source,
}

/// Returns the releases to try, most likely first. A named release is included only if the functions of the
/// runtime do not contradict it. All other releases allowed by the functions follow, newest first.
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
    // The build settings name the experiments, whatever release the program claims.
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
