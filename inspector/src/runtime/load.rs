//! Go images of a process: groups them by runtime, and verifies memory against their files.
//!
//! A program has one runtime. Each shared object built for programs of other languages
//! (`-buildmode=c-shared`) has its own runtime too. Plugins and images linked with `-linkshared` have code
//! but no runtime of their own: the runtime that loaded them links to them by `moduledata.next`
//! (`runtime/symtab.go`, Go 1.18–1.27).

use std::collections::HashMap;
use std::sync::Arc;

use symbols::addr::{LinkAddr, LoadBias, RuntimeAddr};
use symbols::image::{Arch, Image};
use symbols::moduledata::{self, Moduledata};
use symbols::pclntab::Pclntab;
use symbols::pclntab::header::Header;

use super::attach_error::AttachError;
use super::known::{self, KnownProgram};
use super::modules::{Module, Modules};
use crate::arch;
use crate::memory::Memory;
use crate::process::maps::{self, Mapping};
use crate::process::{self, Error, Process};

/// Maximum number of different mapped files. A bound for hostile processes.
const MAX_FILES: usize = 4096;
/// Maximum number of Go images in a process.
const MAX_IMAGES: usize = 256;
/// Maximum total size of the function tables of all modules of a process, in bytes. It is twice the limit of
/// a single table.
pub(super) const MAX_TABLES: usize = 1 << 30;

/// Go image of a process, and the address of its file in memory.
#[derive(Debug)]
pub struct LoadedImage {
    /// Knowledge about the file.
    pub known: Arc<KnownProgram>,
    /// Parsed image.
    pub image: Image,
    /// Path of the file, as seen by the process.
    pub name: String,
    /// Difference between runtime addresses and link addresses.
    pub bias: LoadBias,
}

/// All Go images of one runtime.
#[derive(Debug)]
pub struct LoadedImages {
    /// Image that contains the runtime.
    pub main: LoadedImage,
    /// Images loaded by the runtime, in the order of `moduledata.next`: plugins, and programs and libraries
    /// that share the runtime.
    pub others: Vec<LoadedImage>,
}

/// Finds the Go images of a process, grouped by runtime; that of the executable comes first. `memory` is the
/// memory of the process.
///
/// # Errors
/// Returns an [`Error`] if the process has no Go image, or if the images are for an unsupported
/// architecture.
pub fn find(
    process: &Process,
    mappings: &[Mapping],
    memory: &dyn Memory,
) -> Result<Vec<LoadedImages>, Error> {
    let mut images: Vec<LoadedImage> = executable(process, mappings)?.into_iter().collect();
    let room = MAX_IMAGES - images.len();
    images
        .extend(shared_objects(process, mappings).filter_map(|mapping| loaded(process, mapping)).take(room));
    if images.is_empty() {
        let reason = "neither its executable nor a shared object in it has build info or a Go function table";
        return Err(process.foreign_go().unwrap_or_else(|| process.not_go(reason)));
    }
    let next = links(&images, memory);
    Ok(by_runtime(images, &next))
}

/// Loads the executable, or returns `None` if it is no Go program.
fn executable(process: &Process, mappings: &[Mapping]) -> Result<Option<LoadedImage>, Error> {
    let (image, known) = known::recognise(process.executable()?).map_err(|e| process.unusable(&e))?;
    let Some(known) = known else { return Ok(None) };
    if let Some(what) = foreign(&image) {
        return Err(architecture(process, what));
    }
    let bias = executable_bias(process, mappings, &image);
    let path = process.exe_path().map(|path| String::from_utf8_lossy(&path).into_owned());
    let name = path.unwrap_or_else(|_| process.name().to_owned());
    Ok(Some(LoadedImage { known, image, name, bias }))
}

fn loaded(process: &Process, mapping: &Mapping) -> Option<LoadedImage> {
    let (image, known) = known::recognise(process.open_mapping(mapping).ok()?).ok()?;
    let known = known?;
    let bias = bias_by_mapping(&image, mapping).filter(|_| foreign(&image).is_none())?;
    Some(LoadedImage { known, image, name: String::from_utf8_lossy(&mapping.path).into_owned(), bias })
}

