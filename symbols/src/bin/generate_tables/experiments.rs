//! Measures which GOEXPERIMENTs change the structs of the runtime. The minimal probe is built with each
//! experiment that a release knows. All structs are compared with the structs of a build without the
//! experiment. If any differ, the differing structs and recipes are written to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use symbols::globals::VARIABLES;
use symbols::layout::{self, Table, releases};
use symbols::version::GoVersion;

use crate::build::{self, Mode, Program};
use crate::release::Release;
use crate::{Outcome, emit, learn};

/// Measures the experiments of the releases in `wanted`. If `wanted` is empty, measures the newest release of
/// each minor.
pub(crate) fn measure(home: &Path, builds: &Path, wanted: &[Release]) -> Outcome {
    let newest: BTreeMap<u32, Release> = releases().map(|r| (r.minor, Release::from(r))).collect();
    let wanted = if wanted.is_empty() { newest.into_values().collect() } else { wanted.to_vec() };
    let data = build::tables(home).join("experiments");
    std::fs::create_dir_all(&data)?;
    for release in wanted {
        let text = one(&home.join("probe"), builds, release)?;
        std::fs::write(data.join(format!("{release}.json")), text)?;
        index(&data)?;
    }
    Ok(())
}

/// Effects of the experiments of a release.
#[derive(Default)]
struct Measured {
    /// Names of experiments that are the default of the release.
    default: BTreeSet<String>,
    /// Names of experiments that change no struct.
    same: BTreeSet<String>,
    /// Names of experiments that cannot be built on this machine.
    unbuildable: BTreeSet<String>,
    /// Names of experiments that change structs, with the differences.
    different: BTreeMap<String, Difference>,
}

/// Difference between the table of an experiment and the plain table.
struct Difference {
    structs: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    functions: BTreeMap<String, String>,
    recipes: BTreeMap<String, String>,
}

/// Measures one release and returns the contents of its file.
fn one(source: &Path, builds: &Path, release: Release) -> Outcome<String> {
    let read = |program, experiment: &str| -> Outcome<Vec<u8>> {
        let path = build::probe_with(source, builds, release, Mode::Plain, program, experiment)?;
        Ok(std::fs::read(path)?)
    };
    let plain = layout::from_dwarf(&read(Program::Minimal, "")?)?;
    let mut measured = Measured::default();
    for flag in flags(release)? {
        for name in [flag.clone(), format!("no{flag}")] {
            let Some(compiler) = build::compiler(release, &name)? else {
                measured.unbuildable.insert(name);
                continue;
            };
            let known = GoVersion::parse(&compiler).map(|v| v.experiments).unwrap_or_default();
            if known.is_empty() {
                measured.default.insert(name);
                continue;
            }
            let Ok(elf) = read(Program::Minimal, &name) else {
                measured.unbuildable.insert(name);
                continue;
            };
            if layout::from_dwarf(&elf)? == plain {
                println!("{release} {name}: the same");
                measured.same.insert(name);
                continue;
            }
            println!("{release} {name}: other structs");
            let difference = difference(
                &read(Program::Large, "")?,
                &read(Program::Large, &name)?,
                &elf,
                &read(Program::Minimal, "")?,
            )?;
            measured.different.insert(name, difference);
        }
    }
    write(release, &measured)
}

/// Returns the names in a release's own list of experiments.
fn flags(release: Release) -> Outcome<BTreeSet<String>> {
    let mut flags = BTreeSet::new();
    for entry in std::fs::read_dir(build::goroot(release)?.join("src/internal/goexperiment"))? {
        let name = entry?.file_name();
        let flag = name.to_str().and_then(|n| n.strip_prefix("exp_")?.strip_suffix("_off.go"));
        flags.extend(flag.map(str::to_owned));
    }
    Ok(flags)
}

