//! The Go images of a process, and which of them share a runtime.
//!
//! A program has one runtime, and so has each shared object that was built for programs of other languages
//! (`-buildmode=c-shared`). Plugins, and what is linked with `-linkshared`, have code but no runtime of their own: the
//! runtime that loaded them leads to them by `moduledata.next` (`runtime/symtab.go`, Go 1.18–1.27).

use std::collections::HashMap;

use symbols::addr::LoadBias;
use symbols::image::{Arch, Image, ImageError};
use symbols::moduledata;
use symbols::program;

use super::attach::{LoadedImage, LoadedImages, bias_by_entry, bias_by_mapping};
use crate::Error;
use crate::arch;
use crate::memory::{LiveMemory, Memory as _};
use crate::process::maps::{self, Mapping};
use crate::process::{self, Process};

/// No process maps so many different files; a bound for hostile ones.
const MAX_FILES: usize = 4096;
/// More Go images than a process loads.
const MAX_IMAGES: usize = 256;

/// Finds the Go images of a process, by runtime: the executable's first. `memory` is that of the process.
///
/// # Errors
/// Where there is none, or they are of a machine that is not supported.
pub fn find(
    process: &Process,
    mappings: &[Mapping],
    memory: &LiveMemory,
) -> Result<Vec<LoadedImages>, Error> {
    let mut images: Vec<LoadedImage> = executable(process, mappings)?.into_iter().collect();
    let room = MAX_IMAGES - images.len();
    images.extend(shared_objects(process).filter_map(|(mapping, image)| loaded(&mapping, image)).take(room));
    if images.is_empty() {
        let reason = "neither its executable nor a shared object in it has build info or a Go function table";
        return Err(process.foreign_go().map_or_else(|| not_go(process, reason), Error::from));
    }
    let next = links(&images, memory);
    Ok(by_runtime(images, &next))
}

/// The executable, if it is Go's.
fn executable(process: &Process, mappings: &[Mapping]) -> Result<Option<LoadedImage>, Error> {
    let executable = process.executable()?;
    let image = Image::parse(Box::new(executable)).map_err(|e| unusable(process, &e))?;
    let Some(program) = program::recognise(&image) else { return Ok(None) };
    if let Some(what) = foreign(&image) {
        return Err(architecture(process, what));
    }
    let bias = executable_bias(process, mappings, &image);
    let path = process.exe_path().map(|path| String::from_utf8_lossy(&path).into_owned());
    let name = path.unwrap_or_else(|_| process.name().to_owned());
    Ok(Some(LoadedImage { program, image, name, bias }))
}

fn loaded(mapping: &Mapping, image: Image) -> Option<LoadedImage> {
    let program = program::recognise(&image)?;
    let bias = bias_by_mapping(&image, mapping).filter(|_| foreign(&image).is_none())?;
    Some(LoadedImage { program, image, name: String::from_utf8_lossy(&mapping.path).into_owned(), bias })
}

/// For each image the one that its `moduledata.next` leads to.
fn links(images: &[LoadedImage], memory: &LiveMemory) -> Vec<Option<usize>> {
    let place =
        |loaded: &LoadedImage| loaded.program.module.as_ref().map(|(_, data)| loaded.bias.runtime(data.addr));
    let places: HashMap<u64, usize> =
        images.iter().enumerate().filter_map(|(i, loaded)| Some((place(loaded)?.0, i))).collect();
    let next = |loaded: &LoadedImage| {
        // There is nothing that it could lead to.
        let at = place(loaded).filter(|_| images.len() > 1)?;
        moduledata::next_offsets().find_map(|offset| {
            let next = memory.word(at.plus(offset as u64)).ok().filter(|&next| next != at.0)?;
            places.get(&next).copied()
        })
    };
    images.iter().map(next).collect()
}

/// Puts those together that lead to each other, whatever a hostile process makes of its links.
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

/// Chains of indices, each index once: from those that nothing leads to, then what is left, which are circles.
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

/// Names the machine of an image, where it is none whose runtime can be read.
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

pub(super) fn not_go(process: &Process, reason: &str) -> Error {
    let (pid, name) = (process.pid(), process.name().to_owned());
    process::Error::NotGo { pid, name, reason: reason.to_owned() }.into()
}

pub(super) fn architecture(process: &Process, what: String) -> Error {
    process::Error::Architecture { pid: process.pid(), name: process.name().to_owned(), what }.into()
}

fn unusable(process: &Process, error: &ImageError) -> Error {
    match error {
        ImageError::BigEndian => architecture(process, error.to_string()),
        _ => not_go(process, &format!("its executable: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::orders;

    #[test]
    fn images_that_lead_to_each_other_share_a_runtime() {
        assert_eq!(orders(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(orders(&[None, None]), [[0], [1]]);
        // A program with two plugins, beside a library; a library that shares the program's runtime, and comes first.
        assert_eq!(orders(&[Some(2), None, Some(3), None]), [vec![0, 2, 3], vec![1]]);
        assert_eq!(orders(&[None, Some(0)]), [[1, 0]]);
        // Circles, two that lead to the same one, and one that leads nowhere.
        assert_eq!(orders(&[Some(1), Some(0), Some(2)]), [vec![0, 1], vec![2]]);
        assert_eq!(orders(&[Some(2), Some(2), None]), [vec![0, 2], vec![1]]);
        assert_eq!(orders(&[Some(7)]), [[0]]);
    }
}
