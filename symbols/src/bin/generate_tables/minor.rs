//! Extends the lists for all releases by a new minor release: the shape of its moduledata, the functions that
//! date programs, and the toolchains for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use symbols::image::Image;
use symbols::layout::{self, Table};
use symbols::moduledata;
use symbols::pclntab::Pclntab;

use crate::build::{self, Mode, Program};
use crate::release::Release;
use crate::{Outcome, emit};

/// Fields of moduledata that moved between releases.
const MOVED: [&str; 8] =
    ["types", "etypes", "rodata", "gofunc", "textsectmap", "modulename", "hasmain", "next"];
/// Number of functions that date a minor release.
const DATING: usize = 3;

/// Writes the moduledata shapes of all known releases and of one more. This step is the first for a new minor
/// release: without the shape, nothing is found in its programs. Afterwards, build this command again.
pub(crate) fn shapes(home: &Path, builds: &Path, release: Release) -> Outcome {
    let mut shapes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for known in layout::releases() {
        let version = Release::from(known).version().ok_or("not a version")?;
        let found = layout::lookup(crate::image::Arch::Amd64, &version).ok_or("no table")?;
        add(&mut shapes, known.minor, &found.table)?;
    }
    let path = build::probe(&home.join("probe"), builds, release, Mode::Plain, Program::Large)?;
    add(&mut shapes, release.minor, &layout::from_dwarf(&std::fs::read(path)?)?)?;
    let mut ranges: Vec<(u32, u32, Vec<u64>)> = Vec::new();
    for (minor, shape) in shapes {
        match ranges.last_mut().filter(|(_, _, last)| *last == shape) {
            Some((_, to, _)) => *to = minor,
            None => ranges.push((minor, minor, shape)),
        }
    }
    let mut out = String::from("// Written by generate-tables.\n[\n");
    for (from, to, shape) in ranges {
        writeln!(out, "    Shape {{\n        minors: ({from}, {to}),")?;
        for (field, offset) in MOVED.iter().zip(shape) {
            writeln!(out, "        {field}: {offset},")?;
        }
        out.push_str("    },\n");
    }
    Ok(std::fs::write(home.join("data/moduledata.rs"), out + "]\n")?)
}

fn add(shapes: &mut BTreeMap<u32, Vec<u64>>, minor: u32, table: &Table) -> Outcome {
    let offset = |field| table.field("runtime.moduledata", field).map(|field| field.offset);
    let shape = MOVED.map(offset).into_iter().collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| format!("go1.{minor}: moduledata has not all of {MOVED:?}"))?;
    let known = shapes.entry(minor).or_insert_with(|| shape.clone());
    if *known == shape { Ok(()) } else { Err(format!("go1.{minor}: moduledata has moved within it").into()) }
}

/// Adds the functions that date a minor release, if the list has none yet. The largest functions that every
/// program has from this release on are chosen. Check them by hand: they must be on the main paths of
/// scheduler, allocator or collector.
pub(crate) fn inventory(home: &Path, builds: &Path, release: Release) -> Outcome {
    let path = home.join("data/inventory.rs");
    let mut text = std::fs::read_to_string(&path)?;
    let before = layout::releases().rfind(|known| known.minor < release.minor);
    let Some(before) = before.filter(|_| !text.contains(&format!("({}, [", release.minor))) else {
        return Ok(());
    };
    let functions = |release, mode| -> Outcome<BTreeMap<String, u64>> {
        let path = build::probe(&home.join("probe"), builds, release, mode, Program::Minimal)?;
        functions(std::fs::read(path)?)
    };
    let (new, unoptimised) = (functions(release, Mode::Plain)?, functions(release, Mode::Unoptimised)?);
    let mut old = BTreeSet::new();
    for mode in [Mode::Plain, Mode::Unoptimised] {
        old.extend(functions(Release::from(before), mode)?.into_keys());
    }
    let mut first: Vec<(u64, &str)> = new
        .iter()
        .filter(|(name, _)| unoptimised.contains_key(*name) && !old.contains(*name))
        .map(|(name, size)| (*size, name.as_str()))
        .collect();
    first.sort_unstable_by(|a, b| b.cmp(a));
    let names: Vec<&str> = first.into_iter().take(DATING).map(|(_, name)| name).collect();
    if names.len() < DATING {
        return Err(
            format!("{release}: too few functions are new in it to date programs by: {names:?}").into()
        );
    }
    let end = text.rfind(']').ok_or("not a list")?;
    text.insert_str(end, &format!("    ({}, {names:?}),\n", release.minor));
    println!("{release}: programs are dated by {names:?}");
    Ok(std::fs::write(path, text)?)
}

/// Returns the functions of a program's runtime, and their sizes in bytes.
fn functions(elf: Vec<u8>) -> Outcome<BTreeMap<String, u64>> {
    let image = Image::parse(Box::new(elf))?;
    let (header, module) = moduledata::find(&image, None).ok_or("no moduledata")?;
    let pclntab = Pclntab::load(&image, &header, &module)?;
    let named = pclntab.functions().map(|func| (func.name_text().into_owned(), func));
    // Exclusion of generic instances and closures: their names change easily.
    let usable = |name: &str| name.starts_with("runtime.") && !name.contains('[') && !name.contains(".func");
    let sized = named.filter(|(name, _)| usable(name)).map(|(name, func)| {
        let size = func.end().since(func.entry()).unwrap_or(0);
        (name, size)
    });
    Ok(sized.collect())
}

/// Writes the list of toolchains for tests: the newest patch of each minor, the first release of each minor
/// from 1.21 on, and candidates.
pub(crate) fn toolchains(home: &Path) -> Outcome {
    let known = emit::known(&build::tables(home))?;
    let is_newest = |release: &Release| {
        let same = known.iter().filter(|other| other.minor == release.minor && other.pre.is_none());
        same.map(|other| other.patch).max() == Some(release.patch)
    };
    let is_first = |release: &Release| release.minor >= 21 && release.patch == 0;
    let (releases, candidates): (Vec<_>, Vec<_>) = known.iter().partition(|release| release.pre.is_none());
    let tested = releases.into_iter().filter(|release| is_newest(release) || is_first(release));
    let mut out = String::from("// Written by generate-tables.\n[\n");
    for release in tested.chain(candidates) {
        writeln!(out, "    \"{}\",", release.to_string().trim_start_matches("go"))?;
    }
    Ok(std::fs::write(home.join("../tests/src/toolchains.rs"), out + "]\n")?)
}
