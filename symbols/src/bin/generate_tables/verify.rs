//! Measures recipes on programs that they were not learned from, against the programs' own symbol tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use symbols::globals::{self, VARIABLES, Verdict};
use symbols::image::Image;
use symbols::layout::{self, Release};
use symbols::moduledata;
use symbols::pclntab::Pclntab;
use symbols::version::GoVersion;
use symbols::{buildinfo, layout::releases};

use crate::{Outcome, build};

/// A way to compile that changes the code of the runtime or where it is linked.
struct Variant {
    name: &'static str,
    flags: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const VARIANTS: &[Variant] = &[
    Variant { name: "plain", flags: &[], environment: &[] },
    Variant { name: "PIE", flags: &["-buildmode=pie"], environment: &[] },
    Variant { name: "cgo, external link", flags: &["-ldflags=-linkmode=external"], environment: CGO },
    Variant { name: "-race", flags: &["-race"], environment: CGO },
    Variant { name: "-gcflags=all=-N -l", flags: &["-gcflags=all=-N -l"], environment: &[] },
    Variant { name: "GOAMD64=v3", flags: &[], environment: &[("GOAMD64", "v3")] },
    Variant { name: "PGO, all packages", flags: &["-pgo="], environment: &[] },
];

const CGO: &[(&str, &str)] = &[("CGO_ENABLED", "1")];

/// The releases whose every variant is built.
const MINORS: &[u32] = &[18, 21, 24, 27];

/// What came of one program.
struct Row {
    program: String,
    version: String,
    used: String,
    verdict: Verdict,
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

/// Builds `cmd/pprof` in all variants with some releases, takes the commands that each toolchain ships, and writes
/// the comparison.
pub(crate) fn matrix(builds: &Path, output: &Path) -> Outcome {
    let (mut variants, mut shipped, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    let all: Vec<Release> = releases().collect();
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
        if newest {
            let below = all.iter().rfind(|r| r.minor + 1 == release.minor);
            let above = all.iter().find(|r| r.minor == release.minor + 1);
            for used in below.into_iter().chain(above) {
                let name = format!("compile, by the table of {used}");
                neighbours.extend(row(&root.join("pkg/tool/linux_amd64/compile"), &name, Some(*used))?);
            }
        }
        if !newest || !MINORS.contains(&release.minor) {
            continue;
        }
        for Variant { name, flags, environment } in VARIANTS {
            let profile = root.join("src/cmd/compile/default.pgo");
            if name.starts_with("PGO") && !profile.exists() {
                continue;
            }
            let file = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            let path = builds.join(format!("{release}.pprof.{file}"));
            if !path.exists() {
                let flags = flags.iter().map(|f| match *f {
                    "-pgo=" => format!("-pgo={}", profile.display()),
                    other => other.to_owned(),
                });
                let status = Command::new("go")
                    .arg("build")
                    .args(flags)
                    .arg("-o")
                    .arg(&path)
                    .arg("cmd/pprof")
                    .current_dir(&root)
                    .env("GOTOOLCHAIN", build::toolchain(release))
                    .env("GOFLAGS", "")
                    .env("CGO_ENABLED", "0")
                    .envs(environment.iter().copied())
                    .status()?;
                if !status.success() {
                    eprintln!("{release}: {name} cannot be built");
                    continue;
                }
            }
            variants.extend(row(&path, name, None)?);
        }
    }
    let mut out = String::from(
        "# Recipes: measured\n\n\
         Written by `generate-tables verify`. Recipes find the addresses of the runtime's variables in programs\n\
         without a symbol table. Here they are applied to programs that they were not learned from, and compared\n\
         with the symbol tables of these programs, which the solver does not see. *None* means that the solver\n\
         refused to answer; a wrong answer would be a defect.\n\n## Ways to compile\n\n`cmd/pprof`, by the newest patch\n\
         of some releases. PGO uses the profile of the Go compiler for all packages, the runtime included.\n\n",
    );
    out.push_str(&table(&variants)?);
    out.push_str("\n## Programs that the toolchains ship\n\nPrebuilt by the Go project; `compile` with PGO since 1.21.\n\n");
    out.push_str(&table(&shipped)?);
    out.push_str(
        "\n## By the table of a neighbouring minor\n\nWhat a release that there is no table for would get: words, \
         strings and slices only, on a program\ncompiled with PGO. Variables that the program's \
         release does not have by that name are not counted.\n\n",
    );
    out.push_str(&table(&neighbours)?);
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for name in variants.iter().chain(&shipped).flat_map(|r| &r.verdict.none) {
        *refused.entry(name).or_default() += 1;
    }
    out.push_str("\n## Variables that were refused somewhere\n\n| variable | programs |\n|---|---|\n");
    for (name, count) in refused {
        writeln!(out, "| `{name}` | {count} |")?;
    }
    std::fs::write(output, out)?;
    variants.extend(shipped);
    variants.extend(neighbours);
    judge(&variants)
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

/// Solves one program, by its own release's table or by a neighbour's. `None` for a program without a symbol table.
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
    // The quickest of some: the machine may be busy with other things.
    for _ in 0..5 {
        let start = Instant::now();
        found = match neighbour {
            None => globals::solve(&image, &pclntab, &version, VARIABLES),
            Some(used) => globals::solve_as_neighbour(&image, &pclntab, used, VARIABLES),
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
            None => layout::lookup(&version).map_or_else(String::new, |f| format!("{:?}", f.evidence)),
        },
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
