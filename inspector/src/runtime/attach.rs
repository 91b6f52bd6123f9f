//! Finding a Go runtime in a process: image, version, layouts, globals, each held against live memory.

use symbols::addr::{LinkAddr, LoadBias, RuntimeAddr};
use symbols::globals::{self, Agreement};
use symbols::image::Image;
use symbols::layout::{self, Table};
use symbols::moduledata::{self, Moduledata};
use symbols::pclntab::header::Header;
use symbols::pclntab::{Pclntab, PclntabError};
use symbols::program::{GoProgram, Release};
use symbols::sections;
use symbols::version::{GoVersion, OLDEST_MINOR};

use super::calibrate::{self, check_gs, check_ms};
use super::discover;
use super::fields::{GFields, MFields, MissingField};
use super::locate::Located;
use super::modules::{Module, Modules};
use super::release::{self, Candidate, GoRelease, Source};
use super::snapshot::glist::AllGs;
use super::view::{Evidence, TracebackSettings, View};
use super::wait_reasons;
use crate::arch;
use crate::memory::{Memory, MemoryError};
use crate::process::maps::Mapping;

/// Why a process's Go runtime cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No Go module was found in it.
    #[error("no Go runtime was found in it")]
    NotGo,
    /// A Go release before the first supported one.
    #[error("it was built with {0}; supported are Go 1.{OLDEST_MINOR} and later")]
    TooOld(String),
    /// Another machine.
    #[error("it is a program for another architecture; supported is amd64")]
    Architecture,
    /// Its pclntab is damaged.
    #[error(transparent)]
    Pclntab(#[from] PclntabError),
    /// What is in memory is not what the file says.
    #[error("its memory does not hold what its file says (packed, or changed at run time): {0}")]
    Different(String),
    /// No layout that is known fits.
    #[error("no known layout of {version} fits what is in its memory ({why})")]
    NothingCalibrates {
        /// The version, as far as known.
        version: String,
        /// What did not fit.
        why: String,
    },
    /// A layout table without a needed field.
    #[error(transparent)]
    Layout(#[from] MissingField),
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A Go image of a process and where its file is mapped.
#[derive(Debug)]
pub struct LoadedImage {
    /// What it was recognised as.
    pub program: GoProgram,
    /// The image.
    pub image: Image,
    /// The path of its file, as the process knows it.
    pub name: String,
    /// Where it is loaded.
    pub bias: LoadBias,
}

/// All Go images of one runtime.
#[derive(Debug)]
pub struct LoadedImages {
    /// The one that holds the runtime.
    pub main: LoadedImage,
    /// Those that it loaded, in the order of `moduledata.next`: plugins, and programs and libraries that share it.
    pub others: Vec<LoadedImage>,
}

/// What the function tables of all modules of a process may take together, in bytes: twice what the largest may have.
pub(super) const MAX_TABLES: usize = 1 << 30;

/// All that attaching needs to know of a process.
#[allow(missing_debug_implementations, reason = "a closure has none")]
pub struct Target<'a> {
    /// The process.
    pub pid: i32,
    /// Its mappings.
    pub mappings: &'a [Mapping],
    /// Lists its threads as its own pid namespace numbers them.
    pub tids: &'a dyn Fn() -> Vec<u64>,
    /// Its CLOCK_MONOTONIC minus ours, in nanoseconds.
    pub monotonic_offset: i64,
}

/// Attaches to the runtime of `loaded`. Reads only.
pub fn attach(target: &Target<'_>, loaded: LoadedImages, memory: &dyn Memory) -> Result<View, AttachError> {
    let LoadedImages { main: LoadedImage { program, image, name, bias }, others } = loaded;
    let machine = arch::machine(image.arch()).ok_or(AttachError::Architecture)?;
    if let Release::Exact(v) = &program.release
        && v.minor < OLDEST_MINOR
    {
        return Err(AttachError::TooOld(v.raw.clone()));
    }
    let Some((header, data)) = program.module.clone() else { return Err(AttachError::NotGo) };
    let mut evidence = Vec::new();
    let mut unknown = Vec::new();
    let mut note = |of: &str, found: String, by: String| {
        evidence.push(Evidence { of: of.to_owned(), found, by });
    };
    confirm_module(memory, &header, &data, bias)?;
    note(
        "pclntab",
        format!("{}", header.addr),
        format!("{} functions, moduledata at {} confirms it, live", header.nfunc, data.addr),
    );
    let pclntab = Pclntab::load(&image, &header, &data)?;
    let by: Vec<String> = program.evidence.iter().map(ToString::to_string).collect();
    note("version", program.release.to_string(), by.join(", "));

    let mut modules = Modules::single(Module { name, image, pclntab, data, bias });
    // Before anything is calibrated: what runs in their code is as plausible as the rest.
    add_others(&mut modules, others, memory, &mut note, &mut unknown);
    let found = calibrated(memory, &modules, &program, &mut note)?;
    let Calibrated { release, table, layout, code, g, allgs, globals } = found;
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
    let allm = find_ms(memory, &modules, &mut m, &g, &globals, target.tids, &mut note);
    if allm.is_none() {
        unknown.push("allm: registers of running goroutines cannot be told apart".to_owned());
    }
    let runtime_addr = |name: &str| globals.at(name);
    let finalizer_state = runtime_addr(facts.finalizer_state_variable());
    if finalizer_state.is_none() {
        unknown.push("the finalizer goroutine's state: it is taken for idle".to_owned());
    }
    let traceback = traceback_settings(memory, &table, facts, runtime_addr("runtime.debug"), &mut unknown);
    // `runtime.deferreturn` is known as a wrapper, so that it is not printed, in every release.
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
    Ok(View {
        pid: target.pid,
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
        modules,
        table,
        layout,
        code,
        evidence,
        unknown,
    })
}

/// Whether the moduledata in memory is the one of the file.
fn confirm_module(
    memory: &dyn Memory,
    header: &Header,
    data: &Moduledata,
    bias: LoadBias,
) -> Result<(), AttachError> {
    let at = bias.runtime(data.addr);
    let pc_header = memory.word(at)?;
    let text = memory.word(at.plus(moduledata::TEXT_OFFSET))?;
    let expected = (bias.runtime(header.addr).0, bias.runtime(data.text.start).0);
    if (pc_header, text) != expected {
        return Err(AttachError::Different(format!("moduledata at {at} points at {pc_header:#x}")));
    }
    Ok(())
}

/// Adds the modules that the runtime has loaded.
fn add_others(
    modules: &mut Modules,
    others: Vec<LoadedImage>,
    memory: &dyn Memory,
    note: &mut impl FnMut(&str, String, String),
    unknown: &mut Vec<String>,
) {
    for LoadedImage { program, image, name, bias } in others {
        let Some((header, data)) = program.module else { continue };
        let room = MAX_TABLES.saturating_sub(modules.iter().map(|m| m.pclntab.size()).sum());
        let table = match confirm_module(memory, &header, &data, bias) {
            Ok(()) => Pclntab::load(&image, &header, &data).map_err(AttachError::from),
            Err(error) => Err(error),
        };
        match table {
            Ok(pclntab) if pclntab.size() <= room => {
                let by = format!("{} functions, moduledata.next leads to it, live", header.nfunc);
                note("module", name.clone(), by);
                modules.add(Module { name, image, pclntab, data, bias });
            }
            Ok(_) => unknown.push(format!("the Go module {name}: the tables of all modules are too large")),
            Err(error) => unknown.push(format!("the Go module {name}: {error}")),
        }
    }
}

struct Calibrated {
    release: Candidate,
    table: Table,
    layout: layout::Evidence,
    code: Option<Agreement>,
    g: GFields,
    allgs: AllGs,
    globals: Located,
}

const WANTED: &[&str] = &[
    "runtime.allgs",
    "runtime.allglen",
    "runtime.allgptr",
    "runtime.allm",
    "runtime.debug",
    "runtime.fingStatus",
    "runtime.fingRunning",
    "runtime.firstmoduledata",
    "runtime.waitReasonStrings",
];

/// The layout for `version`: made from this very release, else from the program's own DWARF, else from a
/// neighbouring release.
fn layout_for(module: &Module, version: &GoVersion) -> Option<layout::Found> {
    let found = layout::lookup(version);
    if found.as_ref().is_some_and(|f| f.evidence == layout::Evidence::Exact) {
        return found;
    }
    let dwarf = own_dwarf(&module.image).map(|table| match &found {
        Some(neighbour) => table.with_wait_reasons_of(&neighbour.table),
        None => table,
    });
    dwarf.map(|table| layout::Found { table, evidence: layout::Evidence::Dwarf }).or(found)
}

/// A program with more than this and debug information is not worth the time for a layout.
const MAX_FILE: u64 = 1 << 30;

/// Whether a program has debug information, which is not said to be usable.
pub(crate) fn has_debug_info(image: &Image) -> bool {
    let sections = sections::read(image).unwrap_or_default();
    sections.iter().any(|s| s.name == ".debug_info" || s.name == ".zdebug_info")
}

/// The layouts that a program's own debug information has.
pub(crate) fn own_dwarf(image: &Image) -> Option<Table> {
    let source = image.source();
    // Most have none, and to read a hundred megabytes takes longer than all the rest.
    if !has_debug_info(image) || source.len() > MAX_FILE {
        return None;
    }
    let mut elf = vec![0; usize::try_from(source.len()).ok()?];
    source.read_at(0, &mut elf).then_some(())?;
    layout::from_dwarf(&elf).ok()
}

/// Takes the wait reasons from the target where no table is of its very release: their order changes between
/// releases (`runtime.waitReasonStrings`).
fn with_live_wait_reasons(
    memory: &dyn Memory,
    globals: &Located,
    found: layout::Found,
    note: &mut impl FnMut(&str, String, String),
) -> Table {
    if found.evidence == layout::Evidence::Exact {
        return found.table;
    }
    let live = globals.at("runtime.waitReasonStrings");
    match live.and_then(|at| wait_reasons::read(memory, at)) {
        Some(reasons) => {
            note("wait reasons", format!("{} of them", reasons.len()), "read from the process".to_owned());
            found.table.with_wait_reasons(reasons)
        }
        None => found.table,
    }
}

/// Finds the layout of g and the address of allgs that fit live memory together.
fn calibrated(
    memory: &dyn Memory,
    modules: &Modules,
    program: &GoProgram,
    note: &mut impl FnMut(&str, String, String),
) -> Result<Calibrated, AttachError> {
    let main = modules.main();
    let mut failure = String::from("there is no table for it");
    for candidate in release::candidates(program, modules, memory) {
        let version = &candidate.version;
        let Some(found) = layout_for(main, version) else { continue };
        let Ok(g) = GFields::from_table(&found.table) else { continue };
        let globals = Located::find(main, version, WANTED);
        let at = |name: &str| globals.at(name);
        let by_name = match (at("runtime.allglen"), at("runtime.allgptr")) {
            (Some(len), Some(ptr)) => Some(AllGs { len, ptr }),
            _ => at("runtime.allgs").map(|slice| AllGs { len: slice.plus(8), ptr: slice }),
        };
        let by_looks = || {
            let found = discover::find_allgs(memory, modules, &g)?;
            Some((found, String::from("found by its contents")))
        };
        let by_name = by_name.map(|allgs| (allgs, globals.how("runtime.allgptr")));
        // Slower than a recipe, so only if that fails.
        for (allgs, how) in by_name.into_iter().chain(std::iter::once_with(by_looks).flatten()) {
            let check = check_gs(memory, modules, &g, &allgs);
            if check.passes() {
                note(
                    "layout",
                    format!("{version}"),
                    format!(
                        "{}; {} of {} sampled goroutines fit",
                        found.evidence, check.good, check.looked_at
                    ),
                );
                note("allgs", allgs.ptr.to_string(), how);
                let layout = found.evidence;
                let code = code_of(main, &candidate, layout, note);
                let table = with_live_wait_reasons(memory, &globals, found, note);
                return Ok(Calibrated { release: candidate, table, layout, code, g, allgs, globals });
            }
            failure = format!("{} of {} sampled goroutines fit", check.good, check.looked_at);
        }
    }
    Err(AttachError::NothingCalibrates { version: program.release.to_string(), why: failure })
}

/// Holds the code of the runtime against the release's, where the layout is not beyond doubt by itself.
fn code_of(
    main: &Module,
    candidate: &Candidate,
    layout: layout::Evidence,
    note: &mut impl FnMut(&str, String, String),
) -> Option<Agreement> {
    let certain = match layout {
        layout::Evidence::Exact => candidate.source == Source::BuildInfo,
        layout::Evidence::Dwarf => true,
        layout::Evidence::SameMinor { .. } => layout::is_bracketed(&candidate.version),
        _ => false,
    };
    if certain {
        return None;
    }
    let agreement = globals::agreement(&main.image, &main.pclntab, &candidate.version)?;
    let Agreement { present, same } = agreement;
    let how =
        format!("{same} of {present} functions of the runtime are the same, instruction by instruction");
    note("code", candidate.version.to_string(), how);
    Some(agreement)
}

/// How often the list of ms and that of threads are compared until they fit.
const CHECKS: u32 = 4;

/// Finds the list of ms, and corrects `m.alllink` where the table is wrong.
fn find_ms(
    memory: &dyn Memory,
    modules: &Modules,
    m: &mut MFields,
    g: &GFields,
    globals: &Located,
    threads: &dyn Fn() -> Vec<u64>,
    note: &mut impl FnMut(&str, String, String),
) -> Option<RuntimeAddr> {
    let by_name = globals.at("runtime.allm").map(|at| (at, globals.how("runtime.allm")));
    let table_m = m.clone();
    let by_looks =
        || Some((discover::find_allm(memory, modules, &table_m, g)?, String::from("found by its contents")));
    for (at, how) in by_name.into_iter().chain(std::iter::once_with(by_looks).flatten()) {
        // A thread that C created has an m only while it runs Go.
        let covers = |check: &calibrate::MCheck| check.broken == 0 && check.strangers <= 1 + check.ms / 8;
        // Threads come and go between the two lists, in programs that have just begun many at a time.
        let Some((head, tids, mut check)) = (0..CHECKS).find_map(|i| {
            let head = memory.word(at).ok()?;
            let tids = threads();
            let check = check_ms(memory, m, g, head, &tids);
            (covers(&check) || i + 1 == CHECKS).then_some((head, tids, check))
        }) else {
            continue;
        };
        if (!covers(&check) || (check.threads_found < 2 && tids.len() > 2))
            && let Some((moved, better)) = calibrate::find_alllink(memory, m, g, head, &tids)
        {
            note(
                "m.alllink",
                moved.alllink.to_string(),
                "calibrated: the table's offset does not lead to the threads".to_owned(),
            );
            *m = moved;
            check = better;
        }
        if check.threads_found > 0 && covers(&check) {
            note(
                "allm",
                at.to_string(),
                format!("{how}; its {} ms have {} of {} threads", check.ms, check.threads_found, tids.len()),
            );
            return Some(at);
        }
    }
    None
}

/// Reads `runtime.debug.tracebacklabels`, which decides whether labels are printed (from Go 1.26).
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
        // A value that the setting cannot have: not the setting.
        _ => {
            unknown.push("debug.tracebacklabels: labels are left out of headers".to_owned());
            TracebackSettings::default()
        }
    }
}

/// Where the program's own image is loaded, from its entry point as the kernel noted it (`AT_ENTRY`).
pub fn bias_by_entry(image: &Image, auxv: &[u8]) -> Option<LoadBias> {
    const AT_ENTRY: u64 = 9;
    let entry = auxv.chunks_exact(16).find_map(|pair| {
        let word = |at: usize| Some(u64::from_le_bytes(pair.get(at..at + 8)?.try_into().ok()?));
        (word(0)? == AT_ENTRY).then(|| word(8)).flatten()
    })?;
    Some(LoadBias::between(image.entry(), RuntimeAddr(entry)))
}

/// Where an image is loaded, from a mapping of its file.
pub fn bias_by_mapping(image: &Image, mapping: &Mapping) -> Option<LoadBias> {
    let page = arch::page_size();
    // Two segments may share a page of the file, but not what may be done with it.
    let segment = image
        .segments()
        .iter()
        .find(|s| s.file_offset & !(page - 1) == mapping.offset && s.executable == mapping.executable)?;
    Some(LoadBias::between(LinkAddr(segment.start.0 & !(page - 1)), RuntimeAddr(mapping.start)))
}
