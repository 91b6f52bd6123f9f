//! Attaching to a Go runtime: builds a [`View`] from its images. Modules, release, layouts and variables are
//! each verified against live memory.

use std::sync::Arc;

use symbols::addr::RuntimeAddr;
use symbols::layout::Table;
use symbols::program::Release;
use symbols::version::OLDEST_MINOR;

pub use super::attach_error::{AttachError, AttachNotes};
use super::calibrate::{self, Calibrated};
use super::fields::MFields;
use super::load;
pub use super::load::{LoadedImage, LoadedImages, bias_by_entry, bias_by_mapping};
use super::release::{GoRelease, Source};
use super::view::{Evidence, TracebackSettings, View};
use crate::arch;
use crate::memory::Memory;
use crate::process::maps::Mapping;

/// Facts about a process that attaching needs.
#[allow(missing_debug_implementations, reason = "a closure has none")]
pub struct AttachTarget<'a> {
    /// Memory mappings of the process.
    pub mappings: &'a [Mapping],
    /// Lists the thread ids of the process, as numbered in its own pid namespace.
    pub tids: &'a dyn Fn() -> Vec<u64>,
    /// CLOCK_MONOTONIC of the process minus CLOCK_MONOTONIC of this process, in nanoseconds.
    pub monotonic_offset: i64,
}

/// Attaches to the runtime found in `loaded`. Reads only.
///
/// # Errors
/// Returns the reason of the failure, and the evidence gathered before it.
pub fn attach(
    target: &AttachTarget<'_>,
    loaded: LoadedImages,
    memory: &dyn Memory,
) -> Result<View, (AttachError, AttachNotes)> {
    let mut notes = AttachNotes::default();
    attach_with(target, loaded, memory, &mut notes).map_err(|error| (error, notes))
}

fn attach_with(
    target: &AttachTarget<'_>,
    loaded: LoadedImages,
    memory: &dyn Memory,
    notes: &mut AttachNotes,
) -> Result<View, AttachError> {
    let machine = arch::machine(loaded.main.image.arch()).ok_or(AttachError::Architecture)?;
    let known = Arc::clone(&loaded.main.known);
    let program = &known.program;
    if let Release::Exact(v) = &program.release
        && v.minor < OLDEST_MINOR
    {
        return Err(AttachError::TooOld(v.raw.clone()));
    }
    let AttachNotes { evidence, unknown } = notes;
    let mut note = |of: &str, found: String, by: String| {
        evidence.push(Evidence { of: of.to_owned(), found, by });
    };
    let modules = load::modules(loaded, memory, &mut note, unknown)?;
    let learned = known.learned().map(|learned| learned.fit);
    let Calibrated { fit, table, allgs, globals } =
        calibrate::calibrate(memory, &modules, program, learned, &mut note, unknown)?;
    let (release, g) = (fit.release.clone(), fit.g.clone());
    let facts = GoRelease::of_minor(release.version.minor);
    if release.source == Source::Memory {
        note("version", release.version.to_string(), "the string runtime.buildVersion in memory".to_owned());
    }
    let fitting = release.version.clone();
    let version = match release.source {
        Source::BuildInfo | Source::Memory => Some(release.version),
        Source::Functions => None,
    };
    if let (None, Release::Exact(named)) = (&version, &program.release) {
        unknown.push(format!("its exact release: {named} is what its build info says, and not what it is"));
    }

    let mut m = MFields::from_table(&table)?;
    let allm = calibrate::find_ms(memory, &modules, &mut m, &g, &globals, target.tids, &mut note);
    if allm.is_none() {
        unknown.push("allm: registers of running goroutines cannot be told apart".to_owned());
    }
    let runtime_addr = |name: &str| globals.at(name);
    let finalizer_state = runtime_addr(facts.finalizer_state_variable());
    if finalizer_state.is_none() {
        unknown.push("the finalizer goroutine's state: it is taken for idle".to_owned());
    }
    let traceback = traceback_settings(memory, &table, facts, runtime_addr("runtime.debug"), unknown);
    // All releases treat `runtime.deferreturn` as a wrapper, so that tracebacks omit it.
    let deferreturn = modules.main().pclntab.find("runtime.deferreturn");
    let wrapper_id = deferreturn.map_or(facts.wrapper_id(), |f| f.func_id());
    let coroutine_reason =
        table.wait_reasons().iter().position(|r| r == "coroutine").and_then(|i| u8::try_from(i).ok());
    let sigreturn =
        modules.function("runtime.sigreturn__sigaction").or_else(|| modules.function("runtime.sigreturn"));
    let in_go =
        |m: &Mapping| modules.iter().any(|module| m.contains(module.bias.runtime(module.data.text.start).0));
    let foreign_code =
        target.mappings.iter().filter(|m| m.executable && !in_go(m)).map(|m| (m.start, m.end)).collect();
    known.learn(&fit, &modules.main().pclntab);
    Ok(View {
        machine,
        version,
        fitting,
        release: facts,
        g,
        m,
        allgs,
        allm,
        sigreturn,
        foreign_code,
        wrapper_id,
        coroutine_reason,
        finalizer_state,
        traceback,
        monotonic_offset: target.monotonic_offset,
        code: fit.code(modules.main()),
        modules,
        table,
        layout: fit.layout,
        variables: Arc::clone(&fit.variables),
        evidence: std::mem::take(evidence),
        unknown: std::mem::take(unknown),
    })
}

/// Reads `runtime.debug.tracebacklabels`: 1 if tracebacks print labels (from Go 1.26).
fn traceback_settings(
    memory: &dyn Memory,
    table: &Table,
    release: GoRelease,
    debug: Option<RuntimeAddr>,
    unknown: &mut Vec<String>,
) -> TracebackSettings {
    if !release.has_traceback_labels() {
        return TracebackSettings::default();
    }
    let field = table.field("runtime.debug", "tracebacklabels");
    let value = debug.zip(field).and_then(|(at, field)| {
        let mut word = [0u8; 4];
        memory.read(at.plus(field.offset), &mut word).ok()?;
        Some(u32::from_le_bytes(word))
    });
    match value {
        Some(v) if v <= 1 => TracebackSettings { labels: v == 1 },
        // The setting is 0 or 1. Any other value means that the address is wrong.
        _ => {
            unknown.push("debug.tracebacklabels: labels are left out of headers".to_owned());
            TracebackSettings::default()
        }
    }
}