/// Compares the large probe with an experiment to the plain large probe.
fn difference(plain: &[u8], large: &[u8], minimal: &[u8], plain_minimal: &[u8]) -> Outcome<Difference> {
    let structs = |table: &Table| -> BTreeMap<String, String> {
        table.structs().map(|(name, s)| (name.to_owned(), s.to_string())).collect()
    };
    let variables = |table: &Table| -> BTreeMap<String, String> {
        table.variables().map(|(name, of)| (name.to_owned(), of.to_owned())).collect()
    };
    let (plain_table, table) = (layout::from_dwarf(plain)?, layout::from_dwarf(large)?);
    let learn = |large: &[u8], minimal: &[u8], table: &Table| -> Outcome<learn::Learned> {
        let (large, minimal) =
            (learn::Program::open(large.to_vec())?, learn::Program::open(minimal.to_vec())?);
        let all = VARIABLES.iter().copied().collect();
        Ok(learn::learn(&large, &minimal, table, &all, learn::MANY))
    };
    let plain_recipes = learn(plain, plain_minimal, &plain_table)?;
    let recipes = learn(large, minimal, &table)?;
    let text = |map: &BTreeMap<String, learn::Shape>| -> BTreeMap<String, String> {
        map.iter().map(|(name, shape)| (name.clone(), shape.to_string())).collect()
    };
    let lines = |learned: &learn::Learned| -> BTreeMap<String, String> {
        learned.variables.iter().map(|(name, recipe)| (name.clone(), recipe.to_string())).collect()
    };
    Ok(Difference {
        structs: changed(&structs(&plain_table), structs(&table)),
        variables: changed(&variables(&plain_table), variables(&table)),
        functions: changed(&text(&plain_recipes.functions), text(&recipes.functions)),
        recipes: changed(&lines(&plain_recipes), lines(&recipes)),
    })
}

/// Returns the entries of `now` that differ from `before`. An entry that exists only in `before` gets an
/// empty text.
fn changed(before: &BTreeMap<String, String>, now: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    let mut changed: BTreeMap<String, String> = gone.map(|name| (name.clone(), String::new())).collect();
    changed.extend(now.into_iter().filter(|(name, text)| before.get(name) != Some(text)));
    changed
}

fn write(release: Release, measured: &Measured) -> Outcome<String> {
    let mut out = String::from("{\n");
    emit::member(&mut out, "go", &release.to_string())?;
    for (name, list) in
        [("default", &measured.default), ("same", &measured.same), ("unbuildable", &measured.unbuildable)]
    {
        writeln!(out, "\"{name}\": {},", serde_json::to_string(list)?)?;
    }
    out.push_str("\"different\": {");
    for (i, (name, difference)) in measured.different.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        writeln!(out, "{comma}\n\"{name}\": {{")?;
        let parts = [
            ("structs", &difference.structs),
            ("variables", &difference.variables),
            ("functions", &difference.functions),
            ("recipes", &difference.recipes),
        ];
        for (part, lines) in parts {
            emit::object(&mut out, part, lines.iter().map(|(key, line)| (key.as_str(), line.clone())))?;
        }
        // Removal of the comma after the last member.
        out.truncate(out.trim_end().trim_end_matches(',').len());
        out.push_str("\n}");
    }
    out.push_str("\n}\n}\n");
    Ok(out)
}

/// Writes the list of the experiment files that the library embeds.
fn index(data: &Path) -> Outcome {
    let mut measured = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let name = entry?.file_name();
        let release = name.to_str().and_then(|n| n.strip_suffix(".json")).and_then(Release::parse);
        measured.extend(release);
    }
    measured.sort_unstable();
    let mut out = String::from("// Written by generate-tables.\n&[\n");
    for release in measured {
        let Release { minor, patch, .. } = release;
        writeln!(out, "    ({minor}, {patch}, include_str!(\"{release}.json\")),")?;
    }
    out.push_str("]\n");
    Ok(std::fs::write(data.join("index.rs"), out)?)
}
