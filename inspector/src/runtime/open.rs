//! From a pinned process to its Go runtime: which of its files is Go, and where it is loaded.

use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::image::{Arch, Image, ImageError};
use symbols::moduledata;
use symbols::pclntab::Pclntab;
use symbols::program;

use super::attach::{self, AttachError, LoadedImage, Target, attach, bias_by_entry, bias_by_mapping};
use super::modules::Module;
use super::view::View;
use crate::memory::{LiveMemory, Memory, MemoryError, ReadCost};
use crate::process::access::Access;
use crate::process::maps::{self, Mapping};
use crate::process::{self, Process};
use crate::{Error, stop};

/// No process maps so many different files; a bound for hostile ones.
const MAX_FILES: usize = 4096;
/// More plugins than a process loads.
const MAX_MODULES: usize = 256;
/// Of all modules together: twice what the largest may have.
const MAX_TABLES: usize = 1 << 30;

/// Finds the Go runtime of a process and attaches to it. Reads only.
///
/// # Errors
/// What keeps us from it, with its cause.
pub fn open(process: &Process) -> Result<(View, ReadCost), Error> {
    let pid = process.pid().as_raw();
    let mappings = process.mappings()?;
    let memory = LiveMemory::new(pid);
    let loaded = find_go(process, &mappings)?;
    let tids = || threads(pid);
    let target =
        Target { pid, mappings: &mappings, tids: &tids, monotonic_offset: monotonic_offset(process) };
    let mut view = match attach(&target, loaded, &memory) {
        Ok(view) => view,
        Err(error) => {
            // A process that is gone explains everything that it did not hold.
            process.check()?;
            return Err(explain(process, error));
        }
    };
    add_plugins(process, &mappings, &memory, &mut view);
    process.check()?;
    Ok((view, memory.cost()))
}

/// The first of the process's files that holds a Go runtime: its executable, else a shared object.
fn find_go(process: &Process, mappings: &[Mapping]) -> Result<LoadedImage, Error> {
    let executable = process.executable()?;
    let image = Image::parse(Box::new(executable)).map_err(|e| unusable(process, &e))?;
    if let Some(program) = program::recognise(&image) {
        if let Some(what) = foreign(&image) {
            return Err(architecture(process, what));
        }
        let bias = executable_bias(process, mappings, &image);
        return Ok(LoadedImage { program, image, name: process.name().to_owned(), bias });
    }
    for (mapping, image) in shared_objects(process) {
        if let Some(program) = program::recognise(&image)
            && let Some(bias) = bias_by_mapping(&image, &mapping)
        {
            let name = String::from_utf8_lossy(&mapping.path).into_owned();
            return Ok(LoadedImage { program, image, name, bias });
        }
    }
    let reason = "neither its executable nor a shared object in it has build info or a Go function table";
    Err(process.foreign_go().map_or_else(|| not_go(process, reason), Error::from))
}

/// Names the machine of an image, where it is none whose runtime can be read.
fn foreign(image: &Image) -> Option<String> {
    let machine = match image.arch() {
        Arch::Amd64 if image.pointer_size() == 8 => return None,
        Arch::Amd64 => "x86-64 with 32-bit pointers".to_owned(),
        Arch::Arm64 => "arm64".to_owned(),
        Arch::Other(number) => process::foreign::machine(number),
    };
    Some(format!("a Go program for {machine}"))
}

/// Where the executable is loaded. The auxiliary vector says so, but its file's mode keeps out whoever has only
/// CAP_SYS_PTRACE and not its owner's uid; the memory map serves then.
fn executable_bias(process: &Process, mappings: &[Mapping], image: &Image) -> LoadBias {
    let by_entry = || bias_by_entry(image, &process.read("auxv", "read the auxiliary vector").ok()?);
    let by_path = || {
        let path = maps::path_in_maps(&process.exe_path().ok()?);
        bias_by_mapping(image, mappings.iter().find(|m| m.path == path)?)
    };
    by_entry().or_else(by_path).unwrap_or_default()
}

/// The shared objects that the process has mapped, each once, with one of their mappings.
fn shared_objects(process: &Process) -> impl Iterator<Item = (Mapping, Image)> {
    // What cannot be listed cannot be looked into.
    let objects = process.shared_objects().unwrap_or_default();
    objects.into_iter().take(MAX_FILES).filter_map(|mapping| {
        let image = Image::parse(Box::new(process.open_mapping(&mapping).ok()?)).ok()?;
        Some((mapping, image))
    })
}

