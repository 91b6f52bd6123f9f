//! Measures recipes on programs that they were not learned from. The programs' own symbol tables are the
//! reference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use symbols::globals::{self, VARIABLES, Verdict};
use symbols::image::Image;
use symbols::layout;
use symbols::moduledata;
use symbols::pclntab::Pclntab;
use symbols::version::GoVersion;
use symbols::{buildinfo, layout::releases};

use crate::release::Release;
use crate::ways::WAYS;
use crate::{Outcome, build};

/// Result for one program.
struct Row {
    program: String,
    version: String,
    used: String,
    verdict: Verdict,
    /// Variables that the program's symbol table contains.
    truth: BTreeSet<&'static str>,
    size: usize,
    time: Duration,
}

/// Solves each program and prints the comparison.
pub(crate) fn files(programs: &[PathBuf]) -> Outcome {
    let mut rows = Vec::new();
    for path in programs {
        rows.extend(row(path, &path.display().to_string(), None)?);
    }
    println!("{}", table(&rows)?);
    judge(&rows)
}

/// Builds a program in all ways with the newest patch of each minor, adds the commands that each toolchain
/// ships, and writes the comparison.
pub(crate) fn matrix(source: &Path, builds: &Path, output: &Path) -> Outcome {
    let (mut built, mut shipped, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    let all: Vec<Release> = releases().map(Release::from).collect();
    for &release in &all {
        let newest = !all.iter().any(|r| r.minor == release.minor && r.patch > release.patch);
        let root = build::goroot(release)?;
        let commands = ["bin/go", "bin/gofmt", "pkg/tool/linux_amd64/compile", "pkg/tool/linux_amd64/trace"];
        for command in commands {
            let path = root.join(command);
            let name = command.rsplit('/').next().unwrap_or(command);
            if path.exists() {
                shipped.extend(row(&path, name, None)?);
            }
        }
        if !newest {
            continue;
        }
        let below = all.iter().rfind(|r| r.minor + 1 == release.minor);
        let above = all.iter().find(|r| r.minor == release.minor + 1);
        for used in below.into_iter().chain(above) {
            let name = format!("compile, by the table of {used}");
            neighbours.extend(row(&root.join("pkg/tool/linux_amd64/compile"), &name, Some(*used))?);
        }
        for way in WAYS.iter().filter(|way| way.exists(release)) {
            match way.build(source, builds, release, "service") {
                Ok(path) => built.extend(row(&path, way.name, None)?),
                Err(error) => eprintln!("left out: {error}"),
            }
        }
    }
    let mut out = String::from(
        "# Recipes: measured\n\n\
         Written by `generate-tables verify`. Recipes find the addresses of the runtime's variables in programs\n\
         without a symbol table. Here they are applied to programs that they were not learned from, and compared\n\
         with the symbol tables of these programs, which the solver does not see. *None* means that the solver\n\
         refused to answer; a wrong answer would be a defect.\n\n## Ways to compile\n\n\
         `symbols/probe/service`, by the newest patch of each minor. PGO uses the profile of the Go compiler for all\n\
         packages, the runtime included; the other profile is that of a program of the tests, which nothing is learned \
         from.\n\n",
    );
    out.push_str(&table(&built)?);
    out.push_str(
        "\n### Each variable\n\nIn how many of these programs it was found, of those that have it; `0/0` where none was built in that way.\n\n",
    );
    out.push_str(&rates(&built)?);
    out.push_str("\n## Programs that the toolchains ship\n\nPrebuilt by the Go project; `compile` with PGO since 1.21.\n\n");
    out.push_str(&table(&shipped)?);
    out.push_str(
        "\n## By the table of a neighbouring minor\n\nWhat a release that there is no table for would get: words, \
         strings and slices only, on a program\ncompiled with PGO. Variables that the program's \
         release does not have by that name are not counted.\n\n",
    );
    out.push_str(&table(&neighbours)?);
    std::fs::write(output, out)?;
    built.extend(shipped);
    built.extend(neighbours);
    judge(&built)
}

/// Returns how often each variable was found, for each way to compile.
fn rates(rows: &[Row]) -> Outcome<String> {
    let ways: Vec<&str> = WAYS.iter().map(|way| way.name).collect();
    let mut out = format!("| variable | {} |\n|---|{}\n", ways.join(" | "), "---|".repeat(ways.len()));
    for name in VARIABLES {
        let cell = |way: &&str| {
            let of_way = || rows.iter().filter(|row| row.program == *way && row.truth.contains(name));
            let found = of_way().filter(|row| !row.verdict.none.contains(name)).count();
            format!("{found}/{}", of_way().count())
        };
        let cells: Vec<String> = ways.iter().map(cell).collect();
        writeln!(out, "| `{name}` | {} |", cells.join(" | "))?;
    }
    Ok(out)
}

fn judge(rows: &[Row]) -> Outcome {
    let wrong: Vec<String> = rows
        .iter()
        .filter(|r| !r.verdict.wrong.is_empty())
        .map(|r| format!("{} {:?}", r.program, r.verdict.wrong))
        .collect();
    println!("{} programs, {} with wrong answers", rows.len(), wrong.len());
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// Solves one program, by the table of its own release or of a neighbour. `None` if the program has no symbol
/// table.
fn row(path: &Path, program: &str, neighbour: Option<Release>) -> Outcome<Option<Row>> {
    let elf = std::fs::read(path)?;
    let size = elf.len();
    let image = Image::parse(Box::new(elf))?;
    let truth = globals::from_symtab(&image, VARIABLES);
    let version = version(&image).ok_or("no version in build info")?;
    let (header, module) = moduledata::find(&image, Some(&version)).ok_or("no moduledata")?;
    let pclntab = Pclntab::load(&image, &header, &module)?;
    let mut time = Duration::MAX;
    let mut found = globals::Globals::default();
    // Minimum of several times, because the machine can be busy with other work.
    for _ in 0..5 {
        let start = Instant::now();
        found = match neighbour {
            None => globals::solve(&image, &pclntab, &version, VARIABLES),
            Some(Release { minor, patch, .. }) => {
                let used = layout::Release { minor, patch };
                globals::solve_as_neighbour(&image, &pclntab, used, VARIABLES)
            }
        };
        time = time.min(start.elapsed());
    }
    if truth.iter().next().is_none() {
        let (ms, mb, n) = (time.as_secs_f64() * 1e3, size >> 20, found.iter().count());
        eprintln!("{ms:>6.2} ms {mb:>4} MB {program} {version}: {n} found, no symbol table to compare with");
        return Ok(None);
    }
    Ok(Some(Row {
        program: program.to_owned(),
        version: version.raw.clone(),
        used: match neighbour {
            Some(used) => used.to_string(),
            None => layout::lookup(crate::image::Arch::Amd64, &version)
                .map_or_else(String::new, |f| format!("{:?}", f.evidence)),
        },
        truth: VARIABLES.iter().copied().filter(|name| truth.address(name).is_some()).collect(),
        verdict: Verdict::new(&truth, &found, neighbour.is_some()),
        size,
        time,
    }))
}

fn version(image: &Image) -> Option<GoVersion> {
    GoVersion::parse(&buildinfo::find(image)?.version)
}

fn table(rows: &[Row]) -> Outcome<String> {
    let mut out =
        String::from("| program | version | right | wrong | none | refused |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let refused: Vec<&str> = row.verdict.none.iter().map(|n| n.trim_start_matches("runtime.")).collect();
        let refused =
            if refused.len() > 8 { format!("{} …", refused[..8].join(" ")) } else { refused.join(" ") };
        let (wrong, none) = (row.verdict.wrong.len(), row.verdict.none.len());
        writeln!(
            out,
            "| {} | {} | {} | {wrong} | {none} | {refused} |",
            row.program, row.version, row.verdict.right
        )?;
        eprintln!(
            "{:>6.2} ms {:>4} MB {:<32} {:<24} {} right, wrong {:?}, none {:?}",
            row.time.as_secs_f64() * 1e3,
            row.size >> 20,
            row.program,
            row.used,
            row.verdict.right,
            row.verdict.wrong,
            row.verdict.none
        );
    }
    Ok(out)
}