/// Returns for each image the index of the image that its `moduledata.next` points to.
fn links(images: &[LoadedImage], memory: &dyn Memory) -> Vec<Option<usize>> {
    let place = |loaded: &LoadedImage| {
        loaded.known.program.module.as_ref().map(|(_, data)| loaded.bias.runtime(data.addr))
    };
    let places: HashMap<u64, usize> =
        images.iter().enumerate().filter_map(|(i, loaded)| Some((place(loaded)?.0, i))).collect();
    let next = |loaded: &LoadedImage| {
        // A single image has no other image to link to.
        let at = place(loaded).filter(|_| images.len() > 1)?;
        moduledata::next_offsets().find_map(|offset| {
            let next = memory.word(at.plus(offset as u64)).ok().filter(|&next| next != at.0)?;
            places.get(&next).copied()
        })
    };
    images.iter().map(next).collect()
}

/// Groups images that link to each other. A hostile process may have arbitrary links.
fn by_runtime(images: Vec<LoadedImage>, next: &[Option<usize>]) -> Vec<LoadedImages> {
    let orders = orders(next);
    let mut images: Vec<Option<LoadedImage>> = images.into_iter().map(Some).collect();
    let mut take = |i: usize| images.get_mut(i).and_then(Option::take);
    let mut found = Vec::new();
    for order in orders {
        let mut chain = order.into_iter().filter_map(&mut take);
        if let Some(main) = chain.next() {
            found.push(LoadedImages { main, others: chain.collect() });
        }
    }
    found
}

/// Computes chains of indices; each index occurs once. Chains start at indices without predecessor, then at
/// the remaining ones, which form cycles.
fn orders(next: &[Option<usize>]) -> Vec<Vec<usize>> {
    let mut is_led_to = vec![false; next.len()];
    for &to in next.iter().flatten() {
        if let Some(led) = is_led_to.get_mut(to) {
            *led = true;
        }
    }
    let all = 0..next.len();
    let heads = all.clone().filter(|&i| is_led_to.get(i) == Some(&false));
    let mut seen = vec![false; next.len()];
    let mut found = Vec::new();
    for head in heads.chain(all) {
        let mut order = Vec::new();
        let mut at = Some(head);
        while let Some(i) = at
            && let Some(seen) = seen.get_mut(i).filter(|seen| !**seen)
        {
            *seen = true;
            order.push(i);
            at = next.get(i).copied().flatten();
        }
        if !order.is_empty() {
            found.push(order);
        }
    }
    found
}

/// Returns a description of the machine of an image, or `None` if its runtime is supported.
fn foreign(image: &Image) -> Option<String> {
    if arch::machine(image.arch()).is_some() && image.pointer_size() == 8 {
        return None;
    }
    let machine = match image.arch() {
        Arch::Amd64 => "x86-64 with 32-bit pointers".to_owned(),
        Arch::Arm64 => "arm64".to_owned(),
        Arch::Other(number) => process::foreign::machine(number),
    };
    Some(format!("a Go program for {machine}"))
}

/// Loads the modules of a runtime, each verified against memory: the main module, and the modules that it
/// loaded.
///
/// # Errors
/// Returns an [`AttachError`] if the main module in memory differs from its file.
pub(super) fn modules(
    LoadedImages { main, others }: LoadedImages,
    memory: &dyn Memory,
    note: &mut impl FnMut(&str, String, String),
    unknown: &mut Vec<String>,
) -> Result<Modules, AttachError> {
    let LoadedImage { known, image, name, bias } = main;
    let program = &known.program;
    let Some((header, data)) = program.module.clone() else { return Err(AttachError::NotGo) };
    confirm_module(memory, &header, &data, bias)?;
    note(
        "pclntab",
        format!("{}", header.addr),
        format!("{} functions, moduledata at {} confirms it, live", header.nfunc, data.addr),
    );
    let resumed = known.learned().and_then(|known| Pclntab::resume(&image, &data, &known.excerpt).ok());
    let pclntab = match resumed {
        Some(pclntab) => pclntab,
        None => Pclntab::load(&image, &header, &data)?,
    };
    let by: Vec<String> = program.evidence.iter().map(ToString::to_string).collect();
    note("version", program.release.to_string(), by.join(", "));
    let mut modules = Modules::single(Module { name, image, pclntab, data, bias });
    // Other modules are added before calibration, so that code in them counts as plausible.
    add_others(&mut modules, others, memory, note, unknown);
    Ok(modules)
}