/// How many Go runtimes a process has: its executable's and those of shared objects. Plugins have none of their own.
///
/// # Errors
/// Where the executable cannot be opened.
pub fn count_runtimes(process: &Process) -> Result<usize, Error> {
    let has_runtime = |image: &Image| program::identify(image).is_some();
    let executable = Image::parse(Box::new(process.executable()?)).ok();
    let executable = executable.is_some_and(|image| has_runtime(&image));
    Ok(usize::from(executable) + shared_objects(process).filter(|(_, image)| has_runtime(image)).count())
}

/// Follows `moduledata.next` to the plugins that the program has loaded.
fn add_plugins(process: &Process, mappings: &[Mapping], memory: &LiveMemory, view: &mut View) {
    let Some(next_offset) = moduledata::next_offset(view.minor) else { return };
    for _ in 0..MAX_MODULES {
        let Some(last) = view.modules.iter().last() else { return };
        let at = last.bias.runtime(last.data.addr).plus(next_offset as u64);
        let Ok(next) = memory.word(at) else { return };
        if next == 0 {
            return;
        }
        let tables: usize = view.modules.iter().map(|m| m.pclntab.size()).sum();
        let room = |module: &Module| tables.saturating_add(module.pclntab.size()) <= MAX_TABLES;
        match plugin(process, mappings, next).filter(room) {
            Some(module) => view.modules.add(module),
            None => {
                view.unknown.push(format!("the Go module at {next:#x}: its frames have no names"));
                return;
            }
        }
    }
}

/// The module whose moduledata is at `addr`.
fn plugin(process: &Process, mappings: &[Mapping], addr: u64) -> Option<Module> {
    let holder = mappings.iter().find(|m| m.contains(addr))?;
    let (mapping, image) = shared_objects(process).find(|(m, _)| m.is_of_file_of(holder))?;
    let (header, data) = program::recognise(&image)?.module?;
    let bias = bias_by_mapping(&image, &mapping)?;
    if bias.runtime(data.addr) != RuntimeAddr(addr) {
        return None;
    }
    let pclntab = Pclntab::load(&image, &header, &data).ok()?;
    Some(Module { name: String::from_utf8_lossy(&mapping.path).into_owned(), image, pclntab, data, bias })
}

/// Thread ids as the target's own pid namespace numbers them.
fn threads(pid: i32) -> Vec<u64> {
    match stop::namespaced_threads(pid) {
        Some(map) => map.into_keys().collect(),
        None => {
            stop::threads(pid).unwrap_or_default().iter().filter_map(|&t| u64::try_from(t).ok()).collect()
        }
    }
}

/// By how much the target's CLOCK_MONOTONIC is ahead of ours, in nanoseconds (time namespaces).
fn monotonic_offset(process: &Process) -> i64 {
    let offset = |text: &[u8]| -> Option<i64> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.lines().find_map(|l| l.strip_prefix("monotonic"))?.split_ascii_whitespace();
        let (seconds, nanoseconds): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    };
    let theirs = process.read("timens_offsets", "read the time namespace").ok().and_then(|t| offset(&t));
    let ours = std::fs::read("/proc/self/timens_offsets").ok().and_then(|t| offset(&t));
    theirs.unwrap_or(0).saturating_sub(ours.unwrap_or(0))
}

fn not_go(process: &Process, reason: &str) -> Error {
    let (pid, name) = (process.pid(), process.name().to_owned());
    process::Error::NotGo { pid, name, reason: reason.to_owned() }.into()
}

fn architecture(process: &Process, what: String) -> Error {
    process::Error::Architecture { pid: process.pid(), name: process.name().to_owned(), what }.into()
}

fn unusable(process: &Process, error: &ImageError) -> Error {
    match error {
        ImageError::BigEndian => architecture(process, error.to_string()),
        _ => not_go(process, &format!("its executable: {error}")),
    }
}

fn explain(process: &Process, error: AttachError) -> Error {
    let pid = process.pid();
    match error {
        AttachError::NotGo => not_go(process, "no Go runtime was found in it"),
        AttachError::TooOld(version) => process::Error::TooOld { pid, version }.into(),
        AttachError::Architecture => architecture(process, attach::AttachError::Architecture.to_string()),
        AttachError::Memory(error) => memory_error(process, error),
        other => Error::Uncalibrated { pid, what: other.to_string() },
    }
}

/// Turns an error of reading memory into one with its cause.
pub fn memory_error(process: &Process, error: MemoryError) -> Error {
    if let Err(gone) = process.check() {
        return gone.into();
    }
    match error {
        MemoryError::Exited => process::Error::Exited(process.pid()).into(),
        MemoryError::Denied => {
            let source = std::io::Error::from_raw_os_error(libc::EPERM);
            process.explain("read the memory", Access::Attach, source).into()
        }
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}
