//! Writes the table files. The format is JSON with one line per struct, variable and reference, for readable
//! diffs.

use std::fmt::Write as _;
use std::path::Path;

use object::{Object as _, ObjectSymbol as _};
use symbols::addr::LinkAddr;
use symbols::image::Image;
use symbols::layout::Table;

use crate::learn::Learned;
use crate::release::Release;
use crate::{Outcome, build};

/// End of a table file: closes the recipes and the file.
const END: &str = "\n}\n}\n";

/// Returns the contents of a table file.
pub(crate) fn file(release: Release, elf: &[u8], table: &Table, recipes: &[Learned; 2]) -> Outcome<String> {
    let command =
        format!("GOTOOLCHAIN={} go {}", release.toolchain(), build::arguments(build::Mode::Plain).join(" "));
    let mut out = String::from("{\n");
    member(&mut out, "go", &release.to_string())?;
    member(&mut out, "arch", build::GOARCH)?;
    member(&mut out, "command", &command)?;
    object(&mut out, "structs", table.structs().map(|(name, s)| (name, s.to_string())))?;
    object(&mut out, "variables", table.variables().map(|(name, of)| (name, of.to_owned())))?;
    let reasons = wait_reasons(elf).ok_or("no runtime.waitReasonStrings")?;
    writeln!(out, "\"wait_reasons\": {},", serde_json::to_string(&reasons)?)?;
    let idle: Vec<usize> = (0..)
        .zip(variable(elf, "runtime.isIdleInSynctest").unwrap_or_default())
        .filter_map(|(i, b)| (b != 0).then_some(i))
        .collect();
    writeln!(out, "\"idle_in_synctest\": {},", serde_json::to_string(&idle)?)?;
    out.push_str("\"recipes\": {\n");
    let [optimised, unoptimised] = recipes;
    set(&mut out, "optimised", optimised)?;
    out.push_str(",\n");
    set(&mut out, "unoptimised", unoptimised)?;
    out.push_str(END);
    Ok(out)
}

/// Adds the recipes of `learned` to the contents of a table file, under `key`.
pub(crate) fn with(file: &str, key: &str, learned: &Learned) -> Outcome<String> {
    let mut out = file.strip_suffix(END).ok_or("not a table file")?.to_owned();
    out.push_str(",\n");
    set(&mut out, key, learned)?;
    out.push_str(END);
    Ok(out)
}

/// Removes the recipes with these keys from the contents of a table file. They are the last ones in the file.
pub(crate) fn without<'k>(file: &str, keys: impl Iterator<Item = &'k str>) -> String {
    let first = keys.filter_map(|key| file.find(&format!(",\n\"{key}\": {{\n"))).min();
    first.map_or_else(|| file.to_owned(), |at| format!("{}{END}", &file[..at]))
}

/// Writes the lists of the table files that the library embeds: one list of releases, one of candidates and
/// betas.
pub(crate) fn index(data: &Path) -> Outcome {
    let (mut releases, mut candidates) = (String::new(), String::new());
    for release in known(data)? {
        let Release { minor, patch, pre } = release;
        match pre {
            None => writeln!(releases, "    ({minor}, {patch}, include_str!(\"{release}.json\")),")?,
            Some(pre) => writeln!(candidates, "    ({minor}, \"{pre}\", include_str!(\"{release}.json\")),")?,
        }
    }
    for (name, list) in [("index.rs", releases), ("candidates.rs", candidates)] {
        std::fs::write(data.join(name), format!("// Written by generate-tables.\n&[\n{list}]\n"))?;
    }
    Ok(())
}

/// Returns the releases and candidates that have a table file, in ascending order.
pub(crate) fn known(data: &Path) -> Outcome<Vec<Release>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|n| n.strip_suffix(".json")).and_then(Release::parse));
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn member(out: &mut String, name: &str, value: &str) -> Outcome {
    Ok(writeln!(out, "\"{name}\": {},", serde_json::to_string(value)?)?)
}

fn set(out: &mut String, name: &str, learned: &Learned) -> Outcome {
    writeln!(out, "\"{name}\": {{")?;
    object(
        out,
        "functions",
        learned.functions.iter().map(|(name, shape)| (name.as_str(), shape.to_string())),
    )?;
    object(
        out,
        "variables",
        learned.variables.iter().map(|(name, recipe)| (name.as_str(), recipe.to_string())),
    )?;
    // Removal of the comma after the last member.
    out.truncate(out.trim_end().trim_end_matches(',').len());
    out.push_str("\n}");
    Ok(())
}

pub(crate) fn object<'a>(
    out: &mut String,
    name: &str,
    lines: impl Iterator<Item = (&'a str, String)>,
) -> Outcome {
    let lines = lines
        .map(|(key, value)| {
            Ok(format!("  {}: {}", serde_json::to_string(key)?, serde_json::to_string(&value)?))
        })
        .collect::<Outcome<Vec<_>>>()?;
    Ok(writeln!(out, "\"{name}\": {{\n{}\n}},", lines.join(",\n"))?)
}

fn variable(elf: &[u8], name: &str) -> Option<Vec<u8>> {
    let file = object::File::parse(elf).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok(name))?;
    let image = Image::parse(Box::new(elf.to_vec())).ok()?;
    let mut bytes = vec![0; usize::try_from(symbol.size()).ok()?];
    image.read(LinkAddr(symbol.address()), &mut bytes).ok()?;
    Some(bytes)
}

fn wait_reasons(elf: &[u8]) -> Option<Vec<String>> {
    let image = Image::parse(Box::new(elf.to_vec())).ok()?;
    let headers = variable(elf, "runtime.waitReasonStrings")?;
    let mut words = headers.chunks_exact(8).map(|w| w.try_into().map(u64::from_le_bytes));
    let mut reasons = Vec::new();
    while let (Some(Ok(at)), Some(Ok(len))) = (words.next(), words.next()) {
        let mut text = vec![0; usize::try_from(len).ok().filter(|l| *l < 256)?];
        if len > 0 {
            image.read(LinkAddr(at), &mut text).ok()?;
        }
        reasons.push(String::from_utf8(text).ok()?);
    }
    Some(reasons)
}