/// Checks that the moduledata in memory equals that of the file.
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
    for LoadedImage { known, image, name, bias } in others {
        let Some((header, data)) = known.program.module.clone() else { continue };
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

/// Determines the load address of the executable. Prefers the auxiliary vector; its file mode excludes a
/// reader that has only CAP_SYS_PTRACE and not the uid of the owner. In that case the memory map is used.
fn executable_bias(process: &Process, mappings: &[Mapping], image: &Image) -> LoadBias {
    let by_entry = || bias_by_entry(image, &process.read("auxv", "read the auxiliary vector").ok()?);
    let by_path = || {
        let path = maps::path_in_maps(&process.exe_path().ok()?);
        bias_by_mapping(image, mappings.iter().find(|m| m.path == path)?)
    };
    by_entry().or_else(by_path).unwrap_or_default()
}

/// Computes the load bias of the program's own image from the entry point in the auxiliary vector
/// (`AT_ENTRY`).
pub fn bias_by_entry(image: &Image, auxv: &[u8]) -> Option<LoadBias> {
    const AT_ENTRY: u64 = 9;
    let entry = auxv.chunks_exact(16).find_map(|pair| {
        let word = |at: usize| Some(u64::from_le_bytes(pair.get(at..at + 8)?.try_into().ok()?));
        (word(0)? == AT_ENTRY).then(|| word(8)).flatten()
    })?;
    Some(LoadBias::between(image.entry(), RuntimeAddr(entry)))
}

/// Computes the load bias of an image from a mapping of its file.
pub fn bias_by_mapping(image: &Image, mapping: &Mapping) -> Option<LoadBias> {
    let page = arch::page_size();
    // Two segments may share a page of the file, but then differ in their permissions.
    let segment = image
        .segments()
        .iter()
        .find(|s| s.file_offset & !(page - 1) == mapping.offset && s.executable == mapping.executable)?;
    Some(LoadBias::between(LinkAddr(segment.start.0 & !(page - 1)), RuntimeAddr(mapping.start)))
}

/// Returns the shared objects that the process has mapped, each once, with one of their mappings.
fn shared_objects<'m>(process: &Process, mappings: &'m [Mapping]) -> impl Iterator<Item = &'m Mapping> {
    process.shared_objects_of(mappings).into_iter().take(MAX_FILES)
}

pub(super) fn architecture(process: &Process, what: String) -> Error {
    Error::Architecture { pid: process.pid(), name: process.name().to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::orders;

    #[test]
    fn images_that_lead_to_each_other_share_a_runtime() {
        assert_eq!(orders(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(orders(&[None, None]), [[0], [1]]);
        // Images: a program with two plugins beside a library, then a library first that shares the
        // program's runtime.
        assert_eq!(orders(&[Some(2), None, Some(3), None]), [vec![0, 2, 3], vec![1]]);
        assert_eq!(orders(&[None, Some(0)]), [[1, 0]]);
        // Links: cycles, two images with the same successor, and a link to no image.
        assert_eq!(orders(&[Some(1), Some(0), Some(2)]), [vec![0, 1], vec![2]]);
        assert_eq!(orders(&[Some(2), Some(2), None]), [vec![0, 2], vec![1]]);
        assert_eq!(orders(&[Some(7)]), [[0]]);
    }
}
